"""A release check on this host, with real parts: what is broken is told alike everywhere, nothing is lost."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import xml.etree.ElementTree as ElementTree
from html import unescape
from pathlib import Path

import pytest

from edgequant.archive.acceptance import JUDGEMENT, open_acceptance
from edgequant.errors import InputError
from edgequant.history.store import History
from edgequant.jobs import accept as job
from edgequant.jobs.accept import Accepting, accept, resume
from edgequant.jobs.accept_judge import keep, rejudge
from edgequant.jobs.accept_plan import left, planned
from edgequant.jobs.integrity import check
from edgequant.jobs.remember import add
from edgequant.judge.acceptance import State
from edgequant.plan.accept import VerifyPart
from edgequant.report.acceptance import load_acceptance
from tests.beds.models import ModelByName
from tests.cli.command import EDGEQUANT, edgequant
from tests.jobs.accept_specs import FUNCTIONS, Said, accepted, rules, write_spec
from tests.jobs.test_resumed import halted, times
from tests.waiting import LONG
from tools import check_acceptance

ONE = """
models: {m: {path: m.onnx, inputs: cases}}
variants: ["dynamic:8"]
devices: {host: "local:"}
"""
BROKEN = ONE + f"""
tasks:
  worst: {{function: "{FUNCTIONS}:several", better: lower}}
  bad: {{function: "{FUNCTIONS}:raises", better: lower}}
rules:
  - sqnr_db >= 90
  - "y:cosine >= 0.9999999"
  - quantization.sqnr_db >= 120
  - sqnr_db >= float - 2
  - size_mb <= 0.01
  - size_mb <= 0.1 * float
  - latency_ms.p50 <= 1e-9
  - cpu_ms <= 1e-9
  - memory_mb.rss_peak <= 1
  - independent_cases >= 100
  - low_memory_engaged == false
  - mnn >= 99
  - "finding:OUTPUT_STUCK == present"
  - "task:worst.cases <= 1"
  - "task:bad <= 1"
  - sqnr_db >= baseline + 1
  - {{rule: "size_mb <= 0.02", required: false}}
  - {{rule: "max_abs <= 100", margin: 99.999}}
