"""A diagnosis on a terminal: three sentences, and a table that fits."""

from __future__ import annotations

import io
import math

import pytest
from rich.console import Console

from edgequant.findings import Finding
from edgequant.judge.diagnosis import Diagnosis, Row
from edgequant.judge.layers import Blame
from edgequant.judge.verdict import Verdict
from edgequant.report.diagnosis import DiagnosisReport, LayerRow, render, rows, sentences, to_json

CAUSE = Finding(code="ZERO_SCALE", severity="fail", where="conv", message="its scale is 0", remedy="Quantize again.")
NAME = "/a/very/long/name/of/a/layer/as/exporters/write/them/Conv_output_0"


def report(**more: object) -> DiagnosisReport:
    told: dict[str, object] = {
        "verdict": Verdict.FAIL, "model": "m.onnx", "device": "ssh://board", "variant": "static:8",
        "stage": "quantization", "layers": ["conv"], "proof": "proven", "how": "with it in float the limits hold",
        "cause": CAUSE, "next": "edgequant verify m.onnx --variant static:8,skip=conv",
        "table": [LayerRow(layer=NAME, type="ConvolutionDepthwise", entire_db=-11.5, single_db=20.0, device_db=30.0,
                           rounding_db=40.0, blamed=True)],
    }  # fmt: skip
    return DiagnosisReport.model_validate({**told, **more})


def test_three_sentences_say_who_how_it_is_known_and_what_to_do() -> None:
    first, second, third = sentences(report())
    assert first == "Quantization breaks it, in layer 'conv': its scale is 0 (ZERO_SCALE)."
    assert second == "Proven: with it in float the limits hold. The cause is read from the weights in the file."
    assert third == "Quantize again. Next: edgequant verify m.onnx --variant static:8,skip=conv"
    assert sentences(report(proof="suspicion", how=""))[1].startswith("A suspicion, not proven")
    assert sentences(report(stage=None, why="Nothing is to be blamed.", next=None)) == ["Nothing is to be blamed."]


def test_the_command_is_on_one_line_to_be_copied() -> None:
    stream = io.StringIO()
    render(report(next=f"edgequant verify m.onnx --variant static:8,skip={NAME}"), Console(file=stream, width=80))
    assert f"   Next: edgequant verify m.onnx --variant static:8,skip={NAME}" in stream.getvalue().splitlines()
    case = report(stage="conversion", next="python case/show_case.py")
    assert sentences(case)[0].startswith("The conversion to MNN breaks it, at node 'conv' of the source")
    assert sentences(case)[2].endswith("This shows it, with MNN and NumPy alone: python case/show_case.py")


@pytest.mark.parametrize("width", [80, 100, 200])
def test_no_line_is_wider_than_the_screen(width: int) -> None:
    stream = io.StringIO()
    render(report(), Console(file=stream, width=width, color_system=None, force_terminal=True))
    lines = stream.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    table = next(line for line in lines if line.startswith("layer"))
    assert table.split() == ["layer", "type", "entire", "dB", "single", "dB", "device", "dB", "noise", "dB"]
    assert any(line.startswith("* ") and "-11.5" in line and "40.0" in line for line in lines)


def test_decibels_are_told_as_everywhere_else() -> None:
    """Within the cap of reports, and no minus before a zero."""
    row = Row("conv", "Convolution", entire=-762.6, single=-0.04, device=math.inf, moved=None, blamed=True)
    found = Diagnosis("quantization", Blame(("conv",), "proven", "it is"), None, (), (row,))
    (told,) = rows(found)
    assert (told.entire_db, told.single_db, told.device_db, told.rounding_db) == (-200.0, -0.04, None, None)
    stream = io.StringIO()
    render(report(table=[told]), Console(file=stream, width=80))
    line = next(line for line in stream.getvalue().splitlines() if line.startswith("* "))
    assert line.split()[-2:] == ["-100", "0.0"]


def test_without_a_screen_nothing_is_cut() -> None:
    stream = io.StringIO()
    render(report(), Console(file=stream, width=80))
    (row,) = [line for line in stream.getvalue().splitlines() if line.startswith("* ")]
    assert row.split() == ["*", NAME, "ConvolutionDepthwise", "-11.5", "20.0", "30.0", "40.0"]
    (head,) = [line for line in stream.getvalue().splitlines() if line.startswith("layer")]
    assert len(head) == len(row)


def test_the_document_is_read_back() -> None:
    assert DiagnosisReport.model_validate_json(to_json(report())) == report()


