"""Running the app: every way it can end becomes an exit code and, for people, one clear line."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

from edgequant.errors import EXIT_ERROR, EXIT_INTERRUPTED, EXIT_USAGE, EdgequantError

if TYPE_CHECKING:
    import typer


def run_main(app: typer.Typer) -> int:
    """Run the app on sys.argv and return the exit code; prints errors, lets no exception out."""
    verbose = bool({"-v", "--verbose"} & set(sys.argv[1:]))
    try:
        return _run(app)
    except EdgequantError as error:
        show_error(error, as_json="--json" in sys.argv[1:], verbose=verbose)
        return error.exit_code
    except KeyboardInterrupt:
        print("edgequant: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader has gone (`| head`): nobody is left to tell, and the interpreter must not try at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_ERROR
    except Exception as error:  # the last line of defence: a bug must not look like a verdict
        if verbose:
            raise
        print(
            f"edgequant: INTERNAL_ERROR: {type(error).__name__}: {error}\n"
            "  This is a bug in edgequant.  Run again with --verbose for where it happened, and report it.",
            file=sys.stderr,
        )
        return EXIT_ERROR


def _run(app: typer.Typer) -> int:
    try:
        # Typer prints its own usage errors and turns ctrl-C into an exit code of its own, so it runs standalone.
        app()
    except SystemExit as end:
        if end.code is None:
            return 0
        return end.code if isinstance(end.code, int) else EXIT_USAGE
    return 0


def show_error(error: EdgequantError, *, as_json: bool, verbose: bool) -> None:
    """One line with the code, the hint below it, and the device's last lines where it said any."""
    # What a device or a model file wrote must not move the cursor.
    print(f"edgequant: {error.code}: {_plain(str(error))}", file=sys.stderr)
    if error.hint:
        print(f"  {_plain(error.hint)}", file=sys.stderr)
    if verbose:
        for key, value in error.evidence.items():
            lines = value if isinstance(value, list) else [value]
            print(f"  {key}:", *(f"    {_plain(str(line))}" for line in lines), sep="\n", file=sys.stderr)
    if as_json:
        print(json.dumps({"schema": "edgequant.error/1", "verdict": "ERROR", "error": error.as_dict()}, default=str))


def _plain(text: str) -> str:
    return "".join(c if c.isprintable() or c == " " else f"\\x{ord(c):02x}" for c in text)
