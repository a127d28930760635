"""The model's own band: how far this host strays from itself decides how far a device may be from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgequant.archive.types import FileFacts, Moved, Strayed
from edgequant.compare.metrics import compare
from edgequant.judge.band import Band, Bands
from edgequant.judge.verdict import Verdict
from tests.judge.archives import BOARD, HOST, TRUE, WAVE, Archive, all_off, codes, off, only, parsed, told_by

MANY = 1000


def moved(db: float | None, case: str = "a", memory: Any = "low", by: Any = "noise", **more: float) -> Moved:
    """One try: what output y strayed by."""
    return Moved(case=case, by=by, memory=memory, outputs={"y": Strayed(sqnr_db=db, **more)})


def of(*tries: Moved, elements: int = MANY, method: str = "dynamic", limits: tuple[str, ...] = (), **more: Any) -> Band:
    kinds = {"y": more.pop("kind", "float")}
    return Bands(kinds, method, more.pop("precision", "normal"), parsed(limits), tries).of("y", "a", elements)


def test_the_worst_of_its_tries_less_the_margin() -> None:
    assert of(moved(50), moved(45), moved(48, "b")) == Band(37, 45)
    assert of(moved(5.4), method="static") == Band(pytest.approx(-2.6), 5.4), "wide because it was seen"
    assert of(moved(95), method="float") == Band(60, 95), "never more than float kernels are good for"
    assert of(moved(65), method="float") == Band(57, 65), "but less, where a float model is that unstable"


def test_without_tries_it_is_fixed_and_the_users_own_comes_first() -> None:
    assert of() == Band(20)
    assert of(moved(50, "b")) == Band(20), "another size says nothing of a large output"
    assert of(moved(None)) == Band(20), "an output of zeros has no SQNR"
    assert of(method="float") == Band(60)
    assert of(method="float", precision="low") == Band(30)
    for limits in (("device_sqnr_db>=7",), ("y:device_sqnr_db>=7",)):
        assert of(moved(50), limits=limits) == Band(7, asked=True)
    assert of(moved(50), limits=("sqnr_db>=7",)) == Band(42, 50)


def test_where_chance_decides_all_cases_stand_for_each() -> None:
    """Of few numbers, of tries that part by far, and where another case has gone much farther."""
    tries = [moved(50), moved(40, "b"), moved(45, "c")]
    assert of(*tries, elements=64) == Band(42, 50)
    assert of(*tries, elements=63) == Band(20, 40), "no more than the fixed one"
    assert of(moved(30), moved(36), moved(31, "b")) == Band(22, 30)
    assert of(moved(30), moved(36.1), moved(29, "b")) == Band(17, 29)
    assert of(moved(30), moved(36.1, by="step"), moved(29, "b")) == Band(22, 30), "one step goes as far as it will"
    assert of(moved(50), moved(200), moved(29, "b"), moved(29, "b")) == Band(17, 29)
    assert of(moved(50), moved(30, "b")) == Band(42, 50)


def test_cases_that_strain_the_model_stand_for_themselves() -> None:
    tries = [moved(50), moved(28, "silence")]
    bands = Bands({"y": "float"}, "dynamic", "normal", (), tries, {"a"})
    assert bands.of("y", "a", MANY) == Band(42, 50)
    assert bands.of("y", "silence", MANY) == Band(16, 28)


def test_where_no_activation_took_another_step_nothing_is_known() -> None:
    assert of(moved(200), moved(91)) == Band(20)
    assert of(moved(200), moved(90)) == Band(60, 90)
    assert of(moved(200), moved(29, "b"), moved(200, "c")) == Band(17, 29), "but in other cases one did"
    assert of(moved(200), method="weight") == Band(60, 200), "float kernels take no steps"


def test_whole_numbers_have_one_too() -> None:
    def labels(*tries: Moved, **more: Any) -> Band:
        return of(*tries, kind="int", **more)

    assert labels(method="float") == Band(0)
    assert labels(method="float", precision="low") == labels() == Band(0.01)
    assert labels(elements=4) == Band(0.25), "one of them"
    tries = moved(None, mismatch=0.02), moved(None, mismatch=0.03), moved(None, mismatch=0.0)
    assert labels(*tries, method="float") == Band(0.06, 0.03)
    assert labels(*tries) == Band(pytest.approx(0.07), 0.03)


@pytest.mark.parametrize(
    ("here", "there", "inside"),
    [
        (WAVE, off(WAVE, 61), True),
        (WAVE, off(WAVE, 59), False),
        (WAVE, None, False),
        (WAVE, WAVE[1:], False),
        (1e-7 * WAVE, 9e-7 * WAVE, True),
        (1e-5 * WAVE, 2e-5 * WAVE, False),
        (0 * WAVE, 0.9e-3 + 0 * WAVE, True),
        (0 * WAVE, 1.1e-3 + 0 * WAVE, False),
    ],
)
def test_what_is_outside(here: np.ndarray, there: np.ndarray | None, inside: bool) -> None:
    """Zeros are held against the size the output has in other cases: here 1."""
    bands = Bands({"y": "float"}, "float", "normal", ())
    found = bands.outside({"y": {"loud": compare(WAVE / WAVE.max(), WAVE / WAVE.max()), "a": compare(here, there)}})
    assert [each.case for each in found] == ([] if inside else ["a"])


@pytest.mark.parametrize(
    ("there", "own", "decisions", "inside"),
    [
        (off(4e-6 * WAVE, 50), 95, (), False),  # the float kernels of any unit keep 60 dB
        (off(4e-6 * WAVE, 61), 95, (), True),
        (off(4e-6 * WAVE, 50), 15, (), True),  # what is left of larger numbers
        (off(4e-6 * WAVE, 50), None, (), True),  # nobody knows
        (off(4e-6 * WAVE, 50), 95, ("y",), True),  # the score of a detector that sees nothing
    ],
)
def test_a_small_unit_hides_nothing(
    there: np.ndarray, own: float | None, decisions: tuple[str, ...], inside: bool
) -> None:
    """All errors are below 1e-6 here, and so is no output that is steady."""
    tries = () if own is None else (moved(own, memory="normal"),)
    bands = Bands({"y": "float"}, "float", "normal", (), tries, None, decisions)
    assert (not bands.outside({"y": {"a": compare(4e-6 * WAVE, there)}})) == inside


def test_a_quiet_case_of_a_loud_output_is_next_to_nothing() -> None:
    tries = (moved(95, memory="normal"), moved(95, "quiet", memory="normal"))
    bands = Bands({"y": "float"}, "float", "normal", (), tries)
    quiet = compare(4e-7 * WAVE, 6e-7 * WAVE)
    assert not bands.outside({"y": {"a": compare(WAVE, WAVE), "quiet": quiet}})


def board(path: Path, db: float, own: float | None, variant: str = "dynamic:8", **more: Any) -> Archive:
    """Device against host so far apart, and what this host came to by itself."""
    archive = Archive(path, variant, devices=(BOARD,), **more.pop("asked", {}))
    archive.made(variant, facts=more.pop("facts", FileFacts(weights="quantized")))
    tries = () if own is None else (moved(own), moved(own, "b"), moved(own, memory="normal"))
    archive.on_host(variant, all_off(TRUE, 200), memory_mode="low", normal=TRUE, moved=tries)
    archive.on_device(BOARD, variant, all_off(TRUE, db), **{"normal": TRUE} | more)
    return archive


def test_a_device_has_to_be_as_near_as_this_host_is_to_itself(tmp_path: Path) -> None:
    assert codes(only(board(tmp_path, 40, 45))) == []
    trial = only(board(tmp_path / "far", 36, 45))
    assert (trial.verdict, codes(trial)) == (Verdict.FAIL, ["DEVICE_BEYOND_ROUNDING"])
    (finding,) = trial.findings
    assert finding.message == (
        "device and host compute different things with the same file: only 36 dB SQNR between them in y, case 'a'; "
        "this host itself keeps 45 dB there when its inputs move by next to nothing, so that rounding leaves at least "
        "37 dB"
    )
    assert finding.evidence["found"][0] | {"sqnr_db": 0, "max_abs": 0} == {
        "output": "y", "case": "a", "sqnr_db": 0, "mismatch": None, "max_abs": 0, "problem": None, "bound": 37.0,
        "own": 45.0, "asked": False,
    }  # fmt: skip
    assert codes(only(board(tmp_path / "older", 34, None))) == [], "fixed bands are those of before"


def test_an_error_of_arithmetic_is_none_whatever_the_value(tmp_path: Path) -> None:
    """Scores of a detector that sees nothing: float MNN is off by one last bit of a number near 1."""
    scores = {"a": {"y": np.linspace(0, 2e-5, 64, dtype=np.float32)}, "b": {"y": 1e-3 * np.abs(WAVE)}}
    noise = np.resize([2e-7, -2e-7], 64).astype(np.float32)
    near = {case: {"y": outputs["y"] + noise} for case, outputs in scores.items()}
    archive = Archive(tmp_path, "float", reference=scores, float_host=near)
    archive.tried(HOST, "float", near, normal={})
    assert (only(archive).verdict, codes(only(archive))) == (Verdict.PASS, ["OUTPUT_NEAR_NOTHING"])
    assert archive.judged().findings == (), "nothing to report to MNN"
    (result, *_) = [each for each in only(archive).outputs["y"].verdict.results if each.limit.metric == "sqnr_db"]
    assert (result.verdict, result.case) == (Verdict.PASS, "a")
    assert result.value is not None
    assert result.value < 41
    # An output that does not come at all, or that is off in another case, is not excused by it.
    for other in ({"a": {"y": np.zeros(64, np.float32)}, "b": near["b"]}, near | {"b": {"y": 1.1 * scores["b"]["y"]}}):
        archive = Archive(tmp_path / str(len(list(tmp_path.iterdir()))), "float", reference=scores, float_host=other)
        archive.tried(HOST, "float", other, normal={})
        assert only(archive).verdict is Verdict.FAIL
        assert archive.judged().findings[0].code == "CONVERSION_ERROR"


def test_a_score_that_is_nothing_in_every_case_shows_nothing(tmp_path: Path) -> None:
    """A detector of text, given noise: 4e-7 from the source, 3e-7 from a sound conversion, 1e-6 at 8 bits."""
    chance = np.random.default_rng(0)
    scores = {case: {"y": (chance.random(64) * 4e-7).astype(np.float32)} for case in "ab"}
    near = {
        case: {"y": (outputs["y"] * chance.uniform(0, 2, 64)).astype(np.float32)} for case, outputs in scores.items()
    }
    for number, (made, decisions, verdict) in enumerate((
        (near, {"y": "scores"}, Verdict.INCONCLUSIVE),
        (near, {}, Verdict.FAIL),  # any other number may be a length in metres
        (near | {"b": {"y": scores["b"]["y"] + np.float32(2e-3)}}, {"y": "scores"}, Verdict.FAIL),
    )):  # fmt: skip
        archive = Archive(
            tmp_path / str(number), "float", reference=scores, float_host=made, source={"decisions": decisions}
        )
        archive.tried(HOST, "float", made, normal={})
        assert only(archive).verdict is verdict
        if verdict is Verdict.INCONCLUSIVE:
            assert codes(only(archive)) == ["OUTPUT_NOT_EXCITED"]
            assert archive.judged().findings == (), "nothing to report to MNN"


def test_a_score_that_is_nothing_in_one_case_is_judged_by_the_others(tmp_path: Path) -> None:
    scores = {"a": {"y": np.full(1, 0.48, np.float32)}, "b": {"y": np.full(1, 6.3e-7, np.float32)}}
    near = scores | {"b": {"y": np.full(1, 5.9e-7, np.float32)}}
    more = {"decisions": {"y": "scores"}}
    for b, verdict in ((near["b"], Verdict.PASS), ({"y": np.full(1, 2e-3, np.float32)}, Verdict.FAIL)):
        made = near | {"b": b}
        archive = Archive(tmp_path / verdict, "float", reference=scores, float_host=made, source=more)
        archive.tried(HOST, "float", made, normal={})
        assert only(archive).verdict is verdict


def test_static_int8_is_judged_by_what_was_seen_of_it(tmp_path: Path) -> None:
    static = FileFacts(weights="quantized", static_tensors=1)
    far = {"asked": {"limits": ("sqnr_db>=1", "rel_max<=9", "cosine>=0")}, "facts": static}
    for own, verdict in ((None, Verdict.INCONCLUSIVE), (23, Verdict.PASS), (30, Verdict.FAIL)):
        assert only(board(tmp_path / str(own), 18, own, "static:8", normal={}, **far)).verdict is verdict


def test_another_mnn_and_fp16_arithmetic_cannot_be_imitated(tmp_path: Path) -> None:
    other = board(tmp_path, 34, 45, device=told_by(BOARD, mnn="3.4.0"))
    assert codes(only(other)) == ["MNN_VERSION_DIFFERS"]
    options = only(board(tmp_path / "low", 34, 45)), {"options": {"precision": "low"}}
    assert options[0].verdict is Verdict.FAIL
    asked = board(tmp_path / "fp16", 34, 45)
    low = asked.plan.options.model_copy(update={"precision": "low"})
    assert codes(only(asked, options=low)) == ["PRECISION_LOW_INEFFECTIVE"]


def test_a_band_that_lets_anything_through_is_told(tmp_path: Path) -> None:
    lenient = {"limits": ("sqnr_db>=1", "rel_max<=0.9", "cosine>=0.1")}
    trial = only(board(tmp_path, 25, 8.5, asked=lenient))
    assert (trial.verdict, codes(trial)) == (Verdict.MARGINAL, ["DEVICE_BAND_WIDE"])
    assert "y of case 'a' keeps only 8.5 dB SQNR on this host itself" in trial.findings[0].message
    assert codes(only(board(tmp_path / "9", 25, 11.5, asked=lenient))) == []


def test_memory_normal_has_a_band_of_its_own(tmp_path: Path) -> None:
    archive = board(tmp_path, 45, 50, normal=all_off(TRUE, 55))
    assert codes(only(archive)) == ["FILE_OR_KERNEL_DIFFERS"]
    (finding,) = only(archive).findings
    assert [(each["case"], each["bound"], each["own"]) for each in finding.evidence["found"]] == [("b", 60.0, None)]
