"""`edgequant audit`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer
from rich.table import Table
from rich.text import Text

from edgequant.cli.console import CliProgress, out, print_json
from edgequant.cli.options import Ui
from edgequant.errors import InputError
from edgequant.jobs.audit import Audit, audit
from edgequant.jobs.planted import Tried
from edgequant.judge.verdict import Verdict
from edgequant.plain import printable

_SHOWN = 8
_WHERE = {"device": "on the device alone", "file": "in the file, on both sides"}


def run(
    target: str, *, count: int, seed: int, variant: str | None, model: str | None, run_dir: str | None, ui: Ui
) -> None:
    """Audit, show; exits with 4 where the check blames what is sound."""
    folder = _verified(target, model, run_dir, ui)
    found = audit(folder, count=count, seed=seed, variant=variant, progress=CliProgress(ui))
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


def _verified(target: str, model: str | None, run_dir: str | None, ui: Ui) -> Path:
    """The folder of the run: as it was given, or of what a spec says, verified first.

    Raises InputError (OPTION_INVALID) where a spec has no model, or a folder has one.
    """
    is_spec = Path(target).suffix in (".yaml", ".yml")
    if is_spec != (model is not None) or (run_dir is not None and not is_spec):
        raise InputError(
            "OPTION_INVALID",
            f"{target}: a spec says nothing of the model" if is_spec else "--model and --run-dir go with a spec only",
            hint="edgequant audit RUN_DIR, or edgequant audit SPEC.yaml --model MODEL.",
        )
    if model is None:
        return Path(target)
    from edgequant.cli.request import make_request
    from edgequant.jobs.verify import verify

    return verify(make_request(model, {}, spec=target, run_dir=run_dir), CliProgress(ui))[1].path


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


def silent(found: Audit) -> list[str]:
    """Layers in which no fault that was planted costs a decibel with these cases."""
    layers: dict[str, bool] = {}
    for each in found.tried:
        layers[each.fault.layer] = layers.get(each.fault.layer, False) or each.counts
    return [name for name, told in layers.items() if not told]


def named(found: Audit) -> list[Tried]:
    """Missed, and it is said why this check cannot see them."""
    return [each for each in _counted(found) if found.blind(each) is not None]


def limits(found: Audit) -> list[tuple[str, int]]:
    """A limit for each output by which faults were missed, halfway between the sound file and the one that is nearest
    to it, and how many it would have caught."""
    missed = [each for each in _counted(found) if not each.caught and each.cost_db is not None]
    told = []
    for name, (_, sound) in found.rooms.items():
        costs = [each.cost_db for each in missed if each.output == name and each.cost_db is not None]
        if costs:
            told.append((f"{name}:sqnr_db>={sound - min(costs) / 2:.1f}", len(costs)))
    return sorted(told, key=lambda each: -each[1])


def _head(found: Audit) -> list[str]:
    counted = _counted(found)
    caught = sum(each.caught for each in counted)
    warned = sum(each.warned for each in counted)
    share = f" ({100 * caught / len(counted):.0f} %)" if counted else ""
    lost = len(counted) - caught
    lines = [
        f"{found.variant} on {found.uri}: {found.verdict}, with {found.cases} cases",
        f"planted {len(found.tried)} faults; {len(counted)} cost an output 1 dB or more",
        f"of these it catches {caught} of {len(counted)}{share}; of {warned} more it warns; "
        f"of {len(named(found))} of the {lost} that it misses it is known why",
        f"false alarms: {found.false_alarms} of {len(found.nulls)}, of which only a last bit was changed",
    ]
    if found.bound is not None:
        lines.append(
            f"{found.own} independent case{'s' * (found.own > 1)}, none failed: up to {100 * found.bound:.2g} % of "
            "inputs may (95 %)"
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
    missed = [each for each in _counted(found) if not each.caught]
    lines = []
    for each in sorted(missed, key=lambda each: -(each.cost_db or float("inf")))[:_SHOWN]:
        cost = "an output changes" if each.cost_db is None else f"costs {each.output} {each.cost_db:.1f} dB"
        told = f"; it warns: {', '.join(each.codes)}" if each.codes else ""
        lines.append(f"missed: {each.fault}, {_WHERE[each.where]}: {cost}{told}")
    if len(missed) > _SHOWN:
        lines.append(f"and {len(missed) - _SHOWN} more (--json has all)")
    for why, count in Counter(found.blind(each) for each in missed if found.blind(each)).items():
        lines.append(f"cannot be seen ({count}): {why}")
    if missed:
        rooms = (f"{name} {sound - limit:.1f} dB" for name, (limit, sound) in list(found.rooms.items())[:_SHOWN])
        lines.append(f"what a fault may cost without breaking a limit: {', '.join(rooms)}")
    lines += _helps(found, missed)
    for names, told in ((unnoticed(found), "nothing would be noticed"), (silent(found), "nothing costs 1 dB")):
        lines += [f"layers in which {told}: {', '.join(names[:20])}"] if names else []
    if found.unreachable:
        lines.append(f"{len(found.unreachable)} layer(s) could not be audited: their weights are in no known form here")
    lines.append("Of activations, kernels and what depends on the inputs only what these faults do to them is tried.")
    return lines


def _helps(found: Audit, missed: Sequence[Tried]) -> list[str]:
    lines = [f"-> --limit '{limit}' would catch {count} more" for limit, count in limits(found)[:_SHOWN]]
    if second := sum(each.second for each in missed):
        lines.append(
            f"-> a second CPU (--device emulated:cortex-a76, or a device) would catch {second} more: what it computes "
            "is held against this host"
        )
    cases = Counter(each.strained for each in found.tried if each.strained is not None and not each.caught)
    for case, count in cases.most_common(3):
        lines.append(
            f"-> a case like '{case}' (it is in {found.run}/cases) as an input of yours shows {count} far better"
        )
    if found.states:
        lines.append(
            f"-> --rollout 100 shows faults of states ({', '.join(found.states[:5])}), of which none was tried"
        )
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
        "named": len(named(found)),
        "may_cost_db": {name: sound - limit for name, (limit, sound) in found.rooms.items()},
        "limits": [{"limit": limit, "catches": count} for limit, count in limits(found)],
        "second_cpu_catches": sum(each.second for each in found.tried),
        "weights_held": found.weighed,
        "states_not_tried": list(found.states),
        "layers_unnoticed": unnoticed(found),
        "layers_silent": silent(found),
        "layers_not_audited": list(found.unreachable),
        "seconds": round(found.seconds, 3),
        "faults": [_fault(found, each) for each in (*found.nulls, *found.tried)],
    }


def _fault(found: Audit, each: Tried) -> dict[str, Any]:
    return {
        "kind": each.fault.kind,
        "layer": each.fault.layer,
        "subgraph": each.fault.subgraph,
        "channel": each.fault.channel,
        "size": each.fault.size,
        "where": each.where,
        "verdict": None if each.verdict is None else str(each.verdict),
        "caught": each.caught,
        "codes": list(each.codes),
        "output": each.output,
        "cost_db": each.cost_db,
        "sqnr_db": each.sqnr_db,
        "died": each.died,
        "why_missed": found.blind(each) if each.counts else None,
        "second_cpu": each.second,
        "strained_case": each.strained,
    }
