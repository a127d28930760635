"""What is systematic in the residual of a stage, and what that comes to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgequant.archive.types import CaseFacts, ReferenceFacts, Source
from edgequant.judge.residual import CODES, RULES
from edgequant.judge.types import TrialJudgement
from edgequant.judge.verdict import Verdict
from tests.judge.archives import BOARD, Archive, all_off, codes, on_board, only

CHANCE = np.random.default_rng(4)
FLOAT = {case: {"y": CHANCE.standard_normal((1, 20, 16)).astype(np.float32)} for case in "abc"}
INPUTS = {case: CHANCE.standard_normal((1, 3)).astype(np.float32) for case in "abc"}
HERE = all_off(FLOAT, 35)
Change = Callable[[np.ndarray], np.ndarray]


def each(cases: dict[str, dict[str, np.ndarray]], change: Change) -> dict[str, dict[str, np.ndarray]]:
    return {case: {name: change(array.copy()) for name, array in outputs.items()} for case, outputs in cases.items()}


def taken(archive: Archive, inputs: dict[str, np.ndarray] = INPUTS) -> Archive:
    """With inputs that differ from case to case."""
    refs = {case: {"x": archive.arrays.put(array)} for case, array in inputs.items()}
    cases = tuple(CaseFacts(name=case, source="random", inputs=ref) for case, ref in refs.items())
    path = archive.folder.path / "source.json"
    source = Source.model_validate_json(path.read_bytes()).model_copy(update={"cases": cases})
    archive.folder.save_source(source)
    return archive


def on_the_board(path: Path, there: Any, here: Any = HERE, variant: str = "dynamic:8", **more: Any) -> TrialJudgement:
    more = {"reference": FLOAT} | more
    archive = taken(on_board(path, there, here, variant, **more))
    archive.on_device(BOARD, variant, there, normal=all_off(FLOAT, 20))
    return only(archive)


def told(trial: TrialJudgement) -> dict[str, str]:
    return {finding.code: finding.severity for finding in trial.findings if finding.code in CODES}


def test_rounding_is_nothing(tmp_path: Path) -> None:
    assert told(on_the_board(tmp_path, all_off(HERE, 45))) == {}


def _zeroed(array: np.ndarray) -> np.ndarray:
    array[..., 5] = 0
    return array


def _first(array: np.ndarray) -> np.ndarray:
    array[:, 0] *= np.float32(0.9)
    return array


def _heard(array: np.ndarray) -> np.ndarray:
    array[..., 3] += np.float32(0.1) * array[..., 9]
    return array


FAULTS: list[tuple[str, Change]] = [
    ("RESIDUAL_GAIN", lambda array: array * np.float32(1.03)),
    ("RESIDUAL_OFFSET", lambda array: array + np.float32(0.03)),
    ("OUTPUT_STUCK", _zeroed),
    ("RESIDUAL_STEP", _first),
    ("RESIDUAL_CROSSTALK", _heard),
    ("RESIDUAL_LAG", lambda array: np.roll(array, 1, 1)),
    ("RESIDUAL_PERMUTED", lambda array: np.flip(array, 2)),
]


@pytest.mark.parametrize(("code", "fault"), FAULTS)
def test_on_a_device_it_is_fail(tmp_path: Path, code: str, fault: Change) -> None:
    trial = on_the_board(tmp_path, each(all_off(HERE, 45), fault))
    assert told(trial).get(code) == "fail"
    assert trial.verdict is Verdict.FAIL
    (finding,) = [found for found in trial.findings if found.code == code]
    assert finding.where == "y"
    assert finding.evidence["stage"] == "device"
    assert finding.message.startswith("the device against this host, with the same file: ")


def test_in_quantizing_what_rounding_weights_can_do_is_no_failure(tmp_path: Path) -> None:
    louder = each(HERE, lambda array: array * np.float32(1.06))
    trial = on_the_board(tmp_path, louder, louder)
    assert (trial.verdict, told(trial)) == (Verdict.PASS, {"RESIDUAL_GAIN": "warn"})
    little = each(HERE, lambda array: array * np.float32(1.03))
    assert told(on_the_board(tmp_path / "little", little, little)) == {}


@pytest.mark.parametrize(
    ("variant", "gain", "said"),
    [
        ("dynamic:2", 1.06, ["Rounding this coarse can do it", "edgequant diagnose RUN", "more bits"]),
        ("static:8", 0.5, ["Rounding this coarse can do it", "a finer variant"]),
        ("dynamic:8", 1.06, ["Rounding does not do this", "by a recipe"]),
        ("static:8", 1.06, ["Rounding does not do this", "(skip=)"]),
    ],
)
def test_where_rounding_is_coarse_the_remedy_says_so(
    tmp_path: Path, variant: str, gain: float, said: list[str]
) -> None:
    louder = each(HERE, lambda array: array * np.float32(gain))
    (found,) = [each for each in on_the_board(tmp_path, louder, louder, variant).findings if each.code in CODES]
    assert (found.code, found.severity, found.evidence["stage"]) == ("RESIDUAL_GAIN", "warn", "quantization")
    assert found.remedy is not None
    assert all(words in found.remedy for words in said)
    assert ("skip=" in found.remedy) is ("(skip=)" in said)


def test_an_output_that_is_next_to_nothing_is_called_so(tmp_path: Path) -> None:
    silent = each(HERE, lambda array: array * np.float32(1e-6))
    messages = [each.message for each in on_the_board(tmp_path, silent, silent).findings if each.code in CODES]
    assert any("it is next to nothing (silent)" in message for message in messages)
    assert not any("-100" in message for message in messages)


def test_in_quantizing_what_rounding_cannot_do_is_fail(tmp_path: Path) -> None:
    zeroed = each(HERE, _zeroed)
    trial = on_the_board(tmp_path, zeroed, zeroed, limits=("sqnr_db>=5", "cosine>=0.5", "rel_max<=2"))
    assert (trial.verdict, told(trial)["OUTPUT_STUCK"]) == (Verdict.FAIL, "fail")
    assert any(each.message.endswith("; no rounding does that") for each in trial.findings)


def test_what_rounding_to_few_bits_takes_away_is_fail_and_not_denied_to_rounding(tmp_path: Path) -> None:
    zeroed = each(HERE, _zeroed)
    trial = on_the_board(tmp_path, zeroed, zeroed, "dynamic:2", limits=("sqnr_db>=5", "cosine>=0.5", "rel_max<=2"))
    (found,) = [each for each in trial.findings if each.code == "OUTPUT_STUCK"]
    assert (trial.verdict, found.severity) == (Verdict.FAIL, "fail")
    assert "no rounding" not in found.message
    assert "Rounding this coarse can do it" in (found.remedy or "")
    turned = each(HERE, lambda array: np.flip(array, 2))
    trial = on_the_board(tmp_path / "turned", turned, turned, "dynamic:2")
    (found,) = [each for each in trial.findings if each.code == "RESIDUAL_PERMUTED"]
    assert found.message.endswith("; no rounding does that")
    assert "Rounding does not do this" in (found.remedy or "")


@pytest.mark.parametrize(("kind", "severity", "verdict"), [("onnxruntime", "fail", "FAIL"), ("file", "warn", "PASS")])
def test_a_conversion_that_is_systematically_wrong(tmp_path: Path, kind: str, severity: str, verdict: str) -> None:
    """3 % of gain are 30 dB, which a quantized model is allowed."""
    wrong = each(FLOAT, lambda array: array * np.float32(1.03))
    archive = taken(
        on_board(
            tmp_path, wrong, wrong, "dynamic:8", reference=FLOAT, float_host=wrong,
            source={"reference": ReferenceFacts(kind=kind, version="1")}, limits=("rel_max<=0.5",),
        )
    )  # fmt: skip
    archive.on_device(BOARD, "dynamic:8", wrong, normal=all_off(FLOAT, 20))
    judged = archive.judged()
    assert {each.code: each.severity for each in judged.findings}["RESIDUAL_GAIN"] == severity
    assert judged.verdict.value == verdict
    assert told(judged.trials[0]) == {}


def test_a_band_that_the_user_has_opened_lets_sizes_pass_but_not_places(tmp_path: Path) -> None:
    louder = each(HERE, lambda array: array * np.float32(1.03))
    trial = on_the_board(tmp_path, louder, limits=("device_sqnr_db>=15",))
    assert told(trial)["RESIDUAL_GAIN"] == "warn"
    stricter = on_the_board(tmp_path / "stricter", louder, limits=("device_sqnr_db>=25",))
    assert told(stricter)["RESIDUAL_GAIN"] == "fail"
    late = each(HERE, lambda array: np.roll(array, 1, 1))
    assert told(on_the_board(tmp_path / "late", late, limits=("device_sqnr_db>=-20",)))["RESIDUAL_LAG"] == "fail"


def test_outputs_and_cases_that_were_exchanged(tmp_path: Path) -> None:
    other = {case: CHANCE.standard_normal((1, 20, 16)).astype(np.float32) for case in "abc"}
    both = {case: {"y": FLOAT[case]["y"], "z": other[case]} for case in "abc"}
    swapped = {case: {"y": other[case], "z": FLOAT[case]["y"]} for case in "abc"}
    trial = on_the_board(tmp_path, swapped, both, reference=both)
    assert told(trial)["OUTPUT_SWAPPED"] == "fail"
    turned = {case: HERE[of] for case, of in zip("abc", "bca", strict=True)}
    assert "CASE_SWAPPED" in told(on_the_board(tmp_path / "cases", turned))
    stale = {case: HERE["a" if case == "b" else case] for case in "abc"}
    assert "OUTPUT_STALE" in told(on_the_board(tmp_path / "stale", stale))


def test_cases_with_the_same_inputs_prove_no_more_than_one(tmp_path: Path) -> None:
    """Rounding is loud at one step, and at the same one where what goes in is the same."""

    def burst(array: np.ndarray) -> np.ndarray:
        array[:, 7] += 0.1 * np.random.default_rng(3).standard_normal(array[:, 7].shape)
        return array

    same = dict.fromkeys("abc", FLOAT["a"])
    here = dict.fromkeys("abc", HERE["a"])
    inputs = {case: (1 + number) * INPUTS["a"] for number, case in enumerate("abc")}
    archive = taken(on_board(tmp_path, each(here, burst), here, "dynamic:8", reference=same), inputs)
    assert told(only(archive)) == {}
    archive = taken(on_board(tmp_path / "other", each(HERE, burst), HERE, "dynamic:8", reference=FLOAT))
    assert told(only(archive))["RESIDUAL_STEP"] == "fail"


def test_whole_numbers_and_what_never_came_are_left_out(tmp_path: Path) -> None:
    labels = {case: {"y": np.arange(64).reshape(8, 8)} for case in "abc"}
    assert told(on_the_board(tmp_path, each(labels, lambda array: array[::-1]), labels, reference=labels)) == {}
    gone: dict[str, Any] = {case: {} for case in "abc"}
    assert "OUTPUT_MISSING" in codes(on_the_board(tmp_path / "gone", gone))


def test_every_code_is_one_of_the_independent_checker() -> None:
    text = (Path(__file__).parents[2] / "tools" / "check_judge.py").read_text()
    known = text.split("SYSTEMATIC = (")[1].split("\nDEVICE")[0]
    assert all(code.removeprefix("RESIDUAL_") in known for code in CODES)
    assert {rule.code for rule in RULES.values()} <= set(CODES)
