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
from edgequant.compare.decibel import SQNR_CAP_DB, capped_db
from edgequant.findings import Finding
from edgequant.judge.diagnosis import Diagnosis, Row
from edgequant.judge.verdict import Verdict
from edgequant.report.lines import STYLE, Lines

MAX_ROWS = 12
_LEGEND = (
    "dB of error, more is better, -: none or not measured. *: to blame. Names are MNN's: the source's own where it has "
    "one. entire: the layer's output on this host, float against quantized, with all error that comes in from before"
)
_SINGLE = "; single: the model's worst output where this layer alone is quantized"
_APART = (
    "; device: the layer's output on the device against this host, with all that comes in; noise: how far rounding "
    "alone takes it there, so that device dB well below noise dB are an error"
)
_NO_NUMBER = -100.0
"""dB; below, a number is so far off that how far says nothing."""
_SEEN = {
    "weights": "The cause is read from the weights in the file.",
    "tensors": "The cause is read from what goes into it and what comes out.",
}
_OF_WEIGHTS = (
    "ZERO_SCALE", "BIAS_LOST", "WEIGHTS_MISPLACED", "WEIGHTS_NOT_FINITE", "WEIGHT_SCALE_WRONG", "WEIGHT_ROUNDED_BADLY",
    "ZERO_POINT_WRONG", "BIAS_OVERFLOWED", "OUTLIER_WEIGHT", "PER_TENSOR", "BITS_TOO_FEW",
)  # fmt: skip
_OF_TENSORS = (
    "RANGE_CLIPPED", "RANGE_TOO_WIDE", "INT8_SATURATION", "STUCK_OUTPUT", "DATA_MOVED", "ORDER_OF_EQUALS",
    "SHAPE_WRONG", "STALE_MEMORY", "ACTIVATION_OUTLIER", "SENSITIVE_LAYER",
    "FP16_OVERFLOW", "FP16_UNDERFLOW", "FP16_CANCELLATION",
)  # fmt: skip
MOST_ABOVE = 50
"""MB that looking inside means to take of a device, above what the model takes anyway."""


class LayerRow(BaseModel):
    """A layer in the table; dB, None where it is not known or both are equal.  See `judge.diagnosis.Row`.

    place: among all layers, as they are computed; None in reports of old.
    """

    layer: str
    type: str
    entire_db: float | None = None
    single_db: float | None = None
    device_db: float | None = None
    rounding_db: float | None = None
    blamed: bool = False
    place: int | None = None
    here_ill: Literal["NaN", "Inf", "shape"] | None = None
    there_ill: Literal["NaN", "Inf", "shape"] | None = None


class DiagnosisReport(BaseModel):
    """All of a diagnosis.

    Attributes:
        verdict: of `verify`, or FAIL where the inside shows what the outputs hide.
        stage: that breaks; None: none does.
        layers: that are to blame, the first most; how: what proves it, or why it is a suspicion.
        cause: code, message, evidence and the one remedy.
        next: the command to go on with.
        stages_db: SQNR in each stage of the output that fails (`stages_of`), else of the first; None: not measured, or
            equal.
        random_inputs: the cases were made up, so that a good verdict says little of real data.
        ran: "mnn" (here and there, where both are known), "precision" and "memory" it was run with.
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
    stages_of: str | None = None
    stages_db: dict[str, float | None] = Field(default_factory=dict)
    random_inputs: bool = False
    ran: dict[str, str] = Field(default_factory=dict)
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
    known: dict[str, Any] = {
        key: capped_db(value) for key, value in numbers.items() if value is not None and math.isfinite(value)
    }
    ill: dict[str, Any] = {"here_ill": row.here_ill, "there_ill": row.there_ill}
    return LayerRow(layer=row.layer, type=row.type, blamed=row.blamed, place=row.place, **ill, **known)


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
        several = len(found.layers) > 1
        named = plain.joined([f"'{name}'" for name in found.layers[:3]], "and")
        more = f" and {len(found.layers) - 3} more" if len(found.layers) > 3 else ""
        where = f", in layer{'s' if several else ''} {named}{more}{'. Of the first' if several else ''}"
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
    told = [first, " ".join(part for part in (f"{second}.", _seen(found)) if part)]
    remedy = cause.remedy if cause is not None else None
    told.append(" ".join(part for part in (remedy, _recipe(found), _next(found)) if part))
    return [each for each in told if each]


def _seen(found: DiagnosisReport) -> str | None:
    """What tells the cause, where the proof is of the layer alone."""
    if found.cause is None or found.proof is None or not found.layers or found.cause.where is None:
        return None
    code = found.cause.code
    if code == "ZERO_POINT_WRONG" and "zero" in found.cause.evidence:
        return _SEEN["tensors"]
    return _SEEN["weights"] if code in _OF_WEIGHTS else _SEEN["tensors"] if code in _OF_TENSORS else None


def _recipe(found: DiagnosisReport) -> str | None:
    """What is in the recipe of the next command."""
    if found.next is None or "recipe:" not in found.next or not found.layers:
        return None
    names = plain.joined([f"'{name}'" for name in found.layers[:3]], "and")
    names += f" and {len(found.layers) - 3} more" if len(found.layers) > 3 else ""
    tried = "; on the device that has not been tried yet" if found.stage == "device" else ""
    return f"The recipe below is {found.variant} with {names} in float{tried}."


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


_BROKEN = ("LIMIT_EXCEEDED", "CONVERSION_ERROR")
"""Stand first: how bad it is."""
_OF_DEVICE = ("DEVICE_DIFFERS", "DEVICE_BEYOND_ROUNDING", "DEVICE_INT8_WORSE", "FILE_OR_KERNEL_DIFFERS")


def _known(row: LayerRow) -> bool:
    numbers = (row.entire_db, row.single_db, row.device_db)
    return row.here_ill is not None or row.there_ill is not None or any(value is not None for value in numbers)


def _number(value: float | None) -> str:
    return "-" if value is None else f"< {_NO_NUMBER:.0f}" if value < _NO_NUMBER else f"{round(value, 1) + 0.0:.1f}"


def _db(value: float | None) -> str:
    return "none" if value is None or value >= SQNR_CAP_DB else f"{_number(value)} dB"


def _others(found: DiagnosisReport) -> list[Finding]:
    """What the sentences do not say already, each once."""
    told = set() if found.cause is None else {(found.cause.code, found.cause.message)}
    kept = []
    for each in found.findings:
        if (each.code, each.message) not in told:
            told.add((each.code, each.message))
            kept.append(each)
    return kept


def _same_fault(found: DiagnosisReport) -> list[Finding]:
    """What outputs look like behind a node or a device's layer that is proven to be wrong."""
    if found.proof != "proven" or not found.layers:
        return []
    codes = {"conversion": ("RESIDUAL_",), "device": _OF_DEVICE}.get(found.stage or "")
    return [] if codes is None else [each for each in _others(found) if each.code.startswith(codes)]


