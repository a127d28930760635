"""quantize, as a user runs it."""

from __future__ import annotations

from pathlib import Path

from tests.beds.models import ModelByName
from tests.cli.command import edgequant

ONE = ("--threads", "1")


def test_quantize(generated_model: ModelByName, case: Path, tmp_path: Path) -> None:
    model, out = generated_model("conv_cnn"), tmp_path / "out.mnn"
    out.write_bytes(b"what was there before")
    done = edgequant(
        "quantize", str(model), "-o", str(out), *ONE, "--json", "--run-dir", str(tmp_path / "run")
    )  # fmt: skip
    assert done.code == 0, done.err
    (run,) = done.json["runs"]
    assert run["variant"] == "dynamic:8"
    assert run["low_memory_engaged"] is True
    assert out.read_bytes() == (tmp_path / "run" / "models" / run["file"]).read_bytes()
    assert f"{out}: " in done.err
    assert sorted(file.name for file in tmp_path.iterdir()) == ["case.npz", "out.mnn", "run"]
    # And it is what `run` takes.
    again = edgequant("run", str(out), "--device", "local:", "--inputs", str(case), *ONE, "--json")
    assert again.code == 0
    assert again.json["options"]["memory"] == "low"


def test_quantize_that_breaks_a_limit_is_written_and_exits_with_1(generated_model: ModelByName, tmp_path: Path) -> None:
    out, table, page = tmp_path / "out.mnn", tmp_path / "table.csv", tmp_path / "page.html"
    arguments = ("--variant", "weight:2", "--limit", "sqnr_db>=60", *ONE, "--run-dir", str(tmp_path / "run"))
    beside = ("--csv", str(table), "--html", str(page))
    done = edgequant("quantize", str(generated_model("argmax_ints")), "-o", str(out), *arguments, *beside)
    assert done.code == 1
    assert "FAIL" in done.out
    assert out.is_file()
    # The same table, and the same page, that the report's folder gives.
    beside = ("--csv", str(tmp_path / "again.csv"), "--html", str(tmp_path / "again.html"))
    again = edgequant("report", str(tmp_path / "run"), *beside)
    assert again.code == 1
    assert "weight:2" in table.read_text()
    assert table.read_text() == (tmp_path / "again.csv").read_text()
    assert page.read_text() == (tmp_path / "again.html").read_text()
    assert "FAIL: argmax_ints" in page.read_text()
    report = tmp_path / "run" / "report.json"
    before = report.read_bytes()
    onto = edgequant("report", str(tmp_path / "run"), "--csv", str(report))
    assert onto.code == 2
    assert "OUTPUT_INVALID" in onto.err
    assert report.read_bytes() == before


def test_quantize_keeps_a_file_that_is_there_when_the_new_one_fails(
    generated_model: ModelByName, tmp_path: Path
) -> None:
    out = tmp_path / "out.mnn"
    out.write_bytes(b"good one")
    arguments = ("--variant", "weight:2", "--limit", "sqnr_db>=60", *ONE, "--run-dir", str(tmp_path / "run"))
    done = edgequant("quantize", str(generated_model("argmax_ints")), "-o", str(out), *arguments)
    assert done.code == 1
    assert out.read_bytes() == b"good one"
    assert f"{out} was kept as it was" in done.out
    (new,) = (tmp_path / "run" / "models").glob("weight*.mnn")
    assert str(new) in done.out


def test_quantize_writes_nothing_that_computes_something_else(generated_model: ModelByName, tmp_path: Path) -> None:
    out = tmp_path / "out.mnn"
    out.write_bytes(b"what was there before")
    model = generated_model("leading_length")
    done = edgequant("quantize", str(model), "-o", str(out), *ONE, "--run-dir", str(tmp_path / "run"))
    assert done.code == 1
    assert "was not written" in done.out
    assert out.read_bytes() == b"what was there before"


def test_quantize_where_the_converter_crashes(generated_model: ModelByName, tmp_path: Path) -> None:
    out = tmp_path / "out.mnn"
    model = generated_model("scale_as_input")
    done = edgequant("quantize", str(model), "-o", str(out), *ONE, "--json", "--run-dir", str(tmp_path / "run"))
    assert done.code == 2
    error = done.json["error"]
    assert error["code"] == "CONVERTER_CRASHED"
    assert f"  log: {error['evidence']['log']}" in done.err.splitlines()
    assert Path(error["evidence"]["log"]).is_file()
    assert not out.exists()
