"""The table of a report, read back by another CSV reader's rules."""

from __future__ import annotations

import csv
import io
import subprocess
import sys
from pathlib import Path

import pytest

from edgequant.judge.verdict import Verdict
from edgequant.report.csv import COLUMNS, to_csv
from edgequant.report.model import DeviceInfo, ModelInfo, OutputReport, Report, Run
from tests.beds.models import ModelByName
from tests.jobs.support import do


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_a_line_for_each_output(generated_model: ModelByName, tmp_path: Path) -> None:
    report = do(generated_model("gru"), tmp_path / "run", "dynamic:8", "fp16", latency=True)
    found = rows(to_csv(report))
    assert [(row["variant"], row["output"]) for row in found] == [
        (run.variant, name) for run in report.runs for name in run.outputs
    ]
    for row in found:
        run = next(run for run in report.runs if run.variant == row["variant"])
        output = run.outputs[row["output"]]
        assert tuple(row) == COLUMNS
        assert float(row["sqnr_db"]) == pytest.approx(output.sqnr_db, rel=1e-8)
        assert float(row["quantization_sqnr_db"]) == pytest.approx(
            run.errors.quantization[row["output"]].sqnr_db, rel=1e-8
        )
        assert row["device_sqnr_db"] == ""  # this host is the device
        assert row["verdict"] == run.verdict.value
        assert run.latency_ms is not None
        assert float(row["p50_ms"]) == pytest.approx(run.latency_ms.p50, rel=1e-8)
    # The same from the command line, from the folder alone.
    table = tmp_path / "table.csv"
    command = [str(Path(sys.executable).with_name("edgequant")), "report", str(tmp_path / "run"), "--csv", str(table)]
    assert subprocess.run(command, capture_output=True, timeout=240).returncode == report.verdict.exit_code
    assert rows(table.read_text("utf-8")) == found


def test_names_nobody_has_vetted() -> None:
    names = ['=HYPERLINK("http://x")', "+1", "-2", "@sum", 'a,"b"\nc', "null\0byte", "lone \udcff surrogate", "plain"]
    outputs = {name: OutputReport(verdict=Verdict.PASS, sqnr_db=-5.0) for name in names}
    run = Run(device=DeviceInfo(uri="local:"), variant="fp16", verdict=Verdict.PASS, outputs=outputs)
    model = ModelInfo(path="m.onnx", sha256="0" * 64)
    found = rows(to_csv(Report(verdict=Verdict.PASS, edgequant="0", model=model, runs=[run])))
    assert len(found) == len(names)
    assert not any(row["output"].startswith(("=", "+", "-", "@")) for row in found)
    assert found[4]["output"] == names[4]
    assert [row["sqnr_db"] for row in found] == ["-5"] * len(names)  # a number is no formula


def test_a_run_without_outputs_has_its_line() -> None:
    run = Run(device=DeviceInfo(uri="adb://X"), variant="kl", verdict=Verdict.ERROR)
    model = ModelInfo(path="m.onnx", sha256="0" * 64)
    (row,) = rows(to_csv(Report(verdict=Verdict.ERROR, edgequant="0", model=model, runs=[run])))
    assert (row["device"], row["verdict"], row["output"]) == ("adb://X", "ERROR", "")


def test_a_carriage_return_does_not_end_a_line() -> None:
    names = ["a\rFAKE", "b"]  # no comma, for which csv would quote it
    outputs = {name: OutputReport(verdict=Verdict.FAIL, sqnr_db=1.0) for name in names}
    run = Run(device=DeviceInfo(uri="local:"), variant="fp16", verdict=Verdict.FAIL, outputs=outputs)
    text = to_csv(Report(verdict=Verdict.FAIL, edgequant="0", model=ModelInfo(path="m", sha256="0" * 64), runs=[run]))
    found = list(csv.DictReader(io.StringIO(text, newline="")))
    assert [row["verdict"] for row in found] == ["FAIL", "FAIL"]
