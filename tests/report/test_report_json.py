"""report.json: the contract, written whole, read with care."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from edgequant.compare.metrics import compare
from edgequant.compare.summary import summarize
from edgequant.errors import InputError
from edgequant.findings import Finding
from edgequant.judge.latency import latency_summary
from edgequant.judge.limits import default_limits
from edgequant.judge.verdict import Verdict, judge_output
from edgequant.report import model
from edgequant.report.read import load, loads
from edgequant.report.write import as_plain, json_schema, to_json, write

RNG = np.random.default_rng(0)


def entry(noise: float = 0.01) -> model.OutputReport:
    reference = RNG.standard_normal(100).astype(np.float32)
    got = reference + np.float32(noise) * RNG.standard_normal(100).astype(np.float32)
    summary = summarize({"case-3": compare(reference, got)})
    return model.output_report(summary, judge_output(summary, default_limits("dynamic", "float")))


def a_run(**changes) -> model.Run:
    fields = {
        "device": model.DeviceInfo(uri="ssh://board", arch="aarch64", cores=8, ram_mb=3796),
        "variant": "dynamic:8",
        "verdict": Verdict.PASS,
        "outputs": {"lsnr": entry()},
        "errors": model.ErrorsByStage(conversion={"lsnr": model.ErrorEntry(sqnr_db=125.6)}),
        "latency_ms": latency_summary([1.0, 2.0], 3, 4.0, 5.0),
        "memory_mb": model.Memory(model_file=0.7, why_null={"session": "the model has subgraphs"}),
        "findings": [Finding(code="LOW_MEMORY", severity="info", message="engaged")],
    }
    return model.Run(**(fields | changes))


def a_report(**changes) -> model.Report:
    info = model.ModelInfo(
        path="enc.onnx", sha256="00", inputs=[model.TensorInfo(name="x", dtype="float32", shape=[1, None])]
    )
    fields = {"verdict": Verdict.PASS, "edgequant": "0.1.0", "mnn": "3.6.1", "model": info, "runs": [a_run()]}
    return model.Report(**(fields | changes))


def test_the_keys_of_the_contract():
    document = json.loads(to_json(a_report()))
    assert document["schema"] == "edgequant.report/1"
    assert {"schema", "verdict", "created", "edgequant", "mnn", "model", "runs"} <= document.keys()
    assert {"path", "sha256", "inputs"} <= document["model"].keys()
    assert document["model"]["inputs"] == [{"name": "x", "dtype": "float32", "shape": [1, None]}]
    (run,) = document["runs"]
    assert {
        "device", "variant", "verdict", "low_memory_engaged", "outputs", "errors", "latency_ms", "memory_mb",
        "findings",
    } <= run.keys()  # fmt: skip
    assert {"uri", "arch", "cpu", "features", "mnn", "cores", "ram_mb", "emulated"} <= run["device"].keys()
    assert {
        "cosine", "sqnr_db", "max_abs", "rel_max", "nan", "inf", "verdict", "worst_case",
    } <= run["outputs"]["lsnr"].keys()  # fmt: skip
    assert {"conversion", "quantization", "device"} <= run["errors"].keys()
    assert run["errors"]["conversion"]["lsnr"]["sqnr_db"] == 125.6
    assert {
        "n", "warmup", "min", "mean", "stdev", "p50", "p90", "p99", "max", "load", "first", "valid", "why_invalid",
    } <= run["latency_ms"].keys()  # fmt: skip
    assert {"model_file", "session", "rss_load", "rss_peak", "pss_peak"} <= run["memory_mb"].keys()
    assert {"code", "severity", "where", "message", "evidence", "remedy"} <= run["findings"][0].keys()


def test_there_and_back(tmp_path: Path):
    path = write(a_report(), tmp_path / "run" / "report.json")
    text = path.read_text(encoding="utf-8")
    assert to_json(load(path)) == text
    assert [p.name for p in path.parent.iterdir()] == ["report.json"]


def test_it_satisfies_its_own_schema():
    jsonschema = pytest.importorskip("jsonschema")
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    document = json.loads(to_json(a_report()))
    jsonschema.validate(document, schema)
    jsonschema.validate({**document, "added_later": 1}, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**document, "verdict": "GOOD"}, schema)


def test_why_a_number_is_null():
    zero = np.zeros(3, np.float32)
    summary = summarize({"z": compare(zero, zero)})
    found = model.output_report(summary, judge_output(summary, default_limits("dynamic", "float")))
    assert found.why_null["sqnr_db"] == "the reference is all zero"
    missing = summarize({"z": compare(zero, None)})
    found = model.output_report(missing, judge_output(missing, default_limits("dynamic", "float")))
    assert found.why_null["sqnr_db"] == "no such output came back"
    assert model.error_entry(missing).problem == "no such output came back in z"


# --- building


def test_an_unknown_key_is_a_mistake_when_building():
    with pytest.raises(ValidationError):
        a_run(verdikt="PASS")


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_typed_number_cannot_be_nan(bad):
    with pytest.raises(ValidationError):
        model.ErrorEntry(sqnr_db=bad)


def test_a_report_cannot_be_better_than_its_runs_nor_a_run_than_its_outputs():
    failed = {"lsnr": entry(noise=5)}
    with pytest.raises(ValidationError, match="better than its outputs' FAIL"):
        a_run(outputs=failed)
    with pytest.raises(ValidationError, match="better than its runs' FAIL"):
        a_report(runs=[a_run(), a_run(outputs=failed, verdict="FAIL")])
    with pytest.raises(ValidationError, match="without runs"):
        a_report(runs=[])
    with pytest.raises(ValidationError, match="with an error"):
        a_run(error=model.Failure(code="X", message="died"))


def test_free_evidence_is_made_plain():
    evidence = {"a": np.float32(1.5), "b": np.array([1, 2]), "c": float("nan"), "d": Path("x"), "e": {3}, "f": (1,)}
    found = as_plain(Finding(code="X", severity="info", message="\udcff", evidence=evidence))
    assert found["evidence"] == {"a": 1.5, "b": [1, 2], "c": "NaN", "d": "x", "e": [3], "f": [1]}
    json.dumps(found, allow_nan=False).encode()
    found["message"].encode()


leaves = st.none() | st.booleans() | st.floats() | st.text() | st.integers()


@settings(deadline=None, max_examples=100)
@given(st.recursive(leaves, lambda some: st.lists(some, max_size=3) | st.dictionaries(st.text(), some, max_size=3)))
def test_anything_becomes_strict_json(value):
    json.loads(json.dumps(as_plain({"value": value}), allow_nan=False).encode(), parse_constant=pytest.fail)


def test_numbers_are_rounded_to_what_they_mean():
    assert as_plain(0.12345678901234567) == 0.123456789012
    assert as_plain(0.99999996) == 0.99999996  # a cosine that is not 1 is not written as 1


# --- writing


def test_a_failed_write_leaves_the_old_report(tmp_path: Path, monkeypatch):
    path = write(a_report(), tmp_path / "report.json")
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write(a_report(edgequant="9"), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


# --- reading


def test_keys_of_a_later_version_are_skipped_at_every_depth():
    document = json.loads(to_json(a_report()))
    text = to_json(loads(json.dumps(document)))
    document["new"] = 1
    run = document["runs"][0]
    for part in (run, run["device"], run["outputs"]["lsnr"], run["latency_ms"], run["memory_mb"], run["findings"][0]):
        part["new"] = {"deep": 1}
    assert to_json(loads(json.dumps(document))) == text


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "not JSON"), (b"[]", "no schema"), (b"{}", "no schema"), (b'{"schema": 3}', "no schema"),
        (b'{"schema": "edgequant.report/2"}', "edgequant.report/2"), (b"\xff\xfe\xff", "not JSON"),
        (b'{"schema": "edgequant.report/1"}', "verdict"), (b'{"a": NaN}', "NaN is not"),
        (b"[" * 200_000, "nested too deeply"), (b'{"a": ' + b"9" * 9999 + b"}", "not JSON"),
    ],
)  # fmt: skip
def test_what_is_not_a_report_is_said_to_be_none(tmp_path: Path, data, why):
    path = tmp_path / "report.json"
    path.write_bytes(data)
    with pytest.raises(InputError) as caught:
        load(path)
    assert caught.value.code == "REPORT_INVALID"
    assert why in caught.value.message
    assert str(path) in str(caught.value)


def test_missing_directory_and_oversized_files(tmp_path: Path):
    for path, limit in ((tmp_path / "gone.json", 10), (tmp_path, 10), (write(a_report(), tmp_path / "r.json"), 100)):
        with pytest.raises(InputError) as caught:
            load(path, max_bytes=limit)
        assert caught.value.code == "REPORT_INVALID"


@pytest.mark.parametrize("verdict", ["PASS", "MARGINAL"])
def test_a_report_edited_into_a_pass_is_refused(verdict):
    document = json.loads(to_json(a_report(runs=[a_run(verdict="FAIL")], verdict="FAIL")))
    with pytest.raises(InputError):
        loads(json.dumps({**document, "verdict": verdict}))
