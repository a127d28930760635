"""Running the app: every way it can end becomes an exit code and, for people, one clear line."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import TYPE_CHECKING, Any

import typer

from edgequant.cli import document, interrupts
from edgequant.errors import EXIT_ERROR, EXIT_INTERRUPTED, EXIT_USAGE, EdgequantError, InputError

if TYPE_CHECKING:
    from edgequant.cli.groups import Commands

_UsageError: Any = typer.BadParameter.__base__
"""Typer's base of "no such option" and the like, which it brings along under a private name."""


def run_main(app: Commands) -> int:
    """Run the app on sys.argv and return the exit code; prints errors, lets no exception out."""
    options = sys.argv[1:]
    as_json, verbose = "--json" in options, bool({"-v", "--verbose"} & set(options))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # not every locale can show every name
    try:
        return interrupts.working(lambda: _run(app))
    except EdgequantError as error:
        show_error(error, as_json=as_json, verbose=verbose)
        return error.exit_code
    except KeyboardInterrupt:
        print("edgequant: interrupted", file=sys.stderr)
        if as_json:
            _print_json(EdgequantError("INTERRUPTED", "interrupted"))
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader has gone (`| head`): nobody is left to tell, and the interpreter must not try at exit.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        return EXIT_ERROR
    except Exception as error:  # noqa: BLE001  (the last line of defence: a bug must not look like a verdict)
        if verbose:
            import traceback

            traceback.print_exc()
        bug = EdgequantError(
            "INTERNAL_ERROR",
            f"{type(error).__name__}: {error}",
            hint="This is a bug in edgequant.  Run again with --verbose for where it happened, and report it.",
        )
        show_error(bug, as_json=as_json, verbose=False)
        return EXIT_ERROR


def _run(app: Commands) -> int:
    if "_EDGEQUANT_COMPLETE" in os.environ:
        app.build(None)()  # a shell asks for completions: Typer answers and exits
    command: Any = typer.main.get_command(app.build(set(sys.argv[1:])))
    try:
        # Not app(): that prints errors in its own way, and exits with 1, which is FAIL, where a pipe breaks.
        with command.make_context("edgequant", sys.argv[1:]) as context:
            command.invoke(context)
    except typer.Exit as end:
        return end.exit_code
    except _UsageError as error:
        return _usage(error)
    except SystemExit as end:
        # Nothing of ours does this; 1 would be read as a verdict.
        return EXIT_ERROR if end.code == 1 else end.code if isinstance(end.code, int) else EXIT_USAGE
    return 0


def _usage(error: Any) -> int:
    """A command line that cannot be understood, as an InputError."""
    if type(error).__name__ == "NoArgsIsHelpError":
        if message := error.format_message():
            print(message, file=sys.stderr)
        return EXIT_USAGE
    where = error.ctx.command_path if error.ctx is not None else "edgequant"
    raise InputError(
        "USAGE", error.format_message().rstrip("."), hint=f"`{where} --help` shows what can be given."
    ) from None


def show_error(error: EdgequantError, *, as_json: bool, verbose: bool) -> None:
    """One line with the code, the hint below it, and the device's last lines where it said any."""
    # What a device or a model file wrote must not move the cursor.
    print(f"edgequant: {error.code}: {_plain(str(error))}", file=sys.stderr)
    if error.hint:
        print(f"  {_plain(error.hint)}", file=sys.stderr)
    if not verbose and isinstance(log := error.evidence.get("log"), str):  # elsewhere it is the last lines themselves
        print(f"  log: {_plain(log)}", file=sys.stderr)
    if verbose:
        for key, value in error.evidence.items():
            lines = value if isinstance(value, list) else [value]
            print(f"  {key}:", *(f"    {_plain(str(line))}" for line in lines), sep="\n", file=sys.stderr)
    if as_json:
        _print_json(error)


def _print_json(error: EdgequantError) -> None:
    if document.begun():
        return  # the report is there: a second document behind it could not be read
    import json

    # Of what could not be used nothing is judged: ERROR is the verdict of what was to be run, and could not be.
    verdict = "ERROR" if error.exit_code == EXIT_ERROR else None
    found = {"schema": "edgequant.error/1", "verdict": verdict, "error": error.as_dict()}
    with contextlib.suppress(BrokenPipeError):
        print(json.dumps(found, indent=2, default=str), flush=True)


def _plain(text: str) -> str:
    return "".join(c if c.isprintable() or c == " " else f"\\x{ord(c):02x}" for c in text)