"""  # fmt: skip
TIMED = ("latency_ms.p50 <= 1e-09", "cpu_ms <= 1e-09")
UNKNOWN = ("task:bad <= 1", "sqnr_db >= baseline + 1")

TASK = 'tasks: {t: {function: "no.py:f", better: lower}}\n'


def test_one_broken_rule_of_each_kind_is_told_alike_everywhere(generated_model: ModelByName, tmp_path: Path) -> None:
    write_spec(tmp_path, BROKEN, model=generated_model("conv_cnn"))
    done = edgequant(
        "accept", "gate.yaml", "--run-dir", "run", "--json", "--html", "a.html", "--junit", "a.xml",
        "--summary", "a.md", cwd=tmp_path,
    )  # fmt: skip
    assert done.code == 1, done.err
    found = load_acceptance(tmp_path / "run" / JUDGEMENT)
    assert json.loads((tmp_path / "run" / JUDGEMENT).read_text()) == done.json
    states = {text: each.state for text, each in rules(found, "dynamic:8").items()}
    assert len(states) == 20
    for text, state in states.items():
        if text in ("inputs", "max_abs <= 100"):
            assert state is (State.PASS if text == "inputs" else State.MARGINAL), text
        elif text in TIMED:  # it may be too loud here to measure anything
            assert state in (State.FAIL, State.INCONCLUSIVE), text
        else:
            assert state is (State.INCONCLUSIVE if text in UNKNOWN else State.FAIL), text
    assert found.state is State.FAIL
    assert check_acceptance.check(tmp_path / "run" / JUDGEMENT) == []
    # JUnit: one test case per rule of the trial.
    cases = [
        each for each in ElementTree.parse(tmp_path / "a.xml").iter("testcase")
        if "dynamic:8" in (each.get("classname") or "")
    ]  # fmt: skip
    assert len(cases) == len(states)
    by_name = {(each.get("name") or "").removesuffix(" [informative]"): each for each in cases}
    for text, state in states.items():
        case = by_name[text]
        kind = next((tag for tag in ("failure", "error", "skipped") if case.find(tag) is not None), "")
        required = text != "size_mb <= 0.02"
        wanted = {State.FAIL: "failure", State.INCONCLUSIVE: "error"}.get(state, "") if required else kind
        assert kind == wanted, text
        assert required or kind != "failure"
    # The page and the summary: each rule with its state.
    page = unescape(re.sub(r"<[^>]+>", " ", (tmp_path / "a.html").read_text()))
    for text in states:
        assert text in page, text
    summary = (tmp_path / "a.md").read_text()
    assert "FAIL" in summary
    assert "FAIL" in done.err
    # Judged again, and shown again, it is the same.
    again = rejudge(tmp_path / "run")
    assert (again.found.state, again.changes) == (State.FAIL, ())
    shown = edgequant("report", str(tmp_path / "run"), "--json", cwd=tmp_path)
    assert (shown.code, shown.json) == (1, done.json)
    _unaltered_until_somebody_alters_it(tmp_path / "run")


def _unaltered_until_somebody_alters_it(run: Path) -> None:
    """What bench came to belongs to its folder, is no more than what judging gives, and so is the judgement."""
    assert check(run).holds
    place = "bench/m-host/attempt-1/measured.json"
    was, judged = (run / place).read_text(), (run / JUDGEMENT).read_text()
    changed = json.loads(was)
    for setting in changed["settings"]:
        setting |= {
            "valid": True,
            "why": [],
            "numbers": {"latency_ms.p50": {"value": 1e-10}},
            "blocks": [],
            "rounds": [],
        }
    (run / place).write_text(json.dumps(changed))
    assert [each.file for each in check(run).differences] == [place]
    assert rejudge(run).changes == (), "it is judged by what was captured"
    (run / place).write_text(was)
    (run / JUDGEMENT).write_text(judged.replace('"margin": 99.999', '"margin": 99.9'))
    assert [each.file for each in check(run).differences] == [JUDGEMENT]
    (run / JUDGEMENT).write_text(judged)
    assert keep(run, rejudge(run).found).name == "acceptance-2.json"
    assert check(run).holds


def test_a_regression_is_found_by_its_own_rule(generated_model: ModelByName, tmp_path: Path) -> None:
    def spec(variant: str, name: str) -> Path:
        return write_spec(tmp_path, f"""
models: {{m: m.onnx}}
variants: [{{variant: "{variant}", name: shipped}}]
devices: {{host: "local:"}}
random_inputs: accepted
rules: ["sqnr_db >= baseline - 2", "size_mb <= baseline + 1"]
""", model=generated_model("big_mlp"), cases=0, name=name)  # fmt: skip

    history = tmp_path / "history.sqlite"
    unknown = planned(spec("weight:8", "1.yaml"), None, history)
    assert (unknown.seconds, unknown.guessed, unknown.from_) == (10.0, 10.0, ())
    assert "guessed at 10 s for each variant on this host" in unknown.told
    first, before = accepted(spec("weight:8", "1.yaml"), tmp_path / "1")
    # How long it takes is known from now on: to who names it as a baseline, and to who keeps a history.
    took = next(line["seconds"] for line in map(json.loads, (before.path / "journal.jsonl").read_text().splitlines())
                if line["what"] == "end")  # fmt: skip
    add(History(history), [before.path])
    for known in (planned(spec("weight:8", "1.yaml"), before.path), planned(spec("weight:8", "1.yaml"), None, history)):
        assert known.from_ == (str(before.path),)
        assert (known.seconds, known.guessed) == (pytest.approx(took, abs=0.1), 0)
        assert known.told == f"by what {before.path} took"
    history.write_text("nothing of the kind")
    told = planned(spec("weight:8", "1.yaml"), None, history)
    assert told.guessed == 10.0
    assert any("the history was not asked how long it takes" in each for each in told.warnings)
    assert {each.state for text, each in rules(first).items() if "baseline" in text} == {State.INCONCLUSIVE}
    worse, _ = accepted(spec("weight:4", "2.yaml"), tmp_path / "2", before.path)
    told = rules(worse)
    assert (told["sqnr_db >= baseline - 2"].state, told["size_mb <= baseline + 1"].state) == (State.FAIL, State.PASS)
    larger, _ = accepted(spec("fp16", "3.yaml"), tmp_path / "3", before.path)
    told = rules(larger)
    assert (told["sqnr_db >= baseline - 2"].state, told["size_mb <= baseline + 1"].state) == (State.PASS, State.FAIL)
    # What is the same is no regression; and a folder of verify is a baseline as well.
    same = spec("weight:8", "4.yaml")
    same.write_text(f"{same.read_text()}\nbaseline: {before.path / 'trials' / 'm' / 'attempt-1'}\n")
    again = rejudge(before.path, same).found
    assert again.state is State.PASS, rules(again)


def test_killed_it_goes_on_with_what_is_missing(
    generated_model: ModelByName, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    spec = write_spec(tmp_path, """
