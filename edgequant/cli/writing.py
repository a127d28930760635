"""Files that options name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from edgequant.errors import EdgequantError


def write_each(asked: Mapping[str, Path], forms: Mapping[str, Callable[[], str]]) -> None:
    """Write each file that is asked for.  forms: option -> what makes its text.  Raises EdgequantError
    (OUTPUT_UNWRITABLE)."""
    for option, path in asked.items():
        write_text_file(forms[option](), str(path), option, {"--csv": "table", "--html": "page"}.get(option, "file"))


def write_text_file(text: str, path: str, option: str, what: str, hint: str | None = None) -> None:
    """Raises EdgequantError (OUTPUT_UNWRITABLE)."""
    from edgequant.report.write import write_file

    try:
        write_file(text, Path(path), option)
    except OSError as error:
        raise EdgequantError(
            "OUTPUT_UNWRITABLE",
            f"{path} cannot be written: {error.strerror or error}",
            hint=hint
            or f"The report itself is whole: `edgequant report RUN_DIR {option} FILE` makes the {what} from it.",
        ) from None
