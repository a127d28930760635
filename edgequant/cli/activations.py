"""`edgequant devices probe --activations`."""

from __future__ import annotations

import json
import math
from typing import Any

from rich.table import Table
from rich.text import Text

from edgequant.cli.console import CliProgress, out, print_json
from edgequant.cli.options import Ui
from edgequant.jobs.activations import MEMORIES, PRECISIONS, Activations, Found, probe_activations
from edgequant.lab.session import DeviceOptions
from edgequant.plain import printable

_ALL = len(PRECISIONS) * len(MEMORIES)


def run(uri: str, options: DeviceOptions, ui: Ui) -> None:
    """Show what the device makes of each operator at its limits."""
    found = probe_activations(uri, options, CliProgress(ui))
    console = out(ui)
    kernels = ", ".join(name for name, on in found.kernels.items() if on) or "none of the special ones"
    console.print(Text(printable(f"{uri}  MNN {found.mnn}, kernels: {kernels}")), soft_wrap=True)
    table = Table(box=None, pad_edge=False)
    for name in ("operator", "precision", "right from", "to", "NaN", "Inf", "-Inf"):
        table.add_column(name, justify="right" if name in ("right from", "to") else "left", no_wrap=True)
    for each in found.by_operator:
        table.add_row(*_cells(each))
    console.print(table)
    for each in found.by_operator:
        for line in _remarks(each):
            console.print(Text(printable(line)), soft_wrap=True)
    if found.missing:
        console.print(Text(f"not converted by MNN {found.mnn} here: {', '.join(found.missing)}"), soft_wrap=True)
    if ui.json:
        print_json(json.dumps(as_dict(found), indent=2, allow_nan=False, ensure_ascii=True))


def as_dict(found: Activations) -> dict[str, Any]:
    """The JSON document (schema ``edgequant.activations/1``)."""
    return {
        "schema": "edgequant.activations/1",
        "uri": found.uri,
        "mnn": found.mnn,
        "mnn_kernels": found.kernels,
        "emulator": found.emulator,
        "not_converted": list(found.missing),
        "operators": [_operator(each) for each in found.by_operator],
    }


def _operator(each: Found) -> dict[str, Any]:
    told: dict[str, Any] = {
        "operator": each.operator,
        "modes": [{"precision": precision, "memory": memory} for precision, memory in each.modes],
        "error": each.error,
    }
    if (does := each.behaviour) is not None:
        told |= {
            "worst_error": does.worst,
            "worst_at": does.worst_at,
            "right_from": does.low,
            "right_to": does.high,
            "swallows_nan": does.swallows_nan,
            "wrong": [
                {"input": one.label, "kind": one.kind, "expected": _number(one.expected), "got": _number(one.got)}
                for one in does.wrong
            ],
        }
    return told


def _number(value: float) -> float | str:
    return value if math.isfinite(value) else _short(value)


def _short(value: float) -> str:
    return {math.inf: "Inf", -math.inf: "-Inf"}.get(value, "NaN" if math.isnan(value) else f"{value:.3g}")


def _cells(each: Found) -> list[Text]:
    does = each.behaviour
    if does is None:
        return [Text(each.operator), Text(_modes(each)), *[Text("-")] * 5]
    ends = ["", ""] if does.low is None or does.high is None else [_end(does.low), _end(does.high)]
    cells = [Text(each.operator), Text(_modes(each)), *(Text(end) for end in ends)]
    for label in ("nan", "inf", "-inf"):
        if does.low is None:  # of rows: told below
            cells.append(Text("swallowed", style="red") if label == "nan" and does.swallows_nan else Text(""))
            continue
        wrong = does.at(label)
        cells.append(Text("right") if wrong is None else Text(_short(wrong.got), style="red"))
    return cells


def _end(value: float) -> str:
    return ("-all" if value < 0 else "all") if abs(value) > 3.4e38 else f"{value:.6g}"


def _modes(each: Found) -> str:
    """The precisions, and the memory mode where that makes a difference."""
    if len(each.modes) == _ALL:
        return "any"
    told = []
    for precision in PRECISIONS:
        memories = [memory for memory in MEMORIES if (precision, memory) in each.modes]
        if memories:
            told.append(precision if len(memories) == len(MEMORIES) else f"{precision} (memory {memories[0]})")
    return ", ".join(told)


_INFINITE = ("nan", "inf", "-inf")


def _remarks(each: Found) -> list[str]:
    """What does not fit into a row: errors, and the first few finite inputs with a wrong answer."""
    name = f"{each.operator} (precision {_modes(each)})" if len(each.modes) < _ALL else each.operator
    if each.behaviour is None:
        return [f"{name}: {each.error}"]
    wrong = [one for one in each.behaviour.wrong if one.label.split(" (")[0] not in _INFINITE]
    if not wrong:
        return []
    told = "; ".join(f"{one.label}: {_short(one.got)}, not {_short(one.expected)}" for one in wrong[:3])
    more = f"; and {len(wrong) - 3} more" if len(wrong) > 3 else ""
    return [f"{name}: {told}{more}"]
