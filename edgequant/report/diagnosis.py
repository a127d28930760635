"""A diagnosis as one document, and on a terminal: three sentences, then the layers, worst first."""

from __future__ import annotations

import itertools
import math
import shlex
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from rich.console import Console
from rich.text import Text

from edgequant import plain
from edgequant.compare.decibel import capped_db
from edgequant.findings import Finding
from edgequant.judge.diagnosis import Diagnosis, Row
from edgequant.judge.verdict import Verdict
from edgequant.report.lines import STYLE, Lines

MAX_ROWS = 12
_LEGEND = (
    "dB, more is better; *: to blame. entire: its own output, float against quantized, with all error that comes in"
)
_SINGLE = "; single: the model's worst output with this layer alone quantized"
_APART = "; device: its output there against this host; noise: what rounding explains of that"
MOST_ABOVE = 50
"""MB that looking inside means to take of a device, above what the model takes anyway."""


class LayerRow(BaseModel):
    """A layer in the table; dB, None where it is not known or both are equal.  See `judge.diagnosis.Row`."""

    layer: str
    type: str
    entire_db: float | None = None
    single_db: float | None = None
    device_db: float | None = None
    rounding_db: float | None = None
    blamed: bool = False


class DiagnosisReport(BaseModel):
    """All of a diagnosis.

    Attributes:
        verdict: of `verify`, or FAIL where the inside shows what the outputs hide.
        stage: that breaks; None: none does.
        layers: that are to blame, the first most; how: what proves it, or why it is a suspicion.
        cause: code, message, evidence and the one remedy.
        next: the command to go on with.
        table: worst first.
        loops: operators whose inside cannot be seen: each is judged as one layer.
        unseen: tensors that could not be read, with the reason; only_float, only_quantized: that one side alone has.
        device_memory_mb: the runner's peak with the model alone ("own"), while looking inside ("peak"), and how far
            that is above ("above"); None where the device is this host, or was not looked into.
        case: the script of the smallest reproduction, where one was wanted and written.
        overlay: the file for Model Explorer, where one was wanted; overlaid: what is in it.
    """

    model_config = ConfigDict(populate_by_name=True, defer_build=True)

    schema_: Literal["edgequant.diagnosis/1"] = Field(default="edgequant.diagnosis/1", alias="schema")
    verdict: Verdict
    model: str
    device: str
    variant: str
    stage: Literal["conversion", "quantization", "device"] | None = None
    why: str | None = None
    layers: list[str] = Field(default_factory=list)
    proof: Literal["proven", "suspicion"] | None = None
    how: str = ""
    cause: Finding | None = None
    findings: list[Finding] = Field(default_factory=list)
    next: str | None = None
    cases: list[str] = Field(default_factory=list)
    table: list[LayerRow] = Field(default_factory=list)
    loops: list[str] = Field(default_factory=list)
    unseen: dict[str, str] = Field(default_factory=dict)
    only_float: list[str] = Field(default_factory=list)
    only_quantized: list[str] = Field(default_factory=list)
    device_memory_mb: dict[str, float] | None = None
    case: str | None = None
    overlay: str | None = None
    overlaid: str | None = None
    run_dir: str | None = None


def rows(found: Diagnosis) -> list[LayerRow]:
    return [_row(row) for row in found.rows]


def _row(row: Row) -> LayerRow:
    numbers: dict[str, Any] = {
        "entire_db": row.entire, "single_db": row.single, "device_db": row.device, "rounding_db": row.moved,
    }  # fmt: skip
    known = {key: capped_db(value) for key, value in numbers.items() if value is not None and math.isfinite(value)}
    return LayerRow(layer=row.layer, type=row.type, blamed=row.blamed, **known)


def to_json(found: DiagnosisReport) -> str:
    return found.model_dump_json(by_alias=True, indent=1)


def sentences(found: DiagnosisReport) -> list[str]:
    """Who and why; how that is known; what to do."""
    cause = found.cause
    if found.stage is None:
        return [found.why or "Nothing is to be blamed: every limit is kept.", *([found.next] if found.next else [])]
    stage = {
        "conversion": "The conversion to MNN breaks it",
        "quantization": "Quantization breaks it",
        "device": "The device breaks it",
    }[found.stage]
    if cause is not None and cause.code == "HOST_KERNEL_DIFFERS":
        stage = "This host breaks it, not the device"
    where = ""
    if found.layers and not (cause is not None and cause.where is None):
        more = f" and {len(found.layers) - 1} more" if len(found.layers) > 1 else ""
        where = f", in layer '{found.layers[0]}'{more}"
        if found.stage == "conversion":
            where = f", at node '{found.layers[0]}' of the source"
    elif found.layers == [] and cause is not None and cause.where is not None:
        where = f", at '{cause.where}'"
    why = f": {cause.message} ({cause.code})" if cause is not None else ""
    first = f"{stage}{where}{why}."
    second = found.how[:1].upper() + found.how[1:] if found.how else "No counter-proof could be run"
    if found.proof is not None:
        second = (
            f"{'Proven' if found.proof == 'proven' else 'A suspicion, not proven'}: {found.how or 'no counter-proof'}"
        )
    told = [first, f"{second}."]
    remedy = cause.remedy if cause is not None else None
    told.append(" ".join(part for part in (remedy, _next(found)) if part))
    return [each for each in told if each]


