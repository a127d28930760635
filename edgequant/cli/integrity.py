"""`edgequant report --verify`."""

from __future__ import annotations

import json

from rich.text import Text

from edgequant.cli.console import out, print_json
from edgequant.cli.options import Files, Ui
from edgequant.cli.report import asked_for
from edgequant.errors import InputError
from edgequant.plain import printable
from edgequant.text import shortened

_MOST = 20


def run(run_dir: str | None, *, files: Files, against: str | None, ui: Ui) -> None:
    """Say whether the folder is what it was.  Raises InputError (RUN_ALTERED), with each file, where it is not."""
    from edgequant.jobs.integrity import check

    if asked_for(files) or against is not None:
        raise InputError("OPTION_INVALID", "--verify only looks at a folder", hint="Leave the other options away.")
    if run_dir is None:
        raise InputError("OPTION_INVALID", "which run?", hint="Give its folder: edgequant report --verify RUN_DIR")
    found = check(run_dir)
    console = out(ui)
    words = [f"{each.what}  {each.file}{f': {each.why}' if each.why else ''}" for each in found.differences]
    shown = words if ui.verbose else words[:_MOST]
    more = [f"and {len(words) - len(shown)} more: --verbose names them"] if len(words) > len(shown) else []
    for line in [*shown, *more, *(f"note: {each}" for each in found.notes)]:
        console.print(Text(printable(shortened(line))), soft_wrap=True)
    if found.holds:
        what = "manifest.json has them" if found.listed else "their names and the journal have them"
        told = f"{found.files} files are as {what}"
        console.print(Text(printable(f"Unaltered: {told}  {found.folder}")), soft_wrap=True)
        if ui.json:
            document = {"schema": "edgequant.integrity/1", "holds": True, "files": found.files, "listed": found.listed,
                        "notes": list(found.notes)}  # fmt: skip
            print_json(json.dumps(document, indent=2))
        return
    names = ", ".join(each.file for each in found.differences[:3])
    raise InputError(
        "RUN_ALTERED",
        f"{found.folder}: {len(found.differences)} of its files are not what they were: {names}"
        + (", ..." if len(found.differences) > 3 else ""),
        hint="Make the run again, or take the folder from where it was kept.",
        evidence={
            "differences": [{"file": each.file, "what": each.what, "why": each.why} for each in found.differences],
            "files": found.files, "listed": found.listed, "notes": list(found.notes),
        },
    )  # fmt: skip
