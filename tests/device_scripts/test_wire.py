"""The wire format: what goes in comes out, and nothing but WireError comes of anything else."""

from __future__ import annotations

import io
import json
import random
import time
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgequant.device_scripts import wire

QUIET = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])

names = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**64) | st.floats(allow_nan=False, allow_infinity=False)
values = scalars | names | st.lists(scalars | names, max_size=3) | st.dictionaries(names, scalars, max_size=3)
headers = st.dictionaries(names.filter(lambda name: name != "tensors"), values, max_size=4)


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray:
    """Any bits of any dtype, in any byte order and memory layout."""
    dtype = np.dtype(draw(st.sampled_from(sorted(wire.DTYPES))))
    shape = tuple(draw(st.lists(st.integers(0, 4), max_size=6)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    count = int(np.prod(shape, dtype=int))
    raw = rng.bytes(count * dtype.itemsize)
    if dtype == np.bool_:
        raw = bytes(byte & 1 for byte in raw)
    array = np.frombuffer(raw, dtype=dtype).reshape(shape)
    layout = draw(st.sampled_from(["plain", "big", "transposed", "reversed", "strided"]))
    if layout == "big" and dtype.itemsize > 1:
        array = array.view(dtype.newbyteorder(">"))  # any bits are as good as any other
    elif layout == "transposed":
        array = array.T
    elif layout == "reversed" and array.ndim:
        array = array[::-1]
    elif layout == "strided" and array.ndim:
        array = array.repeat(2, axis=-1)[..., ::2]
    return array


def bits(array: np.ndarray) -> bytes:
    """Values as little-endian bytes, so that NaN payloads and signs of zero count."""
    return array.astype(array.dtype.newbyteorder("<"), order="C").tobytes()


def encoded(kind: int = wire.REQUEST, header: dict | None = None, tensors: dict | None = None) -> bytes:
    return b"".join(bytes(piece) for piece in wire.encode(kind, header or {}, tensors))


def reader(data: bytes, sizes: random.Random | None = None, **options: int) -> wire.FrameReader:
    """Reads `data` in whole requests, or in pieces of any size."""
    position = 0

    def read(limit: int) -> bytes:
        nonlocal position
        assert limit > 0
        size = limit if sizes is None else sizes.randint(1, limit)
        piece = data[position : position + size]
        position += len(piece)
        return piece

    return wire.FrameReader(read, **options)


def forged(header: bytes, payload: bytes = b"", kind: int = wire.RESPONSE) -> bytes:
    """A frame with a right checksum around whatever is given."""
    front = wire.PREFIX.pack(wire.MAGIC, kind, bytes(3), len(header), len(payload), 0)[:-4]
    crc = zlib.crc32(payload, zlib.crc32(header, zlib.crc32(front)))
    return front + crc.to_bytes(4, "little") + header + payload


def listing(*tensors: object) -> bytes:
    return json.dumps({"tensors": list(tensors)}).encode()


def one(dtype: object = "float32", shape: object = (1,), name: object = "a") -> dict[str, object]:
    return {"name": name, "dtype": dtype, "shape": shape}


@settings(QUIET, max_examples=500)
@given(
    st.lists(
        st.tuples(st.sampled_from([1, 2, 3]), headers, st.dictionaries(names, arrays(), max_size=3)),
        min_size=2,
        max_size=3,
    ),
    st.randoms(use_true_random=False),
)
def test_round_trip(frames: list, sizes: random.Random) -> None:
    source = reader(b"".join(encoded(*frame) for frame in frames), sizes)
    for kind, header, tensors in frames:
        frame = source.read_frame()
        assert frame is not None
        assert frame.kind == kind
        assert {key: value for key, value in frame.header.items() if key != "tensors"} == header
        found = frame.tensors()
        assert list(found) == list(tensors)
        for name, array in tensors.items():
            assert found[name].shape == array.shape
            assert found[name].dtype.name == array.dtype.name
            assert bits(found[name]) == bits(array)
    assert source.read_frame() is None


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_every_nan_keeps_its_bits(dtype: str, order: str) -> None:
    size = np.dtype(dtype).itemsize
    words = np.array([-1, -2, 2 ** (size * 8 - 1) - 1], dtype=np.dtype(f"i{size}")).astype(f"{order}i{size}")
    array = words.view(f"{order}f{size}")
    assert np.isnan(array).all()
    frame = reader(encoded(tensors={"x": array})).read_frame()
    assert frame is not None
    assert bits(frame.tensors()["x"].view(f"<i{size}")) == bits(words)


def test_tensors_can_be_written_to() -> None:
    frame = reader(encoded(tensors={"x": np.zeros(3, np.float32)})).read_frame()
    assert frame is not None
    frame.tensors()["x"][:] = 1


def test_a_large_tensor_is_not_copied_to_be_sent() -> None:
    array = np.zeros(1 << 20, np.float32)
    _, payload = wire.encode(wire.REQUEST, {}, {"x": array})
    assert np.shares_memory(np.frombuffer(payload, np.uint8), array)


@pytest.mark.parametrize("array", [np.array(["a"]), np.array([1j]), np.array([None]), np.zeros(1, "M8[s]")])
def test_other_dtypes_are_not_sent(array: np.ndarray) -> None:
    with pytest.raises(wire.WireError):
        wire.encode(wire.REQUEST, {}, {"x": array})


def test_a_header_above_the_limit_is_not_sent() -> None:
    with pytest.raises(wire.WireError, match="above the limit"):
        wire.encode(wire.REQUEST, {"text": "x" * wire.MAX_HEADER})


def taken_apart(data: bytes) -> None:
    frame = reader(data).read_frame()
    assert frame is not None
    frame.tensors()


def outcome(data: bytes) -> object:
    """The frame and its tensors, or None where the reader refuses the bytes; anything else is a failure."""
    try:
        frame = reader(data, max_payload=1 << 30).read_frame()
        return None if frame is None else (frame.kind, frame.header, {k: bits(v) for k, v in frame.tensors().items()})
    except wire.WireError:
        return None


SAMPLE = encoded(wire.RESPONSE, {"id": 7, "ok": True}, {"x": np.arange(6, dtype=np.int16).reshape(2, 3)})


def test_every_flipped_bit_is_noticed() -> None:
    assert outcome(SAMPLE) is not None
    for position in range(len(SAMPLE) * 8):
        damaged = bytearray(SAMPLE)
        damaged[position // 8] ^= 1 << position % 8
        assert outcome(bytes(damaged)) is None, f"bit {position}"


def test_every_cut_is_noticed() -> None:
    for length in range(1, len(SAMPLE)):
        with pytest.raises(wire.WireError, match="ended inside a frame"):
            reader(SAMPLE[:length]).read_frame()
    assert reader(b"").read_frame() is None


@settings(QUIET, max_examples=500)
@given(st.binary(max_size=200), st.integers(0, 30))
def test_random_bytes(noise: bytes, kept: int) -> None:
    outcome(SAMPLE[:kept] + noise)


@settings(QUIET, max_examples=500)
@given(
    st.recursive(
        scalars | names | st.sampled_from(["float32", "bool", "name", "dtype", "shape"]),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.fixed_dictionaries({"name": inner, "dtype": st.just("float32") | inner, "shape": inner})
        ),
        max_leaves=10,
    ),
    st.binary(max_size=20),
)
def test_any_listing(tensors: object, payload: bytes) -> None:
    outcome(forged(json.dumps({"tensors": tensors}).encode(), payload))


@pytest.mark.parametrize(
    "data",
    {
        "magic": b"HTTP" + SAMPLE[4:],
        "kind": forged(b"{}", kind=0),
        "kind 4": forged(b"{}", kind=4),
        "not JSON": forged(b"{id: 1}"),
        "empty": forged(b""),
        "not UTF-8": forged(b'{"a": "\xff"}'),
        "cut JSON": forged(b'{"id": 1'),
        "a list": forged(b"[]"),
        "a number": forged(b"1"),
        "NaN": forged(b'{"id": NaN}'),
        "infinity": forged(b'{"id": -Infinity}'),
        "deep lists": forged(b"[" * 1_000_000),
        "deep objects": forged(b'{"a":' * 500_000),
        "long number": forged(b'{"id": ' + b"9" * 4_000_000 + b"}"),
        "not a list": forged(b'{"tensors": {}}'),
        "entries": forged(listing("x")),
        "no name": forged(listing({"dtype": "float32", "shape": []}), bytes(4)),
        "name": forged(listing(one(name=1)), bytes(4)),
        "twice": forged(listing(one(), one()), bytes(8)),
        "dtype": forged(listing(one("complex64")), bytes(8)),
        "object": forged(listing(one("object")), bytes(8)),
        "dtype list": forged(listing(one(["float32"])), bytes(4)),
        "dtype order": forged(listing(one(">f4")), bytes(4)),
        "shape": forged(listing(one(shape=4)), bytes(4)),
        "shape of floats": forged(listing(one(shape=[1.0])), bytes(4)),
        "shape of bools": forged(listing(one(shape=[True])), bytes(4)),
        "negative": forged(listing(one(shape=[-1])), bytes(4)),
        "negative twice": forged(listing(one(shape=[-1, -1])), bytes(4)),
        "too many dimensions": forged(listing(one(shape=[1] * 33)), bytes(4)),
        "giant": forged(listing(one(shape=[2**62])), bytes(4)),
        "overflowing to 1": forged(listing(one(shape=[2**32] * 2)), b""),
        "empty but uncountable": forged(listing(one(shape=[0, 2**32, 2**32])), b""),
        "too little": forged(listing(one(shape=[2])), bytes(4)),
        "too much": forged(listing(one()), bytes(5)),
        "payload of nothing": forged(b"{}", bytes(4)),
        "bools": forged(listing(one("bool", [2])), b"\x01\x02"),
    }.items(),
    ids=lambda item: item[0],
)
def test_damage(data: tuple[str, bytes]) -> None:
    start = time.process_time()
    with pytest.raises(wire.WireError):
        taken_apart(data[1])
    assert time.process_time() - start < 30


@pytest.mark.parametrize(
    ("header_size", "payload_size"),
    [(2**32 - 1, 0), (wire.MAX_HEADER + 1, 0), (2, 2**64 - 1), (2, wire.MAX_PAYLOAD + 1), (2, wire.MAX_PAYLOAD)],
)
def test_lying_lengths_cost_no_memory(header_size: int, payload_size: int) -> None:
    data = wire.PREFIX.pack(wire.MAGIC, wire.REQUEST, bytes(3), header_size, payload_size, 0) + b"{}" + bytes(100_000)
    tracemalloc.start()
    try:
        with pytest.raises(wire.WireError):
            reader(data).read_frame()
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_a_giant_shape_costs_no_memory() -> None:
    frame = reader(forged(listing(one(shape=[2**31, 16])), bytes(4))).read_frame()
    assert frame is not None
    tracemalloc.start()
    try:
        with pytest.raises(wire.WireError, match="larger than the payload"):
            frame.tensors()
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_own_limit_of_the_payload() -> None:
    data = encoded(tensors={"x": np.zeros(100, np.uint8)})
    assert reader(data, max_payload=100).read_frame() is not None
    with pytest.raises(wire.WireError, match="above the limit"):
        reader(data, max_payload=99).read_frame()


@settings(QUIET, max_examples=200)
@given(st.binary(max_size=300).filter(lambda noise: wire.PREAMBLE not in noise), st.randoms(use_true_random=False))
def test_noise_before_the_preamble(noise: bytes, sizes: random.Random) -> None:
    source = reader(noise + wire.PREAMBLE + SAMPLE, sizes)
    assert source.skip_to_preamble() == noise
    assert source.read_frame() is not None  # nothing behind the preamble was taken


def test_a_preamble_that_starts_twice() -> None:
    assert reader(wire.PREAMBLE[:-3] + wire.PREAMBLE).skip_to_preamble() == wire.PREAMBLE[:-3]


def test_noise_up_to_the_limit_and_beyond() -> None:
    noise = b"x" * (1000 - len(wire.PREAMBLE))
    assert reader(noise + wire.PREAMBLE).skip_to_preamble(limit=1000) == noise
    with pytest.raises(wire.WireError, match="no runner in the first 1000 bytes") as caught:
        reader(b"x" + noise + wire.PREAMBLE).skip_to_preamble(limit=1000)
    assert caught.value.args[1].startswith(noise)


def test_no_preamble_at_all() -> None:
    with pytest.raises(wire.WireError, match="ended before") as caught:
        reader(b"bash: python3: command not found\n").skip_to_preamble()
    assert caught.value.args[1] == b"bash: python3: command not found\n"


def test_frames_that_arrive_together_or_in_pieces_are_the_same() -> None:
    tensors = {"x": np.arange(100_000, dtype=np.float32), "y": np.zeros(0, np.int8)}
    frames_out = [wire.encode(wire.REQUEST, {"id": number}, tensors if number == 2 else None) for number in (1, 2, 3)]
    data = b"".join(piece for frame in frames_out for piece in frame)
    for size in (1, 23, 24, 25, 65_536, len(data)):
        stream = io.BytesIO(data)
        source = wire.FrameReader(lambda limit, size=size, stream=stream: stream.read(min(limit, size)))  # type: ignore[misc]
        frames = [source.read_frame() for _ in range(4)]
        assert [frame and frame.header["id"] for frame in frames] == [1, 2, 3, None]
        assert frames[1] is not None
        np.testing.assert_array_equal(frames[1].tensors()["x"], tensors["x"])


def test_a_whole_frame_is_answered_without_waiting_for_more() -> None:
    """A frame without payload is complete: another read would wait for the other end, which waits for the answer."""
    pieces = [b"".join(wire.encode(wire.REQUEST, {"id": 1}))]
    source = wire.FrameReader(lambda limit: pieces.pop())
    frame = source.read_frame()
    assert frame is not None
    assert frame.header["id"] == 1


def test_gathered_is_the_same_bytes_with_small_buffers_joined() -> None:
    pieces = [memoryview(bytes([number]) * size) for number, size in enumerate((30, 1000, 64 << 10, 5, 5))]
    joined = wire.gathered(pieces)
    assert [len(piece) for piece in joined] == [1030, 64 << 10, 10]
    assert b"".join(joined) == b"".join(pieces)
    assert joined[1] is pieces[2]
