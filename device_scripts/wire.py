"""The format both ends speak: frames of a JSON header and raw tensors over a byte stream.

After start the runner writes PREAMBLE once, so that the host can tell its stream from whatever a login shell printed
before it.  Everything after that, in both directions, is frames:

    offset  size  what
    0       4     magic b"EQF1"
    4       1     kind: 1 request, 2 response, 3 event
    5       3     zero
    8       4     header length in bytes, little-endian
    12      8     payload length in bytes, little-endian
    20      4     CRC-32 of the 20 bytes before it, header and payload, little-endian
    24      ...   header: a JSON object in UTF-8
    ...     ...   payload: the tensors the header lists under "tensors", one after the other, little-endian, C order

Neither end trusts the other: lengths are bounded, memory is taken as bytes arrive rather than as they are announced,
and a tensor's size must follow from its dtype and shape.
"""

from __future__ import annotations

import json
import struct
import zlib
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple

import numpy as np

PROTOCOL = 1
PREAMBLE = b"EDGEQUANT-RUNNER/1\n"
MAGIC = b"EQF1"
REQUEST, RESPONSE, EVENT = 1, 2, 3
PREFIX = struct.Struct("<4sB3sIQI")
_CHECKED = PREFIX.size - 4  # what of the prefix the checksum covers: all but itself
MAX_HEADER = 8 << 20
MAX_PAYLOAD = 4 << 30
CHUNK = 1 << 20
AHEAD = 64 << 10
"""Bytes that are read at once where fewer are needed; what a pipe holds."""
DTYPES = frozenset(
    ("float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool")
)

Header = Dict[str, Any]


class WireError(Exception):
    """The other end sent something that is not this protocol, or stopped in the middle of a frame."""


class Frame:
    """One frame as it arrived: its kind, its header, and its payload until `tensors` takes it apart."""

    def __init__(self, kind: int, header: Header, payload: bytearray) -> None:
        self.kind = kind
        self.header = header
        self.payload = payload

    def tensors(self) -> Dict[str, np.ndarray]:
        """The tensors by name, as views into the payload (no copy).  Raises WireError for a lying header."""
        listed = self.header.get("tensors", [])
        if not isinstance(listed, list):
            raise WireError("'tensors' is not a list")
        found: Dict[str, np.ndarray] = {}
        offset = 0
        for entry in listed:
            name, dtype, shape = _described(entry)
            if name in found:
                raise WireError("tensor %r is listed twice" % name)
            count = 1
            for size in shape:
                count *= size
            size_bytes = count * dtype.itemsize
            if size_bytes > len(self.payload) - offset:
                raise WireError("tensor %r is larger than the payload" % name)
            flat = np.frombuffer(self.payload, dtype=dtype, count=count, offset=offset)
            if dtype == np.bool_ and flat.view(np.uint8).max(initial=0) > 1:
                raise WireError("tensor %r holds bytes that are not booleans" % name)
            try:
                found[name] = flat.reshape(shape)
            except ValueError:  # a zero among sizes whose product NumPy cannot count
                raise WireError("tensor %r has no valid shape" % name) from None
            offset += size_bytes
        if offset != len(self.payload):
            raise WireError("%d bytes of payload belong to no tensor" % (len(self.payload) - offset))
        return found


def _described(entry: Any) -> Tuple[str, "np.dtype[Any]", Tuple[int, ...]]:
    if not isinstance(entry, dict):
        raise WireError("a tensor's entry is not an object")
    name, dtype, shape = entry.get("name"), entry.get("dtype"), entry.get("shape")
    if not isinstance(name, str) or not isinstance(dtype, str) or dtype not in DTYPES:
        raise WireError("a tensor without a name or with an unknown dtype: %.200r" % (entry,))
    # 32 is what every NumPy version can hold; bool is an int to Python, and True is not a size.
    if not isinstance(shape, list) or len(shape) > 32:
        raise WireError("tensor %r has no valid shape" % name)
    for size in shape:
        if type(size) is not int or not 0 <= size <= MAX_PAYLOAD:
            raise WireError("tensor %r has no valid shape" % name)
    return name, np.dtype(dtype).newbyteorder("<"), tuple(shape)


def encode(kind: int, header: Header, tensors: Optional[Mapping[str, np.ndarray]] = None) -> List[memoryview]:
    """A frame as buffers to be written one after the other; large tensors are not copied.

    Raises WireError for a dtype the format does not know or a frame above the limits.
    """
    header = dict(header)
    arrays: List[memoryview] = []
    if tensors:
        listed = []
        for name, array in tensors.items():
            if array.dtype.name not in DTYPES:
                raise WireError("tensor %r: dtype %s cannot be sent" % (name, array.dtype))
            # ascontiguousarray would turn a rank-0 array into shape (1,), so the shape is taken before it.
            listed.append({"name": name, "dtype": array.dtype.name, "shape": list(array.shape)})
            flat = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
            if flat.size:
                arrays.append(flat.reshape(-1).view(np.uint8).data)
        header["tensors"] = listed
    text = _ENCODER.encode(header).encode()
    payload_size = sum(len(array) for array in arrays)
    if len(text) > MAX_HEADER or payload_size > MAX_PAYLOAD:
        raise WireError("a frame of %d + %d bytes is above the limit" % (len(text), payload_size))
    prefix = PREFIX.pack(MAGIC, kind, bytes(3), len(text), payload_size, 0)
    crc = zlib.crc32(text, zlib.crc32(prefix[:_CHECKED]))
    for piece in arrays:
        crc = zlib.crc32(piece, crc)
    return [memoryview(prefix[:_CHECKED] + struct.pack("<I", crc) + text), *arrays]


