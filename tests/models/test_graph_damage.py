"""Cut, flipped and crafted files: an InputError or an answer, soon, and never anything else."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgequant.errors import InputError
from edgequant.models import find_risks, read_model
from edgequant.models.advice import Facts, advise
from edgequant.models.weight_risks import find_weight_risks
from edgequant.models.weights import survey_weights
from tests import generated, generated_other, sources
from tests.generated_other import pb

KINDS = ("onnx", "tflite", "pb", "mnn")
ENOUGH = 60.0
"""Seconds of this process's own time, which others on the machine do not use up: what is read forever takes more."""


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("damage")
    onnx = generated.gru(folder / "a.onnx", hidden=8)
    return {
        "onnx": onnx.read_bytes(),
        "tflite": generated_other.tflite(folder / "a.tflite", quantized=True, dtype=9, sizes=(-1, 8)).read_bytes(),
        "pb": generated_other.tf_frozen(folder / "a.pb").read_bytes(),
        "mnn": sources.convert(onnx, folder / "a.mnn").read_bytes(),
    }


def outcome(path: Path, data: bytes) -> str:
    """The error's code, or "read"; any other exception fails the test."""
    path.write_bytes(data)
    lines, code = "", "read"
    try:
        graph = read_model(path)
        survey = survey_weights(graph)
        risks = [*find_risks(graph), *find_weight_risks(graph, survey)]
        advise(graph, risks, Facts(survey))
    except InputError as error:
        lines, code = str(error), error.code
    assert "\n" not in lines
    return code


def lengths(size: int) -> Iterator[int]:
    yield from range(1, min(size, 300))
    yield from range(300, size, max(1, size // 300))
    yield from range(max(1, size - 40), size)


@pytest.mark.parametrize("kind", ["onnx", "tflite", "mnn"])
def test_cut_anywhere_is_noticed(samples, tmp_path, kind):
    data = samples[kind]
    for length in set(lengths(len(data))):
        found = outcome(tmp_path / f"m.{kind}", data[:length])
        # The last three bytes of a FlatBuffer may be padding that nobody reads.
        assert found == "MODEL_TRUNCATED" or (kind != "onnx" and length > len(data) - 4 and found == "read"), length


def test_cut_tensorflow_graph(samples, tmp_path):
    data = samples["pb"]
    found = {length: outcome(tmp_path / "m.pb", data[:length]) for length in set(lengths(len(data)))}
    # Cut between two nodes, a graph of the nodes before it is left: that cannot be told from a whole one.
    assert set(found.values()) <= {"MODEL_TRUNCATED", "MODEL_INVALID", "read"}
    assert sum(code == "MODEL_TRUNCATED" for code in found.values()) > len(found) - 8


@pytest.mark.parametrize("name", ["enc", "silero_vad", "hand_recrop"])
def test_real_models_cut(real_model, tmp_path, name):
    source = real_model(name)
    data = source.read_bytes()
    for step in range(1, 40):
        assert outcome(tmp_path / f"m{source.suffix}", data[: len(data) * step // 40]) == "MODEL_TRUNCATED"


@pytest.mark.parametrize("kind", KINDS)
def test_flipped_bytes(samples, tmp_path, kind):
    path = tmp_path / f"m.{kind}"

    @settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
    @given(st.data())
    def flip(draw: st.DataObject) -> None:
        data = bytearray(samples[kind])
        # Half of the flips hit the front, where the structure is.
        reach = draw.draw(st.sampled_from([min(400, len(data)), len(data)]))
        for _ in range(draw.draw(st.integers(1, 6))):
            data[draw.draw(st.integers(0, reach - 1))] = draw.draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xFF, 0x20]))
        outcome(path, bytes(data))

    flip()


@pytest.mark.parametrize("kind", KINDS)
def test_each_32_bit_word_replaced(samples, tmp_path, kind):
    data = samples[kind]
    for position in range(0, min(len(data), 1200) - 4, 4):
        for word in (0, 1, 0x7FFFFFFF, 0xFFFFFFFF, len(data) - 4):
            outcome(tmp_path / f"m.{kind}", data[:position] + struct.pack("<I", word) + data[position + 4 :])


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
@given(data=st.binary(min_size=1, max_size=300), kind=st.sampled_from([*KINDS, "bin"]))
def test_any_bytes(tmp_path_factory, data, kind):
    assert outcome(tmp_path_factory.getbasetemp() / f"any.{kind}", data)


def test_tables_that_share_one_vector_are_not_read_forever(tmp_path):
    started = time.process_time()
    with pytest.raises(InputError, match="larger than its size"):
        read_model(generated_other.flat_bomb(tmp_path / "m.mnn"))
    assert time.process_time() - started < ENOUGH


def test_deeply_nested_branches(tmp_path):
    graph = pb(1, pb(4, "Relu")) + pb(12, pb(1, "y"))
    for _ in range(3000):
        graph = pb(1, pb(4, "If") + pb(5, pb(1, "then_branch") + pb(6, graph))) + pb(12, pb(1, "y"))
    started = time.process_time()
    assert outcome(tmp_path / "m.onnx", pb(1, 8) + pb(7, graph) + pb(8, pb(2, 14))) == "read"
    assert time.process_time() - started < ENOUGH


def test_many_recurrent_layers_in_a_row(tmp_path):
    nodes = b"".join(
        pb(1, pb(1, f"t{i}") + pb(2, f"t{i + 1}") + pb(3, f"n{i}") + pb(4, "GRU" if i % 2 else "Reshape"))
        for i in range(20_000)
    )
    started = time.process_time()
    model = pb(1, 8) + pb(7, nodes + pb(12, pb(1, "t20000"))) + pb(8, pb(2, 14))
    assert outcome(tmp_path / "m.onnx", model) == "read"
    assert time.process_time() - started < ENOUGH


def test_local_functions(tmp_path):
    function = pb(1, "Twice") + pb(4, "a") + pb(5, "b") + pb(7, pb(1, "a") + pb(1, "a") + pb(2, "b") + pb(4, "Add"))
    graph = pb(1, pb(1, "x") + pb(2, "y") + pb(4, "Twice") + pb(7, "own")) + pb(12, pb(1, "y"))
    (tmp_path / "m.onnx").write_bytes(pb(1, 8) + pb(7, graph) + pb(8, pb(2, 14)) + pb(25, function))
    found = read_model(tmp_path / "m.onnx")
    assert [(op.type, op.subgraph) for op in found.ops] == [("own::Twice", None), ("Add", "function Twice")]
    assert found.has_subgraphs


def test_names_that_are_no_utf8(tmp_path):
    graph = pb(1, pb(1, b"x\xff") + pb(2, b"y\xfe") + pb(4, "Relu"))
    graph += pb(11, pb(1, b"x\xff") + pb(2, pb(1, pb(1, 1)))) + pb(12, pb(1, b"y\xfe") + pb(2, pb(1, pb(1, 1))))
    (tmp_path / "m.onnx").write_bytes(pb(1, 8) + pb(7, graph) + pb(8, pb(2, 14)))
    graph_info = read_model(tmp_path / "m.onnx")
    assert [spec.name for spec in graph_info.inputs or ()] == ["x\\xff"]
