"""Whether a device computes the same twice, and whether dynamic quantization took place: every answer there is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgequant.archive.arrays import MemoryArrays
from edgequant.archive.types import Capture, FileFacts, SessionCapture
from edgequant.findings import Finding
from edgequant.judge.engaged import determinism, differing, engagement, faint
from edgequant.judge.stages import Comparer
from edgequant.judge.types import NOTHING, Engaged, Observed
from edgequant.judge.verdict import Verdict
from tests.judge.archives import TRUE, WAVE, all_off, artifact, capture, captured, failed, off

QUANTIZED = FileFacts(weights="quantized")
TWO = {"a": {"y": WAVE, "z": WAVE}, "b": {"y": WAVE, "z": WAVE}}
NOT_ENGAGED = (
    "It needs quantized weights, memory low, and an MNN built with MNN_LOW_MEMORY (PyPI's is).  To judge the "
    "weight-quantized file run in float, use weight:N."
)
NO_KERNELS = (
    "weights are quantized and memory is low, so this MNN was built without MNN_LOW_MEMORY, or it has no low-memory "
    "kernels for these ops on this CPU"
)


def took(cases: Any = TRUE, *, memory: str = "low", **more: Any) -> Capture:
    return capture(MemoryArrays(), cases, memory_mode=memory, **more)


def session(low: float | None, normal: float | None) -> SessionCapture:
    return SessionCapture(mb=low, normal_mb=normal)


def evidence(**other: Any) -> dict[str, Any]:
    return {
        "case": "a", "outputs_differ": True, "outputs_reached": ["y"], "deterministic": True,
        "session_mb_low": None, "session_mb_normal": None,
    } | other  # fmt: skip


def not_engaged(engaged: bool | None, why: str, found: dict[str, Any]) -> tuple[Engaged, Observed]:
    said = "did not take place" if engaged is False else "could not be proven"
    finding = Finding(
        code="LOW_MEMORY_NOT_ENGAGED",
        severity="error",
        message=f"dynamic quantization {said}: {why}",
        evidence=found,
        remedy=NOT_ENGAGED,
    )
    return Engaged(engaged, why, found), Observed((finding,), Verdict.INCONCLUSIVE)


def test_outputs_differ_in_any_bit_and_where_only_one_has_them() -> None:
    arrays = MemoryArrays()
    nan = np.array([np.nan, 1], np.float32)
    mine, its = {"same": nan, "y": WAVE, "mine": WAVE}, {"same": nan.copy(), "y": -WAVE, "its": WAVE}
    one, other, none = captured(arrays, {"a": mine, "b": its, "c": "no"})
    assert differing(one, other) == ["y", "mine", "its"]
    assert differing(one, none) == ["same", "y", "mine"]
    assert differing(none, other) == ["same", "y", "its"]
    assert differing(one, one) == differing(none, none) == []


def test_a_case_that_comes_out_otherwise_is_not_deterministic() -> None:
    assert determinism(took()) == (None, NOTHING)
    assert determinism(took(repeated={"of another run": TRUE["a"]})) == (None, NOTHING)
    assert determinism(took(repeated=TRUE)) == (True, NOTHING)
    many = {"a": TWO["a"], "b": {f"y{i:02}": WAVE for i in range(30)}}
    again = {"of another run": TRUE["a"], "a": TWO["a"], "b": dict.fromkeys(many["b"], -WAVE)}
    answer, observed = determinism(took(many, repeated=again))
    names = list(many["b"])
    assert answer is False
    assert observed == Observed(
        (
            Finding(
                code="NOT_DETERMINISTIC",
                severity="error",
                where="y00",
                message=f"the same inputs (case 'b') gave other outputs the second time: {', '.join(names[:20])}",
                evidence={"outputs": names},
                remedy="A single run says nothing about such a model.  Look for random operators in it, try "
                "--threads 1, and suspect the device's memory if other models do the same.",
            ),
        ),
        Verdict.INCONCLUSIVE,
    )
    thousands = {"a": {f"y{i}": WAVE for i in range(1002)}}
    _, observed = determinism(took(thousands, repeated={"a": {}}))
    assert len(observed.findings[0].evidence["outputs"]) == 1000


SIZES = {"a": {"x": (1, 4)}, "b": {"x": (1, 4)}, "c": {"x": (1, 9)}}
THREE = {"a": {"y": WAVE}, "b": {"y": 2 * WAVE}, "c": {"y": 3 * WAVE}}


@pytest.mark.parametrize(
    ("changed", "factor", "code"),
    [
        ("a", 1.0, None),
        ("b", 1.5, "STALE_SHAPE"),  # c comes before it, which was a before
        ("b", 1.0 + 1e-6, "NOT_DETERMINISTIC"),  # a last bit
        ("a", 1.5, "NOT_DETERMINISTIC"),  # after one of its own size, as before
    ],
)
def test_what_changes_only_after_another_size_is_called_that(changed: str, factor: float, code: str | None) -> None:
    arrays = MemoryArrays()
    again = {name: THREE[name] for name in "cba"}
    again[changed] = {"y": np.float32(factor) * THREE[changed]["y"]}
    found = capture(arrays, THREE, repeated=again)
    _, observed = determinism(found, SIZES, Comparer(arrays))
    assert [each.code for each in observed.findings] == ([] if code is None else [code])
    if code == "STALE_SHAPE":
        assert observed.verdict is Verdict.FAIL
        assert observed.findings[0].evidence["sqnr_db"] == pytest.approx(6, abs=0.1)
    elif code is not None:
        assert observed.findings[0].evidence["sqnr_db"] is not None
        assert "dB from the first time" in observed.findings[0].message


def test_it_is_engaged_where_outputs_differ_from_memory_normal() -> None:
    dynamic = artifact("dynamic:8", facts=QUANTIZED)
    found = took(repeated=TRUE, normal={"a": {"y": -WAVE}})
    assert engagement(dynamic, found, True) == (Engaged(True, "outputs differ from memory normal", evidence()), NOTHING)
    # Of a case that was run again, the second run is the one just before memory normal.
    found = took({"a": {"y": -WAVE}}, repeated={"a": {"y": WAVE}}, normal={"a": {"y": -WAVE}})
    assert engagement(dynamic, found, True)[0].engaged is True
    found = took(normal={"b": {"y": -WAVE}})
    assert engagement(dynamic, found, True)[0].evidence["case"] == "b"


def test_equal_bits_disprove_it_whatever_memory_the_session_needs() -> None:
    dynamic = artifact("dynamic:8", facts=QUANTIZED)
    for deterministic in (True, False, None):
        found = took(normal=TRUE, session=session(10.0, 11.0))
        same = evidence(outputs_differ=False, outputs_reached=[], deterministic=deterministic,
                        session_mb_low=10.0, session_mb_normal=11.0)  # fmt: skip
        engaged, observed = engagement(dynamic, found, deterministic)
        assert (engaged.engaged, engaged.evidence) == (False, same)
        assert observed.verdict is Verdict.INCONCLUSIVE
    found = took(normal=all_off(TRUE, 30), session=session(10.0, 11.0))
    engaged, observed = engagement(dynamic, found, False)
    assert (engaged.engaged, engaged.why, observed) == (True, "outputs differ from memory normal", NOTHING)


@pytest.mark.parametrize(
    "memory", [None, session(None, 11.0), session(10.0, None), session(10.0, 10.0), session(11, 10)]
)
def test_without_that_it_is_not_engaged(memory: SessionCapture | None) -> None:
    found = took(normal=TRUE, session=memory)
    low, normal = (None, None) if memory is None else (memory.mb, memory.normal_mb)
    same = evidence(outputs_differ=False, outputs_reached=[], session_mb_low=low, session_mb_normal=normal)
    assert engagement(artifact("dynamic:8", facts=QUANTIZED), found, True) == not_engaged(False, NO_KERNELS, same)
    why = "the file holds no quantized weights: none of its layers is of a kind or size MNN quantizes"
    assert engagement(artifact("dynamic:8"), found, True) == not_engaged(False, why, same)
    # What was not asked for is no finding.
    assert engagement(artifact("weight:8"), found, True) == (Engaged(False, why, same), NOTHING)


def test_outputs_that_change_anyway_prove_nothing() -> None:
    why = "outputs change from run to run, so a difference to memory normal proves nothing"
    found = took(normal=all_off(TRUE, 30))
    for deterministic in (False, None):
        proof = evidence(deterministic=deterministic)
        assert engagement(artifact("dynamic:8"), found, deterministic) == not_engaged(None, why, proof)
        assert engagement(artifact("weight:8"), found, deterministic) == (Engaged(None, why, proof), NOTHING)
    # A run that ended in its middle is judged by what it brought back.
    assert engagement(artifact("dynamic:8"), took(normal=all_off(TRUE, 30), failure=failed()), None) == not_engaged(
        None, why, evidence(deterministic=None)
    )


def test_outputs_that_nothing_quantized_goes_into_are_named() -> None:
    found = took(TWO, normal={"a": {"y": -WAVE, "z": WAVE}})
    engaged, observed = engagement(artifact("dynamic:8"), found, True)
    assert engaged.engaged is True
    assert observed == Observed(
        (
            Finding(
                code="LOW_MEMORY_PARTIAL",
                severity="warn",
                where="z",
                message="1 output(s) are the same in every bit with memory normal: nothing they are computed from was "
                "quantized at run time",
                evidence={"outputs": ["z"]},
                remedy="MNN has low-memory kernels for plain convolutions and matrix products only; these outputs are "
                "as with weight:N.",
            ),
        )
    )
    assert engagement(artifact("weight:8"), found, True)[1] == NOTHING
    fell = took(TWO, normal={"a": {"y": -WAVE, "z": WAVE}}, session=session(1.0, 2.0))
    assert engagement(artifact("dynamic:8"), fell, False)[1] == NOTHING
    thousands = {"a": {f"y{i}": WAVE for i in range(1002)}}
    found = took(thousands, normal={"a": thousands["a"] | {"y0": -WAVE}})
    _, observed = engagement(artifact("dynamic:8"), found, True)
    assert len(observed.findings[0].evidence["outputs"]) == 1000
    assert observed.findings[0].message.startswith("1001 output(s)")


def test_with_memory_otherwise_it_cannot_be() -> None:
    found = took(memory="normal", normal=all_off(TRUE, 30))
    why = "memory is 'normal', dynamic quantization needs 'low'"
    assert engagement(artifact("dynamic:8"), found, True) == not_engaged(False, why, {})
    assert engagement(artifact("weight:8"), found, True) == (Engaged(), NOTHING)


def test_where_it_did_not_come_to_that_it_is_unknown() -> None:
    for memory in ("low", "normal"):
        nothing = took({"a": "too large"}, memory=memory)
        assert engagement(artifact("weight:8"), nothing, True) == (Engaged(), NOTHING)
        assert engagement(artifact("dynamic:8"), nothing, True) == not_engaged(None, "no case could be run", {})
        ended = nothing.model_copy(update={"failure": failed()})
        lost = Engaged(None, "the run ended before it could be proven", {})
        assert engagement(artifact("dynamic:8"), ended, True) == (lost, NOTHING)
    strange = took(normal={"of another run": TRUE["a"]})
    assert engagement(artifact("dynamic:8"), strange, True) == not_engaged(None, "no case could be run", {})


def moved(arrays: MemoryArrays, **outputs: float) -> Capture:
    """Outputs that memory low moves so far, in dB; of two cases, the second of which strains the model."""
    normal = {case: dict.fromkeys(outputs, WAVE) for case in ("a", "strained")}
    low = {"a": {name: off(WAVE, db) for name, db in outputs.items()}, "strained": dict.fromkeys(outputs, -WAVE)}
    return capture(arrays, low, normal=normal, repeated=low, memory_mode="low")


@pytest.mark.parametrize(
    ("here", "there", "worst"),
    [
        ({"y": 40.0}, {"y": 59.9}, None),
        ({"y": 40.0}, {"y": 60.1}, "y"),
        ({"y": 40.0, "z": 50.0}, {"y": 69.0, "z": 69.0}, None),  # one of them is moved
        ({"y": 50.0, "z": 40.0}, {"y": 75.0, "z": 75.0}, "z"),
        ({"y": 40.0, "z": 95.0}, {"y": 75.0, "z": 95.0}, "y"),  # z is next to unmoved here as well
        ({"y": 95.0}, {"y": 130.0}, None),
        ({"y": 40.0}, {"z": 130.0}, None),
    ],
)
def test_a_last_bit_is_no_int8_activation(here: dict[str, float], there: dict[str, float], worst: str | None) -> None:
    arrays = MemoryArrays()
    mine, its = moved(arrays, **here), moved(arrays, **there)
    names: dict[str, Any] = dict.fromkeys(("y", "z"), "float")
    found = faint(mine, its, names, frozenset("a"), Comparer(arrays))
    assert faint(None, its, names, frozenset("a"), Comparer(arrays)) is None
    if worst is None:
        assert found is None
        return
    assert found is not None
    assert found[0] == worst
    assert found[1:] == pytest.approx((here[worst], there[worst]), abs=0.1)
    dynamic = artifact("dynamic:8", facts=QUANTIZED)
    engaged, observed = engagement(dynamic, its, True, found)
    assert (engaged.engaged, observed.verdict) == (False, Verdict.INCONCLUSIVE)
    assert engaged.why is not None
    assert f"{worst} keeps {found[2]:.4g} dB SQNR there, {found[1]:.4g} dB on this host" in engaged.why
    assert (engaged.evidence["sqnr_db"], engaged.evidence["host_sqnr_db"]) == (found[2], found[1])
    assert engagement(artifact("weight:8"), its, True, found)[1] == NOTHING
