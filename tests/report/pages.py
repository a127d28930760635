"""Runs to make pages of, and a reader of pages."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from edgequant.archive.folder import device_capture
from edgequant.archive.layers import Apart, LayerCapture, LayerFacts, Tap
from edgequant.archive.open import open_run
from edgequant.archive.types import TimingCapture
from edgequant.judge.run import judge
from edgequant.report import model
from edgequant.report.build import build_report
from edgequant.report.html import page
from tests.judge.archives import TRUE, Archive, all_off

EVIL = (
    "</script><script>document.title='owned'</script>",
    '"><img src="http://192.0.2.1/x" onerror="alert(1)">',
    "</style></svg></table><a href=javascript:alert(1)>x</a>",
    "\u202egnp.exe\u2066",
    "\x9b31m\x1b]0;x\x07\x00",
    "{{ 7 * 7 }}{% for x in y %}",
    "a" * 8_000_000,
    "\ud800",
)


def apart(db: float) -> Apart:
    return Apart(n=9, signal=1.0, error=10 ** (-db / 20), max_abs=0.1)


def layers(uri: str, count: int) -> LayerCapture:
    """So many in a row; the error of the n-th is (n mod 60) + 5 dB, of the device 60 dB more."""
    names = [f"block{number // 10}/conv{number}/Conv_output_0" for number in range(count)]
    return LayerCapture(
        variant="dynamic:8",
        uri=uri,
        stage="device",
        cases=("a",),
        layers=tuple(
            LayerFacts(name=name, type="Convolution", inputs=(names[number - 1] if number else "x",), outputs=(name,))
            for number, name in enumerate(names)
        ),
        taps=tuple(
            Tap(case="a", tensor=name, quantization=apart(number % 60 + 5), moved=apart(80), device=apart(65))
            for number, name in enumerate(names)
        ),
    )


def devices(path: Path, *uris: str, layers_each: int = 0, samples: int = 200) -> Archive:
    """One variant on each of them, timed; the last sample of each is far off."""
    archive = Archive(path, "dynamic:8", devices=uris)
    archive.made("dynamic:8")
    for number, uri in enumerate(uris):
        times = (*(2.0 + number + (place % 7) / 10 for place in range(samples)), 40.0)
        timing = TimingCapture(case="a", samples_ms=times, warmup=3, complete=True)
        archive.on_device(uri, "dynamic:8", all_off(TRUE, 33), timings=(timing,), load_ms=1.0)
        if layers_each:
            archive.folder.save_layers(device_capture(uri, "dynamic:8"), layers(uri, layers_each))
    archive.close()
    return archive


def report_of(archive: Archive) -> model.Report:
    run = open_run(archive.folder.path)
    return build_report(run, judge(run))


def written(archive: Archive, path: Path, **more: Any) -> Path:
    """The page of a run, as a file."""
    path.write_text(page(report_of(archive), open_run(archive.folder.path), **more), "utf-8")
    return path


def evil_report(name: str) -> model.Report:
    """A report in which this is the text of everything that has a text."""
    finding = {"code": "BAD", "severity": "fail", "where": name, "message": name, "remedy": name}
    metrics = {"sqnr_db": 3.0, "cosine": 0.5, "max_abs": 1.0}
    limit = {"metric": "sqnr_db", "op": ">=", "bound": 20.0, "value": 3.0, "verdict": "FAIL", "case": name}
    output = model.OutputReport(
        **metrics, verdict="FAIL", worst_case=name, cases=1, limits=[limit], reasons=[name],
        by_case={name: {**metrics, "problem": name}}, why_null={"mean_abs": name},
    )  # fmt: skip
    run = {
        "device": {"uri": name, "cpu": name, "arch": name, "features": [name], "os": name,
                   "facts": {name: name, "soc": None, "why_null": {"soc": name}, "list": [name]}},
        "variant": name, "made_as": f"{name}2", "verdict": "FAIL", "outputs": {name: output},
        "low_memory_why": name, "findings": [finding], "file": name, "sha256": name,
        "error": {"code": "BAD", "message": name, "hint": name, "evidence": {"log": name}},
        "latency_ms": {"n": 1, "warmup": 0, "min": 1.0, "valid": False, "why_invalid": [name],
                       "why_null": {"p50": name}, "case": name},
        "memory_mb": {"model_file": 1.0, "why_null": {"session": name}},
        "drift": {name: {"curves": {name: {"octaves": [(1, 40.0), (2, 30.0)], "kind": name}}, "limit": name,
                         "breaks_at": 2, "stage": name}},
    }  # fmt: skip
    return model.Report(
        verdict="FAIL", edgequant=name, mnn=name, model={"path": name, "sha256": name, "bytes": 5},
        reference={"kind": name, "version": name, "why": name}, cases=[{"name": name, "source": name}],
        options={"limits": [name]}, runs=[run, {**run, "variant": f"{name}b"}], findings=[finding],
        timing_s={name: 1.0},
    )  # fmt: skip


class Reader(HTMLParser):
    """tables: id -> rows of cells as text, the heads first.  tags: every one that was opened, with its attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.notes: dict[str, list[list[list[str]]]] = {}
        self.items: dict[str, str] = {}
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self._rows: list[list[str]] | None = None
        self._marks: list[list[list[str]]] = []
        self._cell: list[str] | None = None
        self._item: str | None = None
        self._note = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append((tag, given))
        if tag == "table":
            self._rows, self._marks = self.tables.setdefault(given["id"] or "", []), []
            self.notes[given["id"] or ""] = self._marks
        elif tag == "tr" and self._rows is not None:
            self._rows.append([])
            self._marks.append([])
        elif tag in ("td", "th") and self._rows is not None:
            self._cell = []
            self._marks[-1].append([])
        elif tag == "sup":
            self._note = True
        elif tag == "a" and self._note:
            self._marks[-1][-1].append((given["href"] or "")[1:])
        elif tag == "li" and "-note-" in (given.get("id") or ""):
            self._item = given["id"]

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th") and self._cell is not None and self._rows:
            self._rows[-1].append("".join(self._cell).strip())
            self._cell = None
        elif tag == "table":
            self._rows = None
        elif tag == "sup":
            self._note = False
        elif tag == "li":
            self._item = None

    def handle_data(self, data: str) -> None:
        if self._note:
            return
        if self._item is not None:
            self.items[self._item] = self.items.get(self._item, "") + data
        if self._cell is not None:
            self._cell.append(data)

    def rows(self, table: str) -> list[dict[str, str]]:
        heads, *rows = self.tables[table]
        return [dict(zip(heads, row, strict=True)) for row in rows]

    def why(self, table: str, row: int, head: str) -> list[str]:
        """The notes of a cell."""
        column = self.tables[table][0].index(head)
        return [self.items[each] for each in self.notes[table][row + 1][column]]