def test_what_the_sentences_say_is_not_said_again_and_the_columns_are_explained() -> None:
    drift = Finding(code="RECURRENT_DRIFT", severity="fail", where="y", message="it breaks in step 4")
    other = Finding(code="RECURRENT_DRIFT", severity="fail", where="h", message="it breaks in step 9")
    stream = io.StringIO()
    render(report(cause=drift, findings=[drift, drift, other]), Console(file=stream, width=100))
    text = stream.getvalue()
    assert text.count("it breaks in step 4") == 1
    assert "RECURRENT_DRIFT at 'h': it breaks in step 9" in text
    assert "single: the model's worst" in " ".join(text.split())
    quiet = io.StringIO()
    render(report(), Console(file=quiet, width=100), quiet=True)
    assert "more is better" not in quiet.getvalue()


def test_what_is_broken_and_how_bad_each_stage_is_stand_first() -> None:
    limit = Finding(
        code="LIMIT_EXCEEDED", severity="fail", where="y", message="sqnr_db 12 is below the limit 30 in case0"
    )
    stages = {"conversion": 120.0, "quantization": 12.0, "device": None}
    ran = {"mnn": "3.6.1", "precision": "low", "memory": "low"}
    stream = io.StringIO()
    told = report(findings=[limit, limit], stages_of="y", stages_db=stages, ran=ran, device="local:")
    render(told, Console(file=stream, width=100))
    assert stream.getvalue().splitlines()[:4] == [
        "FAIL  static:8  on  local: (this host)",
        "   output 'y': sqnr_db 12 is below the limit 30 in case0 (1 more: --verbose)",
        "   SQNR of 'y' by stage, each by itself: conversion 120.0 dB, quantization 12.0 dB, device none",
        "   run with MNN 3.6.1, precision low, memory low",
    ]


def test_all_that_are_blamed_are_named_and_what_the_recipe_holds_is_said() -> None:
    command = "edgequant verify m.onnx --device ssh://board --variant recipe:run/diagnosis-recipe.json"
    first, _, third = sentences(report(layers=["a", "b"], next=command, variant="dynamic:8", stage="device"))
    assert first.startswith("The device breaks it, in layers 'a' and 'b'. Of the first: its scale is 0")
    assert (
        "The recipe below is dynamic:8 with 'a' and 'b' in float; on the device that has not been tried yet." in third
    )
    many = sentences(report(layers=list("abcde")))[0]
    assert "in layers 'a', 'b' and 'c' and 2 more. Of the first:" in many


def test_layers_stand_in_the_order_they_are_computed_and_what_no_decibels_tell_is_named() -> None:
    table = [
        LayerRow(layer="c2", type="Convolution", entire_db=39.0, blamed=True, place=2, there_ill="NaN", device_db=74.0),
        LayerRow(layer="c1", type="Convolution", entire_db=43.0, place=1),
        LayerRow(layer="c0", type="ConvertTensor", place=0),
    ]
    stream = io.StringIO()
    render(report(stage="device", table=table), Console(file=stream, width=100))
    rows_ = [line.split() for line in stream.getvalue().splitlines() if "Conv" in line]
    assert rows_ == [["c1", "Convolution", "43.0", "-", "-"], ["*", "c2", "Convolution", "39.0", "NaN", "-"]]
    assert "In the order they are computed." in stream.getvalue()


def test_what_outputs_look_like_behind_what_is_proven_is_told_in_one_line() -> None:
    seen = [
        Finding(code=code, severity="fail", where="y", message="it is off")
        for code in ("DEVICE_DIFFERS", "RESIDUAL_LAG")
    ]
    for stage, hidden, kept in (("device", *seen), ("conversion", *reversed(seen))):
        stream = io.StringIO()
        render(report(stage=stage, findings=seen), Console(file=stream, width=200))
        assert f"one more finding is of the same fault: {hidden.code} (--verbose)" in stream.getvalue()
        assert f"{kept.code} at 'y': it is off" in stream.getvalue()
        assert f"{hidden.code} at 'y'" not in stream.getvalue()


def test_a_host_that_is_wrong_is_said_to_be_the_one() -> None:
    told = Finding(code="HOST_KERNEL_DIFFERS", severity="fail", where="p", message="the error jumps")
    assert sentences(report(stage="device", cause=told))[0].startswith("This host breaks it, not the device")


def test_what_looking_took_of_the_device_is_said() -> None:
    for above, meant in ((12.0, "(at most 50 MB are meant)"), (61.0, "(more than the 50 MB are meant)")):
        stream = io.StringIO()
        memory = {"own": 80.0, "peak": 80 + above, "above": above}
        render(report(device_memory_mb=memory), Console(file=stream, width=200))
        assert f"Looking took {above:.0f} MB of the device above the model's own peak of 80 MB" in stream.getvalue()
        assert meant in stream.getvalue()