def _next(found: DiagnosisReport) -> str | None:
    """The command to go on with, and what it does where it is none of ours."""
    if found.next is None:
        return None
    shows = found.stage == "conversion" and found.next.startswith("python ")
    return f"{'This shows it, with MNN and NumPy alone' if shows else 'Next'}: {found.next}"


def print_sentences(found: DiagnosisReport, lines: Lines, indent: str = "") -> None:
    """Folded, but for the command, which is there to be copied."""
    for number, sentence in enumerate(sentences(found), 1):
        command = _next(found) if found.stage is not None else None
        if command is not None and sentence.endswith(command):
            sentence = sentence.removesuffix(command).rstrip()
        else:
            command = None
        if sentence:
            lines.hang(Text(f"{indent}{number}. "), lines.text(sentence))
        if command is not None:
            lead = "   " if sentence else f"{number}. "
            lines.console.print(Text(f"{indent}{lead}") + lines.text(command), soft_wrap=True)


def render(found: DiagnosisReport, console: Console, *, verbose: bool = False, quiet: bool = False) -> None:
    """Print it."""
    _Printer(console, MAX_ROWS, verbose, quiet).diagnosis(found)


def _others(found: DiagnosisReport) -> list[Finding]:
    """What the sentences do not say already, each once."""
    told = set() if found.cause is None else {(found.cause.code, found.cause.message)}
    kept = []
    for each in found.findings:
        if (each.code, each.message) not in told:
            told.add((each.code, each.message))
            kept.append(each)
    return kept


class _Printer(Lines):
    def diagnosis(self, found: DiagnosisReport) -> None:
        head = Text(found.verdict.value, style=STYLE[found.verdict])
        self.line(head, f"  {found.variant}  on  {found.device}")
        print_sentences(found, self)
        if found.table:
            self.console.print()
            self.table(found)
        for finding in _others(found):
            if (self.quiet and finding.severity == "info") or (finding.code == "LIMIT_EXCEEDED" and not self.verbose):
                continue
            where = "" if finding.where is None else f" at '{finding.where}'"
            self.hang(
                Text(f"{finding.severity:<5} ", style="dim"), self.text(f"{finding.code}{where}: {finding.message}")
            )
        if found.loops:
            names = plain.joined([plain.name(name, self.console.encoding) for name in found.loops[:3]], "and")
            self.line(f"Tensors inside of {names} cannot be asked for: it is judged as one layer, its weights apart.")
        if found.unseen:
            self.line(f"{len(found.unseen)} tensors could not be read, first {next(iter(found.unseen))}.")
        if (memory := found.device_memory_mb) is not None:
            meant = f"{'at most' if memory['above'] <= MOST_ABOVE else 'more than the'} {MOST_ABOVE} MB are meant"
            self.line(
                f"Looking took {memory['above']:.0f} MB of the device above the model's own peak of "
                f"{memory['own']:.0f} MB ({meant})."
            )
        if found.overlay is not None:
            self.line(f"For Model Explorer: {found.overlay}: {found.overlaid}.")
        if found.case is not None:
            self.console.print(Text("Case: ") + self.text(shlex.join(["python", found.case])), soft_wrap=True)
        if found.run_dir is not None:
            self.console.print(Text("Run: ") + self.text(found.run_dir), soft_wrap=True)

    def table(self, found: DiagnosisReport) -> None:
        """entire: error of the layer's output, all that comes in included; single: of the worst output of the model
        where this layer alone is quantized."""
        shown = found.table if self.verbose else found.table[: self.max_outputs]
        device = any(row.device_db is not None for row in shown)
        single = any(row.single_db is not None for row in shown)
        columns = [True, single, device, device]
        heads = list(itertools.compress(("entire dB", "single dB", "device dB", "noise dB"), columns))
        width = max(self.name(row.layer).cell_len for row in shown) + 4
        types = max(14, *(self.name(row.type).cell_len + 1 for row in shown))
        if self.console.is_terminal:  # a file has no edge: nothing is cut there
            types = min(types, 14)
            width = min(max(self.console.width - types - 11 * len(heads), 20), width)
        head = f"{'layer':<{width}}{'type':<{types}}" + "".join(f"{head:>11}" for head in heads)
        self.console.print(Text(head), soft_wrap=True)
        for row in shown:
            every = (row.entire_db, row.single_db, row.device_db, row.rounding_db)
            numbers = itertools.compress(every, columns)
            cells = "".join(f"{'-' if value is None else f'{round(value, 1) + 0.0:.1f}':>11}" for value in numbers)
            name = self.cut(self.name(row.layer, "bold" if row.blamed else ""), width - 3)
            mark, blanks = "* " if row.blamed else "  ", " " * (width - 2 - name.cell_len)
            kind = self.name(row.type)
            kind.truncate(types - 1)
            padded = Text.assemble(mark, name, blanks, kind, " " * (types - kind.cell_len), cells)
            self.console.print(padded, soft_wrap=True)
        if not self.quiet:
            legend = f"{_LEGEND}{_SINGLE if single else ''}{_APART if device else ''}."
            self.hang(Text("  "), self.text(legend))
        if len(found.table) > len(shown):
            self.line(f"  and {len(found.table) - len(shown)} more layers (--verbose shows them)")