models: {m: {path: m.onnx, inputs: cases}}
variants: [fp16, "dynamic:8"]
devices: {host: "local:"}
rules: [{rule: "sqnr_db >= 20", variant: "dynamic:8"}, {rule: "sqnr_db >= 30", variant: fp16}]
""", model=generated_model("conv_cnn"), cases=6)  # fmt: skip
    run_dir = Path("run")
    with halted("running", "accept", str(spec), "--run-dir", str(run_dir)):
        pass
    before = times(run_dir / "trials" / "m-1")
    assert "trials/m-1/attempt-1/report.json"[len("trials/m-1/") :] in before
    assert not (run_dir / "trials" / "m-2" / "attempt-1" / "report.json").exists()
    assert [part.done for part in left(run_dir).parts] == [True, False]
    found, folder = resume(run_dir)
    assert found.state is State.PASS
    assert times(run_dir / "trials" / "m-1") == before
    begun = [line["part"] for line in map(json.loads, (run_dir / "journal.jsonl").read_text().splitlines())
             if line.get("what") == "begin"]  # fmt: skip
    assert begun == ["m-1", "m-2", "m-2"]
    # There is nothing left to do, and nothing is done.
    before = times(run_dir / "trials")
    assert resume(run_dir)[0].state is State.PASS
    assert times(run_dir / "trials") == before
    with folder.alone(), pytest.raises(InputError) as caught:
        resume(run_dir)
    assert caught.value.code == "RUN_DIR_UNUSABLE"


def test_a_part_that_fails_costs_that_part_only_and_is_tried_again(
    generated_model: ModelByName, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = write_spec(tmp_path, """
models: {m: {path: m.onnx, inputs: cases}}
variants: ["dynamic:8"]
devices: {host: "local:", away: "ssh://nobody@127.0.0.1:1"}
retries: 1
rules: [{rule: "sqnr_db >= 20", device: host}, {rule: "sqnr_db >= 21", device: away}]
""", model=generated_model("conv_cnn"))  # fmt: skip
    said = Said()
    found, folder = accept(spec, run_dir=tmp_path / "run", progress=said)
    states = {each.device: (each.state, [one.state for one in each.attempts]) for each in found.trials}
    assert states == {"host": (State.PASS, [State.PASS]), "away": (State.ERROR, [State.ERROR, State.ERROR])}
    assert found.state.exit_code == 3
    assert sorted(each.name for each in (folder.path / "trials" / "m-2").iterdir()) == ["attempt-1", "attempt-2"]
    assert sorted(each.name for each in (folder.path / "trials" / "m-1").iterdir()) == ["attempt-1"]
    # What nobody expected is told as such, and costs no more.
    verify = Accepting._verify

    def broken(self: Accepting, part: VerifyPart, path: Path) -> str:
        if "local:" not in part.request.devices:
            raise ZeroDivisionError("by nobody")
        return verify(self, part, path)

    monkeypatch.setattr(job.Accepting, "_verify", broken)
    found, folder = accept(spec, run_dir=tmp_path / "again")
    away = next(each for each in found.trials if each.device == "away")
    assert found.trials[0].state is State.PASS
    assert "INTERNAL_ERROR" in away.attempts[0].error
    assert "ZeroDivisionError" in (folder.path / "logs" / "bug-trials-m-2-attempt-1.log").read_text()
    assert check_acceptance.check(folder.judgement) == []


def test_what_failed_and_then_passed_is_flaky_and_only_that_is_tried_again(
    generated_model: ModelByName, tmp_path: Path
) -> None:
    spec = write_spec(tmp_path, f"""
