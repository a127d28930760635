"""The command that a diagnosis ends with: the remedy, where one command is it."""

from __future__ import annotations

import shlex
import types
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgequant.findings import Finding
from edgequant.jobs.next_command import next_command
from edgequant.judge.diagnosis import Diagnosis
from edgequant.judge.layers import Blame
from edgequant.judge.verdict import Verdict
from edgequant.models import read_model
from edgequant.models.mnn.weights import read_weights
from edgequant.plan.request import Request
from edgequant.spec import Variant
from tests import generated

REQUEST = Request(Path("m.onnx"), devices=("ssh://board",), variants=(Variant.parse("static:8"),))


def command(
    code: str, request: Request = REQUEST, *, stage: str = "quantization", layers: Any = (), artifact: Any = None
) -> str | None:
    """Of a run in which y fails and z does not."""
    verdicts = {"y": Verdict.FAIL, "z": Verdict.PASS}
    outputs = {name: types.SimpleNamespace(verdict=types.SimpleNamespace(verdict=it)) for name, it in verdicts.items()}
    trial: Any = types.SimpleNamespace(
        variant=request.variants[0], uri="ssh://board", artifact=artifact, outputs=outputs
    )
    cause = Finding(code=code, severity="fail", message="it is")
    run: Any = types.SimpleNamespace(path=Path("run"))
    return next_command(Diagnosis(stage, Blame(layers, "proven", "it is"), cause), run, request, trial)


def test_another_order_of_equal_scores_is_allowed_for_the_outputs_that_fail() -> None:
    told = command("ORDER_OF_EQUALS", stage="device", layers=("top",))
    assert told == "edgequant verify m.onnx --device ssh://board --variant static:8 --decides y=set"
    assert command("ORDER_OF_EQUALS", replace(REQUEST, decides={"y": "set"}), stage="device") is None, "it was"


def test_what_was_calibrated_with_other_data_is_calibrated_with_the_inputs_where_there_are_any() -> None:
    asked = replace(REQUEST, calibration="other", inputs="cases")
    told = command("INPUT_UNLIKE_CALIBRATION", asked)
    assert told == "edgequant verify m.onnx --device ssh://board --variant static:8 --inputs cases"
    assert command("INPUT_UNLIKE_CALIBRATION", replace(asked, inputs=None)) is None
    assert command("INPUT_UNLIKE_CALIBRATION", replace(asked, calibration=None)) is None


def test_what_no_variant_mends_is_exported_to_be_reported() -> None:
    for code in ("SHAPE_WRONG", "HOST_KERNEL_DIFFERS"):
        told = command(code, stage="device", layers=("conv",))
        assert told == "edgequant diagnose run --device ssh://board --variant static:8 --export-case case"


def test_a_static_layer_is_named_by_a_skip_of_its_own_and_one_without_weights_by_those_that_read_it(
    as_mnn: Callable[..., Path], tmp_path: Path
) -> None:
    made = as_mnn(generated.small_cnn(tmp_path / "m.onnx"), "--weightQuantBits", "8")
    ops = [op for op in read_model(made).ops if op.subgraph is None]
    weighted = [each.name for each in read_weights(made)]
    assert len(weighted) > 2
    for bare, reader in ((a, b) for a in ops for b in ops if {*a.outputs} & {*b.inputs}):
        if bare.name not in weighted and reader.name in weighted:
            break
    else:
        raise AssertionError("no layer without weights in front of one that has some")
    asked = replace(REQUEST, variants=(Variant.parse(f"static:8,skip={weighted[0]}"),))
    artifact = types.SimpleNamespace(run_as=Variant.parse("static:8"), path=made)
    told = command("RANGE_CLIPPED", asked, layers=(bare.name, weighted[1]), artifact=artifact)
    assert told is not None
    variant = Variant.parse(shlex.split(told)[-1])
    assert set(variant.skip) == {weighted[0], weighted[1], reader.name}
    assert bare.name not in variant.skip, "static takes no skip= of it"