class _Printer(Lines):
    def diagnosis(self, found: DiagnosisReport) -> None:
        head = Text(found.verdict.value, style=STYLE[found.verdict])
        here = " (this host)" if found.device == "local:" else ""
        made_up = " on random inputs" if found.random_inputs and found.verdict.exit_code == 0 else ""
        self.line(head, f"{made_up}  {found.variant}  on  {found.device}{here}")
        self.how_bad(found)
        print_sentences(found, self)
        if found.table:
            self.console.print()
            self.table(found)
        same = _same_fault(found)
        if same and not self.verbose:
            names = plain.joined(sorted({each.code for each in same}), "and")
            count = "one more finding is" if len(same) == 1 else f"{len(same)} more findings are"
            self.hang(Text("   "), self.text(f"{count} of the same fault: {names} (--verbose)"))
        for finding in _others(found):
            if (self.quiet and finding.severity == "info") or (finding.code in _BROKEN and not self.verbose):
                continue
            if finding in same and not self.verbose:
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

    def how_bad(self, found: DiagnosisReport) -> None:
        """What limit is broken, and which stage it comes from."""
        broken = [each for each in found.findings if each.code in _BROKEN]
        broken.sort(key=lambda each: each.where != found.stages_of)
        if broken and not self.verbose:
            more = f" ({len(broken) - 1} more: --verbose)" if broken[1:] else ""
            where = "" if broken[0].where is None else f"output '{broken[0].where}': "
            self.line(f"{where}{broken[0].message}{more}", indent=3)
        if found.stage is not None and any(value is not None for value in found.stages_db.values()):
            parts = [f"{key} {_db(value)}" for key, value in found.stages_db.items()]
            self.line(f"SQNR of '{found.stages_of}' by stage, each by itself: {', '.join(parts)}", indent=3)
        if found.ran:
            said = [f"{'MNN' if key == 'mnn' else key} {value}" for key, value in found.ran.items()]
            self.line(f"run with {', '.join(said)}", indent=3)

    def table(self, found: DiagnosisReport) -> None:
        """entire: error of the layer's output, all that comes in included; single: of the worst output of the model
        where this layer alone is quantized."""
        known = [row for row in found.table if row.blamed or _known(row)]
        shown = known if self.verbose else known[: self.max_outputs]
        if not shown:
            return
        ordered = all(row.place is not None for row in shown)
        if ordered:
            shown = sorted(shown, key=lambda row: row.place or 0)
        device = any(row.device_db is not None or row.there_ill is not None for row in shown)
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
            every = (
                row.here_ill or _number(row.entire_db), _number(row.single_db), row.there_ill or _number(row.device_db),
                _number(row.rounding_db),
            )  # fmt: skip
            cells = "".join(f"{cell:>11}" for cell in itertools.compress(every, columns))
            name = self.cut(self.name(row.layer, "bold" if row.blamed else ""), width - 3)
            mark, blanks = "* " if row.blamed else "  ", " " * (width - 2 - name.cell_len)
            kind = self.name(row.type)
            kind.truncate(types - 1)
            padded = Text.assemble(mark, name, blanks, kind, " " * (types - kind.cell_len), cells)
            self.console.print(padded, soft_wrap=True)
        if not self.quiet:
            order = "In the order they are computed" if ordered else "Worst first"
            some = f"The worst {len(shown)} of {len(known)} layers (--verbose: all)"
            which = order if len(known) == len(shown) else f"{some}; {order[:1].lower()}{order[1:]}"
            legend = f"{which}. {_LEGEND}{_SINGLE if single else ''}{_APART if device else ''}."
            self.hang(Text("  "), self.text(legend))
