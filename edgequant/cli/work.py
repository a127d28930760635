"""`edgequant work`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import typer
from rich.table import Table
from rich.text import Text

from edgequant.cli.console import CliProgress, out, print_json
from edgequant.cli.options import Ui
from edgequant.errors import EXIT_FAIL, InputError
from edgequant.jobs.work import Compared, compare, work
from edgequant.plain import printable
from edgequant.spec import MemoryMode, Precision
from edgequant.work.count import Work

_SHOWN = 12


def run(
    model: str, device: str, *, against: str | None, most: float | None, inputs: str | None, memory: str,
    precision: str, seed: int, qemu: str | None, ui: Ui,
) -> None:  # fmt: skip
    """Count, show; exits with 1 where there is more than was allowed."""
    for option, value, known in (("memory", memory, MemoryMode), ("precision", precision, Precision)):
        if value not in get_args(known):
            raise InputError("OPTION_INVALID", f"--{option} {value}: it is one of {', '.join(get_args(known))}")
    if most is not None and against is None:
        raise InputError("OPTION_INVALID", "--most is for two models", hint="Name the other with --against.")
    paths = [Path(each) for each in (model, against) if each is not None]
    found = work(
        paths, device, inputs=None if inputs is None else Path(inputs), memory=memory, precision=precision, seed=seed,  # type: ignore[arg-type]
        qemu=qemu, progress=CliProgress(ui),
    )  # fmt: skip
    told = compare(*found) if against is not None else None
    _show(paths, device, found, told, ui)
    if ui.json:
        print_json(json.dumps(_as_dict(paths, device, found, told), indent=1))
    if told is not None and most is not None and 100 * told.share > most:
        raise typer.Exit(EXIT_FAIL)


def _show(paths: Sequence[Path], device: str, found: Sequence[Work], told: Compared | None, ui: Ui) -> None:
    console = out(ui)
    head = f"Instructions of an inference on {printable(device)}, one thread (work, no time)"
    console.print(head, markup=False, soft_wrap=True)
    width = max(len(printable(str(path))) for path in paths)
    for path, each in zip(paths, found, strict=True):
        line = f"{printable(str(path)):<{width}}  {each.instructions:>15,}"
        console.print(f"{line}  (inferences: +-{100 * each.spread:.2g} %)", markup=False, soft_wrap=True)
    if told is not None:
        more = "more" if told.share > 0 else "less"
        said = f"{100 * abs(told.share):.2f} % {more}" if told.sure else "no difference that inferences do not have"
        console.print(f"The first takes {said}.", markup=False)
    rows: list[tuple[str, ...]]
    if told is not None:
        heads = ["operator", "type", "first", "second", "more"]
        rows = [(name, kind, f"{a:,}", f"{b:,}", f"{a - b:+,}") for name, kind, a, b in told.operators]
    else:
        heads = ["operator", "type", "instructions", "%"]
        total = max(sum(each.instructions for each in found[0].operators), 1)
        ordered = sorted(found[0].operators, key=lambda each: -each.instructions)
        rows = [
            (each.name, each.type, f"{each.instructions:,}", f"{100 * each.instructions / total:.1f}")
            for each in ordered
        ]
    if not found[0].operators:
        console.print("By operator nothing is known: MNN does not tell those of models with loops.", markup=False)
    elif rows:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for place, head in enumerate(heads):
            table.add_column(head, justify="left" if place < 2 else "right", overflow="fold")
        for row in rows if ui.verbose else rows[:_SHOWN]:
            table.add_row(*(Text(printable(cell)) for cell in row))
        console.print(table)
        if len(rows) > _SHOWN and not ui.verbose:
            console.print(f"and {len(rows) - _SHOWN} more (--verbose shows them)", markup=False)


def _as_dict(paths: Sequence[Path], device: str, found: Sequence[Work], told: Compared | None) -> dict[str, Any]:
    """The JSON document (schema ``edgequant.work/1``)."""
    return {
        "schema": "edgequant.work/1",
        "device": device,
        "models": [
            {
                "path": str(path),
                "instructions": each.instructions,
                "inferences": list(each.counted),
                "spread": each.spread,
                "operators": [
                    {"name": one.name, "type": one.type, "instructions": one.instructions} for one in each.operators
                ],
            }
            for path, each in zip(paths, found, strict=True)
        ],
        "more": None if told is None else told.share,
        "more_is_sure": None if told is None else told.sure,
    }
