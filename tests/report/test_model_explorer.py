"""What Model Explorer is given: numbers by node of the source, and what has none."""

from __future__ import annotations

import json

from edgequant.archive.layers import Apart, LayerCapture, LayerFacts, Tap
from edgequant.findings import Finding
from edgequant.judge.verdict import Verdict
from edgequant.report.diagnosis import DiagnosisReport
from edgequant.report.model_explorer import overlay


def tap(tensor: str, error: float, case: str = "one") -> Tap:
    return Tap(case=case, tensor=tensor, quantization=Apart(n=4, signal=1.0, error=error, max_abs=error))


CAPTURE = LayerCapture(
    variant="dynamic:8",
    uri="local:",
    layers=(
        LayerFacts(name="conv", type="Convolution", inputs=("x",), outputs=("c",)),
        LayerFacts(name="matmul", type="Convolution", inputs=("c",), outputs=("y__inner",)),
        LayerFacts(name="back", type="ConvertTensor", inputs=("y__inner",), outputs=("y__plain",)),
        LayerFacts(name="shape", type="Reshape", inputs=("y__plain",), outputs=("y",)),
        LayerFacts(name="loop", type="While", inputs=("c",), outputs=("h",), bodies=("body",)),
        LayerFacts(name="gate", subgraph="body", type="Convolution", inputs=("a",), outputs=("b",)),
    ),
    taps=(tap("c", 0.01), tap("c", 0.1, "two"), tap("y__inner", 0.0), tap("own", 0.5)),
)
NODES = {"c": "/conv/Conv", "y": "/fc/MatMul", "h": "/gru/GRU"}


def told(**more: object) -> DiagnosisReport:
    return DiagnosisReport.model_validate(
        {"verdict": Verdict.FAIL, "model": "m.onnx", "device": "local:", "variant": "dynamic:8",
         "stage": "quantization", "layers": ["body/gate"], **more}
    )  # fmt: skip


def test_each_node_has_its_worst_number_and_the_blamed_one_its_colour() -> None:
    found = overlay(told(), CAPTURE, NODES)
    results = json.loads(found.text)["results"]
    assert results["/conv/Conv"] == {"value": 20.0}, "of the worse of two cases"
    assert results["/fc/MatMul"] == {"value": 200.0}, "MNN's own tensor, reshaped to the source's"
    assert results["/gru/GRU"]["bgColor"], "the loop that the blamed layer is in"
    assert found.nodes == len(results) == 3
    assert found.lost == ("own",)


def test_a_conversion_has_the_numbers_of_the_node_that_departs() -> None:
    facts = {"inputs": [{"name": "c", "sqnr_db": 120.0}], "outputs": [{"name": "y", "sqnr_db": 3.0}]}
    cause = Finding(code="OPERATOR_MISREAD", severity="fail", message="m", evidence=facts)
    found = json.loads(overlay(told(stage="conversion", layers=["n"], cause=cause), None, NODES).text)
    assert found["results"]["/conv/Conv"] == {"value": 120.0}
    assert (found["results"]["/fc/MatMul"]["value"], "bgColor" in found["results"]["/fc/MatMul"]) == (3.0, True)
    assert found["name"].startswith("float MNN against the source")