def gathered(pieces: List[memoryview]) -> List[Any]:
    """The same bytes in as few buffers as there should be writes: small ones are joined, large ones not copied."""
    joined: List[Any] = []
    for piece in pieces:
        if joined and len(joined[-1]) + len(piece) <= AHEAD:
            joined[-1] = b"".join((joined[-1], piece))
        else:
            joined.append(piece)
    return joined


def _no_constant(word: str) -> Any:
    raise ValueError("%s is not JSON" % word)


def _whole(digits: str) -> int:
    # Reading a number takes time that grows with the square of its length, and nothing here needs more than 64 bits.
    if len(digits) > 40:
        raise ValueError("a number of %d digits" % len(digits))
    return int(digits)


# json.dumps and json.loads would make new ones for every frame.
_ENCODER = json.JSONEncoder(separators=(",", ":"), allow_nan=False)
_DECODER = json.JSONDecoder(parse_int=_whole, parse_constant=_no_constant)


class FrameReader:
    """Reads frames from a byte stream.  Takes what is there, up to AHEAD bytes, so nobody else can read from it.

    Args:
        read: returns at least 1 and at most the asked number of bytes, b"" at the end of the stream.
        max_payload: larger payloads are refused, in bytes.
    """

    def __init__(self, read: Callable[[int], bytes], max_payload: int = MAX_PAYLOAD) -> None:
        self._read = read
        self._max_payload = max_payload
        self._ahead = bytearray()
        """What was read of the stream and belongs to what comes next."""

    def skip_to_preamble(self, limit: int = 1 << 16) -> bytes:
        """Read up to and including PREAMBLE; returns what stood before it (a login banner, for example).

        Raises WireError when the stream ends, or `limit` bytes pass, without it; its `args[1]` is what was read.
        """
        seen = bytearray()
        while not seen.endswith(PREAMBLE):
            byte = self._some(1)
            if not byte:
                raise WireError("the stream ended before the runner said hello", bytes(seen))
            seen += byte
            if len(seen) > limit:
                raise WireError("no runner in the first %d bytes" % limit, bytes(seen))
        return bytes(seen[: -len(PREAMBLE)])

    def read_frame(self) -> Optional[Frame]:
        """The next frame, or None where the stream ends between two frames.  Raises WireError."""
        prefix = self._exactly(PREFIX.size, at_boundary=True)
        if not prefix:
            return None
        magic, kind, zero, header_size, payload_size, crc = PREFIX.unpack(prefix)
        if magic != MAGIC or kind not in (REQUEST, RESPONSE, EVENT) or any(zero):
            raise WireError("not a frame: %r" % bytes(prefix))
        if header_size > MAX_HEADER or payload_size > self._max_payload:
            raise WireError("a frame of %d + %d bytes is above the limit" % (header_size, payload_size))
        text = self._exactly(header_size)
        payload = self._exactly(payload_size)
        if zlib.crc32(payload, zlib.crc32(text, zlib.crc32(prefix[:_CHECKED]))) != crc:
            raise WireError("a frame arrived damaged (checksum)")
        try:
            header = _DECODER.decode(text.decode("utf-8"))
        except (ValueError, RecursionError) as error:
            raise WireError("a frame's header is not JSON: %s" % error) from None
        if not isinstance(header, dict):
            raise WireError("a frame's header is not an object")
        return Frame(kind, header, payload)

    def _exactly(self, size: int, at_boundary: bool = False) -> bytearray:
        data = self._some(size) if size else bytearray()
        if not data and at_boundary:
            return data
        while len(data) < size:
            left = size - len(data)
            # Prefix and header come with one call, most often; a large payload is not copied once more.
            piece = self._some(left) if left < AHEAD else self._read(min(left, CHUNK))
            if not piece:
                raise WireError("the stream ended inside a frame")
            data += piece
        return data

    def _some(self, size: int) -> bytearray:
        """At least one byte, at most `size`; nothing at the end of the stream."""
        if not self._ahead:
            self._ahead += self._read(AHEAD)
        if len(self._ahead) <= size:
            data, self._ahead = self._ahead, bytearray()
            return data
        data = self._ahead[:size]
        del self._ahead[:size]
        return data
