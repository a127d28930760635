"""What a command writes never replaces what it reads."""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Sequence
from pathlib import Path

from edgequant.errors import InputError
from edgequant.files import is_stream, same_file
from edgequant.plan.request import Request
from edgequant.spec.function import looks_like_function

_SUFFIXES = {"--junit": ".xml", "--summary": ".md", "--openmetrics": ".txt"}


def named_files(files: object, names: Sequence[str]) -> dict[str, Path]:
    """Option -> the file it names, of those of `names` that were given.  Raises InputError (OUTPUT_INVALID)."""
    given = {name: path for name in names if (path := getattr(files, name, None)) is not None}
    for name, path in given.items():
        if not path:
            raise InputError(
                "OUTPUT_INVALID", f"--{name}: an empty name", hint="Is the variable set that it was taken from?"
            )
    return {f"--{name}": Path(path) for name, path in given.items()}


def given_paths(request: Request) -> list[Path]:
    """The files and folders a request reads besides its model: cases, references, calibration data, recipes."""
    given = [request.inputs, request.reference, _calibration_path(request.calibration)]
    given += [Path(variant.file) for variant in request.variants if variant.file is not None]
    return [path for path in given if path is not None]


def _calibration_path(source: str | None) -> Path | None:
    """The file or folder that calibration data comes from; None for none, and for a module."""
    if source is None:
        return None
    file = source.rpartition(":")[0] if looks_like_function(source) else source
    return Path(file) if os.path.lexists(file) else None


def _place(path: Path) -> Path:
    """An MNN test folder may be given as its input.json."""
    return path.parent if path.name == "input.json" else path


def refuse_unwritable(output: Path) -> None:
    """Raise InputError (OUTPUT_INVALID) where `output` is neither a file, nor a folder, nor what can be written to, or
    cannot be a name."""
    try:
        mode = output.stat().st_mode
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise InputError("OUTPUT_INVALID", f"{output}: {why}") from None
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or is_stream(output)):
        raise InputError("OUTPUT_INVALID", f"{output}: is neither a file nor a folder, and not written to")


def refuse_overwriting(output: Path, model: Path, what: str, *given: Path | None) -> None:
    """Raise InputError (OUTPUT_INVALID) where writing `output` would replace the model, or what was given: files, or
    folders with everything in them.  `output` may be a folder too, which is filled with CASE.npz."""
    refuse_unwritable(output)
    if same_file(output, model):
        raise InputError("OUTPUT_INVALID", f"{output}: is {what}, which is never overwritten")
    for path in given:
        if path is None:
            continue
        place = _place(path)
        inside = place.is_dir() and output.resolve().is_relative_to(place.resolve())
        if inside or same_file(output, place):
            raise InputError(
                "OUTPUT_INVALID",
                f"{output}: is or lies in {path}, which was given and is never overwritten",
                hint="Choose another place for -o.",
            )
        files = list(place.iterdir()) if place.is_dir() else [place]
        if output.is_dir() and (
            hit := next((file for file in files if same_file(output / f"{file.stem}.npz", file)), None)
        ):
            raise InputError(
                "OUTPUT_INVALID",
                f"{output}: holds {hit}, which was given and is never overwritten",
                hint="Choose another folder for -o.",
            )


def refuse_table(table: Path, needed: Sequence[Path], *, run_dir: Path | None = None, option: str = "--csv") -> None:
    """Raise InputError (OUTPUT_INVALID) where a table, or a page, would replace one of the needed files or folders, or
    a file in such a folder, or may be a record of a run, or has no folder that may be written to.

    Args:
        run_dir: of the run that the table is of, or a file in it; it may come to be before the table does.
        option: that names the table.
    """
    hint, suffix = "Name a file of its own.", _SUFFIXES.get(option, f".{option.lstrip('-')}")
    refuse_unwritable(table)
    if is_stream(table):
        return
    if run_dir is not None:
        if (run_dir.parent / "plan.json").exists():
            run_dir = run_dir.parent
        if table.suffix != suffix and table.resolve().is_relative_to(run_dir.resolve()):
            raise InputError(
                "OUTPUT_INVALID",
                f"{table}: in the folder of a run, the file that {option} names has to end in {suffix}",
                hint=hint,
            )
    if table.is_dir():
        raise InputError("OUTPUT_INVALID", f"{table}: is a folder", hint=hint)
    resolved = table.resolve()
    for path in needed:
        place = _place(path)
        # In a folder that was given, a table of its own harms nobody.
        inside = os.path.lexists(table) and place.is_dir() and resolved.is_relative_to(place.resolve())
        if inside or resolved == place.resolve() or same_file(table, place):
            raise InputError(
                "OUTPUT_INVALID", f"{table}: {option} names a file that this command needs itself", hint=hint
            )
    require_folder(table, option, run_dir)


def require_folder(table: Path, option: str, run_dir: Path | None = None) -> None:
    """Raise InputError (OUTPUT_INVALID) where the folder of a file to be written is not there, or takes none.

    run_dir: a folder that comes to be before the file does."""
    folder = table.parent
    if not folder.is_dir():
        if run_dir is None or folder.resolve() != run_dir.resolve():
            make = f"Make it first: mkdir -p {shlex.quote(str(folder))}"
            raise InputError("OUTPUT_INVALID", f"{table}: there is no folder {folder}", hint=make)
    elif not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(
            "OUTPUT_INVALID",
            f"{table}: you may not write into the folder {folder}",
            hint=f"Choose another for {option}.",
        )
