"""Acceptance specs: what is read of them; what is wrong is named with its line and its key."""

from __future__ import annotations

import json
import re
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml

from edgequant.errors import InputError
from edgequant.spec import accept_file
from edgequant.spec.accept import AcceptSpec, TrialKey
from edgequant.spec.accept_file import json_schema, load_accept
from edgequant.spec.causes import CAUSES
from edgequant.spec.file import load_spec
from tests.spec.test_spec_hostile import HOSTILE

SCHEMA = Path(__file__).parents[2] / "docs" / "accept.schema.json"
WHOLE = """\
name: keyword spotter 2.4
models:
  enc:
    path: models/enc.onnx
    inputs: cases/enc
    shapes: {x: [1, 3]}
    decides: {y: scores}
    variants: [dynamic:8, fp16]
    devices: [board]
    options: {seed: 7}
  rec: /abs/rec.onnx
variants:
  - dynamic:8
  - variant: static:8
    name: small
    options: {threads: 2}
    goals: ["sqnr_db>=30"]
    budget: latency
    fallback: false
devices:
  host: "local:"
  board: {uri: "ssh://user@board", options: {threads: 2}, device_options: {python: /opt/py}, variants: ["dynamic:*"]}
  a76: {uri: "emulated:cortex-a76", tags: [arm]}
options: {timeout: 60}
device_options: {wait: 5}
random_inputs: accepted
retries: 1
baseline: runs/2.3
bench: {blocks: 5, runs: 10, seconds: 0.5, warm_up: 4, allow: [LOAD], within: 5, governor: performance}
tasks:
  cer: {function: "metrics.py:cer", better: lower, timeout: 30, model: rec, labels: labels.json}
rules:
  - sqnr_db >= 25
  - {rule: "lsnr:cosine >= 0.99", model: enc, variant: "dynamic:*", device: board}
  - {rule: "latency_ms.p50 <= 12", device: arm, required: false}
  - latency_ms.p50 <= 0.9 * float
  - {rule: "sqnr_db >= 28", margin: 1}
  - task:cer.words <= 0.05
deviations:
  - {rule: "sqnr_db>=25", model: enc, reason: known since 2.3, expires: 2027-01-31}
  - {finding: RUN_FAILED, device: arm, reason: harmless, expires: 2027-01-31}
"""


def load(tmp_path: Path, text: str) -> AcceptSpec:
    path = tmp_path / "gate.yaml"
    path.write_text(text)
    return load_accept(path)


def test_what_it_says_is_read(tmp_path: Path) -> None:
    spec = load(tmp_path, WHOLE)
    assert (spec.name, spec.retries, spec.random_inputs, spec.bench.within) == ("keyword spotter 2.4", 1, "accepted", 5)
    enc, rec = spec.models["enc"], spec.models["rec"]
    assert (enc.path, enc.inputs, rec.path) == (
        tmp_path / "models/enc.onnx", tmp_path / "cases/enc", Path("/abs/rec.onnx"),
    )  # fmt: skip
    assert spec.baseline == tmp_path / "runs/2.3"
    assert spec.tasks["cer"].function == f"{tmp_path / 'metrics.py'}:cer"
    assert spec.tasks["cer"].labels == tmp_path / "labels.json"
    assert spec.trials() == (
        TrialKey("enc", "dynamic:8", "board"), TrialKey("rec", "dynamic:8", "host"),
        TrialKey("rec", "dynamic:8", "board"), TrialKey("rec", "dynamic:8", "a76"),
        TrialKey("rec", "small", "host"), TrialKey("rec", "small", "a76"),
    )  # fmt: skip
    assert spec.variant(TrialKey("rec", "small", "host")).variant == "static:8"
    assert [rule.line for rule in spec.rules] == [33, 34, 35, 36, 37, 38]
    assert [each.line for each in spec.deviations] == [40, 41]
    assert spec.deviations[0].expires == date(2027, 1, 31)
    assert spec.float_beside() == tuple(
        TrialKey(model, "float", device)
        for model, device in (("enc", "board"), ("rec", "host"), ("rec", "board"), ("rec", "a76"))
    )
    assert [str(each) for each in spec.limits_of(spec.trials()[0])] == ["sqnr_db>=28", "lsnr:cosine>=0.99"]
    assert [str(each) for each in spec.limits_of(TrialKey("rec", "small", "a76"))] == ["sqnr_db>=28"]