models: {{m: {{path: m.onnx, inputs: cases}}}}
variants: ["dynamic:8", fp16]
devices: {{host: "local:"}}
retries: 3
tasks: {{t: {{function: "{FUNCTIONS}:once_bad", better: lower}}}}
rules: [{{rule: "task:t <= 0", variant: fp16}}]
""", model=generated_model("conv_cnn"))  # fmt: skip
    found, folder = accepted(spec, tmp_path / "run")
    rule = rules(found, "fp16")["task:t <= 0"]
    assert (rule.state, rule.attempts) == (State.FLAKY, (State.FAIL, State.PASS))
    assert found.state.exit_code == 4
    # What passed is not run again, nor what nothing can change any more.
    assert len(next(each for each in found.trials if each.variant == "dynamic:8").attempts) == 1
    runs = sorted(each.name for each in (folder.path / "trials" / "m").iterdir())
    assert runs == [f"attempt-{number}" for number in (1, 2)]
    assert check_acceptance.check(folder.judgement) == []


def test_other_rules_judge_what_was_run_and_nothing_else(generated_model: ModelByName, tmp_path: Path) -> None:
    model = generated_model("conv_cnn")
    found, folder = accepted(write_spec(tmp_path, ONE + 'rules: ["sqnr_db >= 20"]', model=model), tmp_path / "run")
    assert found.state is State.PASS
    moved = shutil.move(folder.path, tmp_path / "moved")
    strict = write_spec(tmp_path, ONE + 'rules: ["sqnr_db >= 90", "size_mb <= 9"]', name="strict.yaml")
    other = rejudge(moved, strict)
    assert other.found.state is State.FAIL
    # The trial itself is judged by them as well.
    assert {text: each.state for text, each in rules(other.found).items()} == {
        "verdict": State.FAIL, "inputs": State.PASS, "sqnr_db >= 90": State.FAIL, "size_mb <= 9": State.PASS,
    }  # fmt: skip
    assert "state: PASS -> FAIL" in other.changes
    assert keep(Path(moved), other.found).name == "acceptance-2.json"
    assert rejudge(moved).changes == ()
    wider = ONE.replace('["dynamic:8"]', '["dynamic:8", fp16]')
    for text in (wider, ONE.replace('"dynamic:8"', "fp16"), ONE + "device_options: {}\n"):
        more = write_spec(tmp_path, text.replace("devices: {host", "devices: {host") + 'rules: ["size_mb <= 9"]',
                          name="wider.yaml")  # fmt: skip
        if "device_options" in text:
            more.write_text(more.read_text().replace("threads: 1", "threads: 2"))
        with pytest.raises(InputError) as caught:
            rejudge(moved, more)
        assert caught.value.code == "SPEC_INVALID"
    assert open_acceptance(moved).plan().trials[0].method == "dynamic:8"


def test_random_inputs_alone_pass_nothing(generated_model: ModelByName, tmp_path: Path) -> None:
    text = ONE.replace("{path: m.onnx, inputs: cases}", "m.onnx") + 'rules: ["sqnr_db >= 20"]'
    spec = write_spec(tmp_path, text, model=generated_model("conv_cnn"))
    assert "random_inputs: accepted" in planned(spec).warnings[0]
    found, folder = accepted(spec, tmp_path / "run")
    assert (found.state, rules(found)["inputs"].state) == (State.INCONCLUSIVE, State.INCONCLUSIVE)
    spec.write_text(spec.read_text() + "\nrandom_inputs: accepted\n")
    assert rejudge(folder.path, spec).found.state is State.PASS


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        (("m.onnx", "no.onnx"), "MODEL_NOT_FOUND", "models.m: "),
        (("inputs: cases", "inputs: nowhere"), "INPUTS_NOT_FOUND", "models.m: "),
        (("inputs: cases", "reference: nowhere"), "REFERENCE_NOT_FOUND", "models.m: "),
        (("sqnr_db", "z:sqnr_db"), "LIMIT_UNKNOWN_OUTPUT", "m has no output 'z'"),
        (('rules: ["', 'rules: ["y:sqnr_db >= 9", "'), "SPEC_INVALID", "each output of m has one of its own"),
        (("local:", "locale:"), "DEVICE_SCHEME_UNKNOWN", "locale"),
        (("devices:", "baseline: nowhere\ndevices:"), "RUN_NOT_FOUND", "nowhere"),
        (("rules:", f"{TASK}rules: ['task:t <= 1']\n# "), "TASK_FAILED", "no.py"),
        (("allow: [", "allow: [HEAT, "), "SPEC_INVALID", "bench.allow: HEAT: no condition has that name"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_spec_is_told_before_anything_is_run(
    generated_model: ModelByName, tmp_path: Path, change: tuple[str, str], code: str, words: str
) -> None:
    spec = write_spec(tmp_path, ONE + 'rules: ["sqnr_db >= 20"]', model=generated_model("conv_cnn"))
    spec.write_text(spec.read_text().replace(*change))
    for does in (planned, lambda path: accepted(path, tmp_path / "run")):
        with pytest.raises(InputError) as caught:
            does(spec)
        assert (caught.value.code, words in caught.value.message) == (code, True), caught.value.message
    assert not (tmp_path / "run").exists()


@pytest.mark.nightly
def test_a_full_disk_is_told_and_what_was_finished_is_gone_on_with(
    generated_model: ModelByName, tmp_path: Path
) -> None:
    if os.geteuid() != 0 or not shutil.which("unshare"):
        pytest.skip("needs a mount namespace: run as root")
    spec = write_spec(tmp_path, ONE + 'rules: ["sqnr_db >= 20"]', model=generated_model("conv_cnn"), cases=150)
    disk = tmp_path / "disk"
    disk.mkdir()
    script = f'mount -t tmpfs -o size=700k small {disk} && "$@"; code=$?; cp -r {disk}/run {tmp_path}/kept; exit $code'
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", EDGEQUANT, "accept", str(spec),
         "--run-dir", str(disk / "run"), "--json"],
        capture_output=True, text=True, timeout=4 * LONG,
    )  # fmt: skip
    assert done.returncode == 3, done.stderr
    assert json.loads(done.stdout)["error"]["code"] in ("DISK_FULL", "RUN_DIR_FULL", "RUN_DIR_UNWRITABLE")
    assert resume(tmp_path / "kept")[0].state is State.PASS


@pytest.mark.nightly
def test_ctrl_c_leaves_a_folder_that_is_gone_on_with(generated_model: ModelByName, tmp_path: Path) -> None:
    import signal
    import time

    spec = write_spec(tmp_path, ONE + 'rules: ["sqnr_db >= 20"]', model=generated_model("conv_cnn"), cases=6)
    run_dir = tmp_path / "run"
    with subprocess.Popen(
        [EDGEQUANT, "accept", str(spec), "--run-dir", str(run_dir)], stderr=subprocess.PIPE, text=True
    ) as process:
        end = time.monotonic() + LONG
        while not (run_dir / "trials" / "m" / "attempt-1" / "plan.json").exists() and time.monotonic() < end:
            time.sleep(0.01)  # nothing tells when another process has made a file
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=LONG)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert f"accept --resume {run_dir}" in said
    stopped = load_acceptance(run_dir / JUDGEMENT)
    assert (stopped.state, stopped.interrupted) == (State.ERROR, True)
    assert resume(run_dir)[0].state is State.PASS
    assert not load_acceptance(run_dir / JUDGEMENT).interrupted
