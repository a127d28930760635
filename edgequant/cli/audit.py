"""`edgequant audit`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer
from rich.table import Table
from rich.text import Text

from edgequant.cli.console import CliProgress, out, print_json
from edgequant.cli.options import Ui
from edgequant.jobs.audit import Audit, audit
from edgequant.jobs.planting import Tried
from edgequant.judge.verdict import Verdict
from edgequant.plain import printable

_SHOWN = 8
_WHERE = {"device": "on the device alone", "file": "in the file, on both sides"}


def run(run_dir: str, *, count: int, seed: int, variant: str | None, ui: Ui) -> None:
    """Audit, show; exits with 4 where the check blames what is sound."""
    found = audit(Path(run_dir), count=count, seed=seed, variant=variant, progress=CliProgress(ui))
    console = out(ui)
    for line in _head(found):
        console.print(Text(printable(line)), soft_wrap=True)
    console.print(_table(found))
    console.print(Text("from: the smallest that was caught; missed: the largest that was not", style="dim"))
    for line in _tail(found):
        console.print(Text(printable(line)), soft_wrap=True)
    if ui.json:
        print_json(json.dumps(as_dict(found), indent=2, allow_nan=False, ensure_ascii=True))
    if found.false_alarms:
        raise typer.Exit(Verdict.INCONCLUSIVE.exit_code)


@dataclass(frozen=True)
class Row:
    """Faults of one kind in one place."""

    kind: str
    where: str
    tried: Sequence[Tried]

    @property
    def counted(self) -> list[Tried]:
        return [each for each in self.tried if each.counts]

    @property
    def caught(self) -> int:
        return sum(each.caught for each in self.counted)

    def size(self, *, caught: bool) -> float | None:
        """The smallest that was caught, or the largest that was not."""
        sizes = [each.fault.size for each in self.counted if each.caught is caught and each.fault.size is not None]
        return (min if caught else max)(sizes) if sizes else None


def rows(found: Audit) -> list[Row]:
    keys = sorted({(each.fault.kind, each.where) for each in found.tried})
    return [
        Row(kind, where, [each for each in found.tried if (each.fault.kind, each.where) == (kind, where)])
        for kind, where in keys
    ]


def _counted(found: Audit) -> list[Tried]:
    return [each for each in found.tried if each.counts]


def unnoticed(found: Audit) -> list[str]:
    """Layers in which faults of a decibel or more were planted and none was caught."""
    layers: dict[str, bool] = {}
    for each in _counted(found):
        layers[each.fault.layer] = layers.get(each.fault.layer, False) or each.caught
    return [name for name, noticed in layers.items() if not noticed]


def _head(found: Audit) -> list[str]:
    counted = _counted(found)
    caught = sum(each.caught for each in counted)
    warned = sum(each.warned for each in counted)
    share = f" ({100 * caught / len(counted):.0f} %)" if counted else ""
    lines = [
        f"{found.variant} on {found.uri}: {found.verdict}, with {found.cases} cases",
        f"planted {len(found.tried)} faults; {len(counted)} cost an output 1 dB or more",
        f"of these it catches {caught} of {len(counted)}{share}; of {warned} more it warns",
        f"false alarms: {found.false_alarms} of {len(found.nulls)}, of which only a last bit was changed",
    ]
    if found.bound is not None:
        lines.append(
            f"{found.own} cases of yours, none failed: if they are drawn alike and apart from each other, up to "
            f"{100 * found.bound:.2g} % of inputs may fail all the same (95 %)"
        )
    elif found.own == 0:
        lines.append("all cases are random: they say nothing about the share of real inputs that may fail")
    return lines


def _table(found: Audit) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("fault", "where", "planted", ">= 1 dB", "caught", "from", "missed"):
        table.add_column(name, justify="left" if name in ("fault", "where") else "right", no_wrap=True)
    for row in rows(found):
        caught, missed = row.size(caught=True), row.size(caught=False)
        style = "" if row.caught == len(row.counted) else "yellow"
        table.add_row(
            row.kind, row.where, str(len(row.tried)), str(len(row.counted)), Text(str(row.caught), style=style),
            "" if caught is None else f"{caught:g}", "" if missed is None else f"{missed:g}",
        )  # fmt: skip
    return table


def _tail(found: Audit) -> list[str]:
    lines = []
    missed = sorted(
        (each for each in _counted(found) if not each.caught), key=lambda each: -(each.cost_db or float("inf"))
    )
    for each in missed[:_SHOWN]:
        cost = "an output changes" if each.cost_db is None else f"costs {each.output} {each.cost_db:.1f} dB"
        told = f"; it warns: {', '.join(each.codes)}" if each.codes else ""
        lines.append(f"missed: {each.fault}, {_WHERE[each.where]}: {cost}{told}")
        if each.cost_db is not None and each.sqnr_db is not None:
            lines.append(f"  -> --limit '{each.output}:sqnr_db>={each.sqnr_db + each.cost_db / 2:.1f}' would catch it")
    if len(missed) > _SHOWN:
        lines.append(f"and {len(missed) - _SHOWN} more (--json has all)")
    if names := unnoticed(found):
        lines.append(f"layers in which nothing would be noticed: {', '.join(names[:20])}")
    if found.unreachable:
        lines.append(
            f"{len(found.unreachable)} layer(s) could not be audited (static int8, or weights in another file)"
        )
    lines.append("Of activations, kernels and what depends on the inputs only what these faults do to them is tried.")
    return lines


def as_dict(found: Audit) -> dict[str, Any]:
    """The JSON document (schema ``edgequant.audit/1``)."""
    counted = _counted(found)
    return {
        "schema": "edgequant.audit/1",
        "run": str(found.run),
        "variant": found.variant,
        "uri": found.uri,
        "verdict": str(found.verdict),
        "cases": found.cases,
        "own_cases": found.own,
        "bound_95": found.bound,
        "planted": len(found.tried),
        "counted": len(counted),
        "caught": sum(each.caught for each in counted),
        "null_runs": len(found.nulls),
        "false_alarms": found.false_alarms,
        "layers_unnoticed": unnoticed(found),
        "layers_not_audited": list(found.unreachable),
        "seconds": round(found.seconds, 3),
        "faults": [_fault(each) for each in (*found.nulls, *found.tried)],
    }


def _fault(each: Tried) -> dict[str, Any]:
    return {
        "kind": each.fault.kind,
        "layer": each.fault.layer,
        "subgraph": each.fault.subgraph,
        "channel": each.fault.channel,
        "size": each.fault.size,
        "where": each.where,
        "verdict": str(each.verdict),
        "caught": each.caught,
        "codes": list(each.codes),
        "output": each.output,
        "cost_db": each.cost_db,
        "sqnr_db": each.sqnr_db,
        "died": each.died,
    }
