"""The order of the ladder, what each step says, and real falls on real models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from edgequant.archive.types import Artifact
from edgequant.errors import EdgequantError, InputError, ToolError
from edgequant.findings import Finding
from edgequant.judge.sane import Sanity, sanity
from edgequant.models import read_model
from edgequant.quantize.calibration import CalibrationSet
from edgequant.quantize.convert import convert
from edgequant.quantize.ladder import Climbed, LadderFacts, Planned, Rung, Step, climb, plan
from edgequant.quantize.offline_options import OfflineOptions
from edgequant.quantize.rungs import FALLBACK, RungMaker, shape_config
from tests.quantize.support import Arrays, calibration_of, enc_calibration, run_mnn, smooth

Real = Callable[[str], Path]

PLAIN = LadderFacts()
SPEECH = LadderFacts(recurrent=True, origin_rnn=True, dynamic=True, shapes=1, complex=True)


def names(planned: list[Planned], *, tried: bool = True) -> list[str]:
    return [str(entry.rung) for entry in planned if (entry.passed_over is None) == tried]


def options(method: str, **more: object) -> OfflineOptions:
    return OfflineOptions(method=method, **more)  # type: ignore[arg-type]


# ---- the order


def test_a_plain_model_has_the_other_methods_in_the_good_order() -> None:
    assert names(plan(options("kl"), PLAIN)) == ["kl", "ema", "admm", "dynamic:8"]
    assert names(plan(options("ema"), PLAIN)) == ["ema", "kl", "admm", "dynamic:8"]
    assert names(plan(options("admm"), PLAIN)) == ["admm", "ema", "kl", "dynamic:8"]
    assert names(plan(options("admm"), PLAIN, accurate=True)) == ["admm", "kl", "ema", "dynamic:8"]


def test_a_recurrent_model_keeps_its_rnn_as_one_op() -> None:
    assert names(plan(options("kl"), SPEECH, static=True)) == [
        "kl",
        "kl with the RNN as one op",
        "kl with the RNN as one op and fixed shapes",
        "edgequant's own static int8",
        "ema with the RNN as one op",
        "dynamic:8",
    ]


def test_admm_is_never_tried_unasked_on_a_complex_model() -> None:
    for wanted in ("kl", "ema"):
        planned = plan(options(wanted), SPEECH)
        assert not any("admm" in name for name in names(planned))
        assert "admm with the RNN as one op" in names(planned, tried=False)
    assert names(plan(options("admm"), SPEECH))[:2] == ["admm", "admm with the RNN as one op"]


def test_what_is_known_not_to_work_is_passed_over_with_its_reason() -> None:
    fixed = next(entry for entry in plan(options("ema"), SPEECH) if entry.rung.fixed)
    assert "crashes" in (fixed.passed_over or "")
    several = LadderFacts(dynamic=True, shapes=3)
    fixed = next(entry for entry in plan(options("kl"), several) if entry.rung.fixed)
    assert "3 shapes" in (fixed.passed_over or "")
    from_mnn = LadderFacts(recurrent=True, dynamic=True, complex=True)
    assert names(plan(options("kl"), from_mnn, static=True)) == ["kl", "edgequant's own static int8", "dynamic:8"]
    skipping = plan(options("kl", skip=("x",)), PLAIN)
    assert names(skipping) == ["kl", "admm", "dynamic:8"]
    assert "ignores skip" in str([entry.passed_over for entry in skipping])


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("enc", LadderFacts(recurrent=True, origin_rnn=True, dynamic=True, complex=True)),
        ("ppocr_rec", LadderFacts(dynamic=True, complex=True)),
        ("ppocr_cls", LadderFacts(dynamic=True)),
    ],
)
def test_facts_of_real_models(name: str, wanted: LadderFacts, real_model: Real) -> None:
    assert LadderFacts.of(read_model(real_model(name)), 1) == wanted


# ---- climbing


@dataclass(frozen=True)
class Look:
    ok: bool
    why: str = "looked at"
    doubt: str | None = None


class Script:
    """Attempts that end as they are told: an error to raise, or whether the model is sane."""

    def __init__(self, *ends: EdgequantError | bool) -> None:
        self.ends = list(ends)
        self.tried: list[str] = []

    def attempt(self, rung: Rung) -> bool:
        self.tried.append(str(rung))
        end = self.ends.pop(0)
        if isinstance(end, EdgequantError):
            raise end
        return end

    def climb(self, method: str, facts: LadderFacts = PLAIN, **more: bool) -> Climbed[bool]:
        return climb(plan(options(method), facts), self.attempt, lambda sane: Look(sane), facts=facts, **more)


def crash(code: str = "QUANTIZER_CRASHED", signal: str | None = "SIGSEGV") -> ToolError:
    return ToolError(code, "it crashed", evidence={"signal": signal})


def test_the_first_that_is_sane_is_taken_and_nothing_else_is_said() -> None:
    script = Script(True)
    done = script.climb("kl")
    assert script.tried == ["kl"]
    assert done.steps == (Step("kl", "made", "looked at"),)
    assert done.findings == ()


def test_every_step_is_told_with_its_reason() -> None:
    script = Script(crash(), False, crash("QUANTIZER_TIMEOUT", None), True)
    done = script.climb("kl")
    assert script.tried == ["kl", "ema", "admm", "dynamic:8"]
    assert [(step.outcome, step.code, step.signal) for step in done.steps] == [
        ("failed", "QUANTIZER_CRASHED", "SIGSEGV"),
        ("insane", "QUANTIZED_MODEL_INSANE", None),
        ("failed", "QUANTIZER_TIMEOUT", None),
        ("made", None, None),
    ]
    assert [step.next is not None for step in done.steps] == [True, True, True, False]
    assert "ema (" in (done.steps[0].next or "")
    fell = done.findings[0]
    assert (fell.code, fell.severity) == ("QUANTIZE_FELL_BACK", "warn")
    assert "asked for kl, this is dynamic:8" in fell.message
    assert len(fell.evidence["steps"]) == 4


def test_a_fall_does_not_advise_what_was_given_or_done() -> None:
    def remedy(facts: LadderFacts, *ends: EdgequantError | bool) -> str:
        (fell,) = Script(*ends).climb("kl", facts).findings
        return fell.remedy or ""

    given = LadderFacts(real_data=True)
    assert "In report.json, the steps of the run" in remedy(PLAIN, crash(), True)
    assert "Real calibration data often helps" in remedy(PLAIN, crash(), True)
    assert "eal calibration data" not in remedy(given, crash(), True)
    assert "dynamic:8 needs no calibration data" in remedy(given, crash(), True)
    assert "dynamic:8" not in remedy(given, crash(), crash(), crash(), True)  # it is what was made


def test_without_fallback_the_crash_itself_is_raised() -> None:
    script = Script(crash())
    with pytest.raises(ToolError) as caught:
        script.climb("kl", fallback=False)
    assert caught.value.code == "QUANTIZER_CRASHED"
    assert script.tried == ["kl"]
    with pytest.raises(ToolError) as caught:
        Script(False).climb("kl", fallback=False)
    assert caught.value.code == "QUANTIZED_MODEL_INSANE"


def doubted(ok: bool) -> Look:
    return Look(ok, "0.6 dB", "this host may be why")


def test_a_check_that_may_be_wrong_says_so_at_every_step() -> None:
    script = Script(False, True)
    done = climb(
        plan(options("kl"), PLAIN), script.attempt, lambda ok: Look(ok) if ok else doubted(ok), facts=PLAIN
    )  # fmt: skip
    first, second = done.steps
    assert (first.outcome, first.message) == ("insane", "0.6 dB; this host may be why")
    assert first.as_dict()["doubt"] == "this host may be why"
    assert "doubt" not in second.as_dict()
    (fell,) = done.findings
    assert fell.code == "QUANTIZE_FELL_BACK"
    assert "this host may be why" in fell.message
    assert "emulated:cortex-a76, with --no-fallback" in (fell.remedy or "")
    (plain,) = Script(False, True).climb("kl").findings
    assert "emulated" not in (plain.remedy or "")
    with pytest.raises(ToolError) as caught:
        climb(plan(options("kl"), PLAIN), Script(False).attempt, doubted, facts=PLAIN, fallback=False)
    assert caught.value.code == "QUANTIZED_MODEL_INSANE"
    assert "this host may be why" in caught.value.message
    assert "emulated:cortex-a76" in (caught.value.hint or "")


def test_what_is_taken_against_this_hosts_word_is_not_taken_in_silence() -> None:
    done = climb(plan(options("kl"), PLAIN), Script(True).attempt, doubted, facts=PLAIN)
    assert [(step.outcome, step.doubt) for step in done.steps] == [("made", "this host may be why")]
    (finding,) = done.findings
    assert (finding.code, finding.severity) == ("HOST_NO_JUDGE", "warn")
    assert "0.6 dB; this host may be why" in finding.message


def test_the_users_own_mistake_and_a_full_disk_are_not_fallen_back_from() -> None:
    for error in (InputError("SKIP_UNKNOWN", "no such op"), ToolError("DISK_FULL", "no room")):
        script = Script(error)
        with pytest.raises(type(error)):
            script.climb("kl")
        assert script.tried == ["kl"]
    # On a later rung it is our own doing, but the disk stays full.
    assert Script(crash(), InputError("SKIP_UNKNOWN", "named otherwise there"), True).climb("kl").rung.method == "admm"
    with pytest.raises(ToolError):
        Script(crash(), ToolError("DISK_FULL", "no room")).climb("kl")


def test_no_way_left() -> None:
    with pytest.raises(ToolError) as caught:
        Script(crash(), crash(), False, crash("CONVERTER_FAILED", None)).climb("kl")
    assert caught.value.code == "QUANTIZE_NO_WAY_LEFT"
    assert [step["rung"] for step in caught.value.evidence["steps"]] == ["kl", "ema", "admm", "dynamic:8"]


def test_the_result_says_what_it_is() -> None:
    codes = {finding.code for finding in Script(crash(), True).climb("kl", SPEECH).findings}
    assert codes == {"QUANTIZE_FELL_BACK", "RNN_LEFT_FLOAT"}
    codes = {finding.code for finding in Script(crash(), True).climb("kl", LadderFacts(dynamic=True)).findings}
    assert codes == {"QUANTIZE_FELL_BACK", "SHAPES_FIXED"}
    codes = {finding.code for finding in Script(True).climb("admm", SPEECH).findings}
    assert codes == {"ADMM_COMPLEX_MODEL"}


def test_steps_are_told_as_they_end() -> None:
    told: list[Step] = []
    script = Script(crash(), True)
    done = climb(plan(options("kl"), PLAIN), script.attempt, Look, facts=PLAIN, on_step=told.append)
    assert tuple(told) == done.steps


@pytest.mark.parametrize("name", ["a,b", "a#b", "a=b", " a"])
def test_a_name_the_converters_file_cannot_hold(name: str) -> None:
    with pytest.raises(ToolError) as caught:
        shape_config(((name, (1, 2)),))
    assert caught.value.code == "SHAPES_NOT_FIXABLE"
    assert shape_config((("x", (1, 2)), ("y", (3,)))) == "input_size = 2\ninput_names = x,y\ninput_dims = 1x2,3\n"


# ---- real models


def really(
    source: Path, calibration: CalibrationSet, method: str, tests: list[Arrays], folder: Path, **more: object
) -> Climbed[Artifact]:
    """Climb with real tools, checked against float MNN on `tests`."""
    graph = read_model(source)
    work = folder / "work"
    work.mkdir()
    facts = LadderFacts.of(graph, len(calibration.shapes))
    fallback = bool(more.pop("fallback", True))
    maker = RungMaker(graph, calibration, options(method), folder / "out.mnn", work, folder / "logs", **more)  # type: ignore[arg-type]
    reference = convert(source, FALLBACK.model_copy(update={"method": "float", "bits": None}),
                        work / "reference.mnn", log_dir=folder / "logs")  # fmt: skip
    wanted = run_mnn(reference.path, tests, folder / "run")
    assert wanted is not None

    def check(made: Artifact) -> Sanity:
        got = run_mnn(made.path, tests, folder / "run", made.run_as.default_memory)
        return sanity((str(n), wanted[n], None if got is None else got[n]) for n in range(len(tests)))

    planned = plan(options(method), facts, static=maker.static is not None)
    return climb(planned, maker, check, facts=facts, fallback=fallback)


@pytest.mark.parametrize("method", ["kl", "ema"])
def test_a_speech_encoder_crashes_as_asked_and_works_with_its_gru_as_one_op(
    method: str, real_model: Real, tmp_path: Path
) -> None:
    enc = real_model("enc")
    calibration = enc_calibration(enc, tmp_path / "c", 20, 20, 20)
    done = really(enc, calibration, method, [smooth(100, 20)], tmp_path)
    assert str(done.rung) == f"{method} with the RNN as one op"
    assert (done.steps[0].code, done.steps[0].signal) == ("QUANTIZER_CRASHED", "SIGSEGV")
    assert done.model.run_as.method == method
    assert done.model.source_sha256 == read_model(enc).sha256
    assert done.model.quantized_layers == 13


@pytest.mark.nightly
def test_admm_on_a_speech_encoder_is_not_believed(real_model: Real, tmp_path: Path) -> None:
    enc = real_model("enc")
    done = really(enc, enc_calibration(enc, tmp_path / "c", 6, 6), "admm", [smooth(100, 20)], tmp_path)
    assert done.steps[0].outcome != "made"  # MNN says success, of a model that does not run
    assert str(done.rung) == "admm with the RNN as one op"
    assert "ADMM_COMPLEX_MODEL" in {finding.code for finding in done.findings}


def test_no_fallback_names_the_crash(real_model: Real, tmp_path: Path) -> None:
    enc = real_model("enc")
    with pytest.raises(ToolError) as caught:
        really(enc, enc_calibration(enc, tmp_path / "c", 6, 6), "kl", [smooth(1, 6)], tmp_path, fallback=False)
    assert caught.value.code == "QUANTIZER_CRASHED"
    assert "SIGSEGV" in str(caught.value)
    assert not (tmp_path / "out.mnn").exists()


def gru_samples(count: int) -> list[Arrays]:
    random = np.random.default_rng(0)
    made = []
    for _ in range(count):
        x, state = random.standard_normal((1, 5, 32)), random.standard_normal((1, 1, 64))
        made.append({"x": x.astype(np.float32), "state": state.astype(np.float32)})
    return made


def test_a_model_that_is_all_gru_ends_as_dynamic(generated_model: Real, tmp_path: Path) -> None:
    source = generated_model("gru")
    calibration = calibration_of(tmp_path / "c", read_model(source).inputs or (), *gru_samples(3))
    done = really(source, calibration, "kl", gru_samples(1), tmp_path)
    assert str(done.rung) == "dynamic:8"
    assert [step.code for step in done.steps if step.outcome == "failed"] == [
        "QUANTIZER_CRASHED",
        *(["QUANTIZER_NOTHING_DONE"] * 3),
    ]
    assert done.model.run_as == FALLBACK
    assert done.model.quantized_layers > 0


def test_a_calibrator_of_our_own_comes_before_other_methods(generated_model: Real, tmp_path: Path) -> None:
    source = generated_model("gru")
    calibration = calibration_of(tmp_path / "c", read_model(source).inputs or (), *gru_samples(3))

    def static(out: Path) -> Artifact:
        made = convert(source, FALLBACK, out, log_dir=tmp_path / "logs")
        return made.model_copy(update={"findings": (Finding(code="OURS", severity="info", message="made here"),)})

    done = really(source, calibration, "kl", gru_samples(1), tmp_path, static=static)
    assert done.rung.way == "static"
    assert [finding.code for finding in done.model.findings] == ["OURS"]


@pytest.mark.slow
@pytest.mark.nightly
def test_fixed_shapes_help_where_kl_crashes_without_a_loop(real_model: Real, tmp_path: Path) -> None:
    source = real_model("ppocr_rec")

    def line(seed: int) -> Arrays:
        random = np.random.default_rng(seed)
        strokes = random.uniform(-1, 1, (1, 1, 6, 20)).repeat(8, 2).repeat(8, 3).astype(np.float32)
        return {"x": np.repeat(strokes, 3, 1)}

    calibration = calibration_of(tmp_path / "c", read_model(source).inputs or (), *(line(seed) for seed in range(2)))
    done = really(source, calibration, "kl", [line(100)], tmp_path)
    assert done.steps[0].code == "QUANTIZER_CRASHED"
    assert done.steps[1].rung == "kl with fixed shapes"
    assert done.steps[1].outcome in ("made", "insane")  # it runs; how good it is depends on the data