def test_paths_are_those_of_where_it_lay(tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text(WHOLE)
    spec = load_accept(tmp_path / "spec.yaml", Path("/elsewhere"))
    assert spec.models["enc"].path == Path("/elsewhere/models/enc.onnx")
    assert load(tmp_path, WHOLE.replace("name: keyword spotter 2.4\n", "")).name == "gate"


LEAST = (
    "models: {m: m.onnx}\nvariants: [fp16, dynamic:8]\n"
    "devices: {host: 'local:', phone: {uri: 'adb://X', tags: [arm]}}\n"
)
KNOWN = f"{LEAST}deviations:\n- {{finding: RUN_FAILED"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("models: {m: {path: a, imputs: b}}\nvariants: [fp16]\ndevices: {d: 'local:'}",
         "1: models.m.imputs: there is no such key; did you mean 'inputs'?"),
        (f"{LEAST}rulez: []", "4: rulez: there is no such key; did you mean 'rules'?"),
        (f"{LEAST}rules:\n- cosine >= 0.9\n- sqnr >= 2", "6: rules.1: rule 'sqnr >= 2': unknown metric"),
        (f"{LEAST}rules:\n- {{rule: cosine >= 0.9, divice: phone}}", "5: rules.0: divice: there is no such key; did"),
        (f"{LEAST}rules:\n- {{rule: cosine >= 0.9, text: x}}", "5: rules.0: text: there is no such key"),
        (f"{LEAST}rules:\n- {{rule: cosine >= 0.9, device: fone}}", "no device has the name, URI or tag 'fone'"),
        (f"{LEAST}rules:\n- {{rule: cosine >= 0.9, variant: fp61}}", "did you mean 'fp16'?"),
        (f"{LEAST}rules:\n- {{rule: cosine >= 0.9, model: 'x*'}}", "no model is called 'x*'; there are m"),
        (f"{LEAST}rules:\n- 5", "5: rules.0: must be keys and values"),
        (f"{LEAST}rules:\n- {{device: phone}}", "5: rules.0: the rule is missing"),
        (f"{LEAST}rules:\n- {{rule: mnn >= 3.0.1, margin: 1}}", "5: rules.0: 'mnn' has no margin"),
        (f"{LEAST}rules:\n- {{rule: cosine >= 0.9, margin: -1}}", "5: rules.0.margin: must be"),
        (f"{LEAST}rules:\n- {{rule: cosine >= 0.9, required: maybe}}", "5: rules.0.required: must be true or false"),
        (f"{LEAST}rules:\n- {{rule: cosine >= 0.9, required: 'no'}}", "5: rules.0.required: must be true or false"),
        (f"{LEAST}rules:\n- {{rule: cosine >= 0.9, margin: true}}", "5: rules.0.margin: must be a number"),
        (f"{LEAST}rules:\n- task:cer <= 1", "5: rules.0: no task is called 'cer'"),
        (f"{LEAST}tasks: {{cer: {{function: 'a.py:f', better: lower}}}}\nrules:\n- task:cer >= 1",
         "6: rules.0: 'task:cer' is bounded with <="),
        (f"{LEAST}tasks: {{cer: {{function: 'a.py', better: lower}}}}", "4: tasks.cer.function"),
        (f"{LEAST}tasks: {{a.b: {{function: 'a.py:f', better: lower}}}}", "a task's name has no dot"),
        (f"{LEAST}tasks: {{c: {{function: 'a.py:f', better: lower, model: x}}}}", "'x' fits no model"),
        (f"{LEAST}tasks: {{device: {{function: 'a.py:f', better: lower}}}}", "4: tasks.device: a metric is called so"),
        (f"{LEAST}tasks: {{cosine: {{function: 'a.py:f', better: lower}}}}", "4: tasks.cosine: a metric is called so"),
        (f"{LEAST}rules:\n- finding:INT8_SLOWER == absent", "5: rules.0: 'finding:INT8_SLOWER' is absent as well"),
        ("models: {m: m.onnx}\nvariants: [{variant: fp16, name: float}]\ndevices: {d: 'local:'}",
         "'float' is the name of what rules are held against: fp16 needs another"),
        (f"{LEAST}rules:\n- cosine>=0.9\n- cosine >= 0.90", "6: rules.1: 'cosine >= 0.9' is there already, as rules.0"),
        (f"{LEAST}rules:\n- low_memory_engaged == true\n- {{rule: low_memory_engaged == false, variant: fp16}}",
         "6: rules.1: nothing can keep both"),
        (f"{LEAST}rules:\n- finding:NAN_SWALLOWED == absent", "5: rules.0: 'finding:NAN_SWALLOWED' is a cause that"),
        (f"{LEAST}rules:\n- finding:OUTPUT_NAM == absent", "5: rules.0: no finding has the code OUTPUT_NAM; did"),
        (f"{LEAST}deviations:\n- {{finding: RUN_FALLED, reason: abc, expires: 2027-01-01}}",
         "5: deviations.0.finding: no finding has the code RUN_FALLED; did you mean RUN_FAILED?"),
        (f"{LEAST}rules:\n- mnn >= 3.1\n- mnn <= 3.0.9", "6: rules.1: nothing can keep both"),
        (f"{LEAST}rules:\n- mnn >= 3.1\n- mnn == 3.0", "6: rules.1: nothing can keep both"),
        (f"{LEAST}deviations:\n- {{rule: cosine >= 0.9, reason: abc, expires: 2027-01-01}}",
         "5: deviations.0.rule: no rule says 'cosine >= 0.9'"),
        (f"{KNOWN}, reason: abc, expires: soon}}", "5: deviations.0.expires: must be a day"),
        (f"{KNOWN}, reason: abc, expires: 2027-02-31}}", "not YAML"),
        (f"{KNOWN}, reason: abc, expires: '2027-02-31'}}", "5: deviations.0.expires"),
        (f"{KNOWN}, expires: 2027-01-01}}", "5: deviations.0.reason: it is missing"),
        (f"{KNOWN}, rule: cosine >= 0.9, reason: abc, expires: 2027-01-01}}", "give one of"),
        (f"{LEAST}deviations:\n- {{reason: abc, expires: 2027-01-01}}", "give one of the two"),
        (f"{LEAST}deviations:\n- {{finding: LIMIT_EXCEEDED, reason: abc, expires: 2027-01-01}}", "name the rule"),
        (f"{KNOWN}, device: x, reason: abc, expires: 2027-01-01}}", "'RUN_FAILED (device x)' fits"),
        (f"{KNOWN}, reason: abc, expires: 2027-01-01}}\n"
         "- {finding: RUN_FAILED, reason: abd, expires: 2027-01-02}", "6: deviations.1: 'RUN_FAILED' is there already"),
        ("models: {m: m.onnx}\ndevices: {d: 'local:'}", "1: models.m: it has no variant"),
        ("models: {m: {path: m.onnx, devices: [x]}}\nvariants: [fp16]\ndevices: {d: 'local:'}",
         "1: models.m.devices.0: no device is called 'x'"),
        ("models: {m: {path: m.onnx, devices: [d]}}\nvariants: [fp16]\ndevices:\n  d: 'local:'\n  e: 'adb://'",
         "5: devices.e: no model is tried on it"),
        ("models: {m: m.onnx}\nvariants: [fp16]\ndevices:\n  d: {uri: 'local:', variants: [kl]}\n  e: 'adb://'",
         "4: devices.d.variants.0: 'kl' fits no variant"),
        ("models: {m: m.onnx}\nvariants: [fp16, fp16]\ndevices: {d: 'local:'}", "2: variants.1: 'fp16' is there twice"),
        ("models: {m: m.onnx}\nvariants: [int7]\ndevices: {d: 'local:'}", "unknown method 'int7'"),
        ("models: {m: m.onnx}\nvariants: [fp16]\ndevices: {}", "3: devices: must have at least 1"),
        ("models: {}\nvariants: [fp16]\ndevices: {d: 'local:'}", "1: models: must have at least 1"),
        ("models: {m: ''}\nvariants: [fp16]\ndevices: {d: 'local:'}", "an empty path"),
        ("models: {'m*': m.onnx}\nvariants: [fp16]\ndevices: {d: 'local:'}", "models.m*"),
        (f"{LEAST}options: {{threads: 0}}", "4: options.threads: must be"),
        (f"{LEAST}options: {{thread: 1}}", "did you mean 'threads'?"),
        (f"{LEAST}device_options: {{pyton: x}}", "did you mean 'python'?"),
        (f"{LEAST}bench: {{blocks: 1}}", "4: bench.blocks"),
        (f"{LEAST}retries: 11", "4: retries"),
        (f"{LEAST}retries: true", "4: retries: must be a whole number, not true"),
        (f"{LEAST}retries: 1.0", "4: retries: must be a whole number, not 1.0"),
        (f"{LEAST}retries: '1'", "4: retries: must be a whole number, not \"1\", which is text: write 1"),
        (f"{LEAST}latency: 'off'", "4: latency: must be true or false"),
        (f"{LEAST}bench:\n  blocks: true", "5: bench.blocks: must be a whole number, not true"),
        (f"{LEAST}bench: {{seconds: 1e3}}", "must be a number, not \"1e3\", which is text: write 1000"),
        (f"{LEAST}bench: {{seconds: .nan}}", "bench.seconds: must be a finite number, not NaN"),
        (f"{LEAST}options: {{timeout: .inf}}", "options.timeout: must be a finite number, not Infinity"),
        (f"{LEAST}options: {{cores: [true, false]}}", "options.cores.0: must be a whole number, not true"),
        (f"{LEAST}options: {{dynamic_quant_option: true}}", "must be 0, 1 or 2, not true"),
        (f"{LEAST}device_options: {{wait: '5'}}", "device_options.wait: must be a number"),
        (f"{LEAST}device_options: {{accept_new_host_key: 1}}", "must be true or false, not 1"),
        (f"{LEAST}tasks: {{c: {{function: 'a.py:f', better: lower, timeout: true}}}}", "tasks.c.timeout: must be a"),
        (f"{LEAST}rules:\n- {{rule: cosine >= 0.9, margin: .inf}}", "5: rules.0.margin: must be a finite number"),
        (f"{LEAST}rules:\n- cosine >= 0.9\n- latency_ms.p50 <= 0", "6: rules.1: rule 'latency_ms.p50 <= 0': nothing"),
        (f"{LEAST}retries: 1\nretries: 0", "line 5: 'retries' is given twice"),
        ("devices: [local:]\nvariants: [fp16]\nlimits: [cosine>=0.9]", "models: it is missing"),
        ("", "models: it is missing"),
        ("- a", "must be keys and values"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_its_line_and_key(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(InputError) as found:
        load(tmp_path, text)
    assert found.value.code == "SPEC_INVALID"
    assert says in str(found.value)
    assert str(tmp_path / "gate.yaml") in str(found.value)
    assert len(str(found.value)) < 700


def test_a_spec_of_verify_says_which_command_it_is_for(tmp_path: Path) -> None:
    with pytest.raises(InputError) as found:
        load(tmp_path, (Path(__file__).parents[2] / "configs/verify.yaml").read_text())
    assert "edgequant verify --spec" in str(found.value.hint)
    (tmp_path / "gate.yaml").write_text(WHOLE)
    with pytest.raises(InputError) as found:
        load_spec(tmp_path / "gate.yaml")
    assert "edgequant accept" in str(found.value.hint)


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_yaml_is_a_named_error_of_one_readable_line(text: str, tmp_path: Path) -> None:
    for whole in (text, f"{LEAST}{text}"):
        with pytest.raises(InputError) as found:
            load(tmp_path, whole)
        assert found.value.code == "SPEC_INVALID"
        assert len(str(found.value)) < 2000


def test_what_is_not_there_or_too_large(tmp_path: Path) -> None:
    with pytest.raises(InputError) as found:
        load_accept(tmp_path / "none.yaml")
    assert found.value.code == "SPEC_NOT_FOUND"
    with pytest.raises(InputError) as found:
        load(tmp_path, LEAST + "#" * (1 << 20))
    assert found.value.code == "SPEC_INVALID"


def test_what_is_too_much_is_refused_at_once(tmp_path: Path) -> None:
    many = {"models": {f"m{n}": "m" for n in range(100)}, "devices": {f"d{n}": "local:" for n in range(60)}}
    for more, says in (
        ({"variants": ["fp16", "kl"]}, "12000 trials are more than"),
        ({"rules": [f"sqnr_db >= {n / 10}" for n in range(60)]}, "360000 times a rule meets a trial"),
        ({"rules": [{"rule": "cosine >= 0.5", "device": "*a" * 300}]}, r"rules\.0\.device: must have at most 500"),
    ):
        with pytest.raises(InputError, match=says):
            load(tmp_path, yaml.safe_dump({**many, "variants": ["fp16"], **more}))


def test_the_published_schema_is_that_of_the_code() -> None:
    assert json.loads(SCHEMA.read_text()) == json_schema()


def test_the_published_schema_takes_what_is_taken_and_refuses_what_is_refused() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    check = jsonschema.Draft202012Validator(json_schema())
    good: dict[str, Any] = json.loads(json.dumps(yaml.safe_load(WHOLE), default=str))
    assert not list(check.iter_errors(good))
    for key, value in (("models", {}), ("rules", [{"devise": 1}]), ("retries", 99), ("rulez", [])):
        assert list(check.iter_errors({**good, key: value})), key


def test_the_causes_are_those_that_diagnose_alone_has() -> None:
    """Held against the program, so that a new cause is no rule that everything keeps."""
    root = Path(accept_file.__file__).parents[1]
    codes = {path: set(re.findall(r'"([A-Z][A-Z0-9_]{2,99})"', path.read_text("utf-8"))) for path in root.rglob("*.py")}
    names = ("cause", "layer", "near_limit", "diagnosis", "resembles", "conversion_causes")
    inside = {path for path in codes if path.parent.name in ("judge", "jobs") and path.name.startswith(names)}
    passing_by = {"cli", "jobs", "report", "models"}
    elsewhere = [found for path, found in codes.items() if path not in inside and path.parent.name not in passing_by]
    found = set().union(*(codes[path] for path in inside)) - set().union(*elsewhere)
    assert {code for code in found if "_" in code} - {"FILE_NOT_WRITTEN", "SAME_UPPER"} == CAUSES
