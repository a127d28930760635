"""Running the app: every way it can end becomes an exit code and, for people, one clear line."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import typer

from edgequant.cli import document, interrupts
from edgequant.cli.streams import StdoutLostError, give_up, prepare
from edgequant.errors import EXIT_ERROR, EXIT_INTERRUPTED, EXIT_USAGE, EdgequantError, InputError
from edgequant.files import host_error
from edgequant.text import printable

if TYPE_CHECKING:
    from edgequant.cli.groups import Commands

_UsageError: Any = typer.BadParameter.__base__
"""Typer's base of "no such option" and the like, which it brings along under a private name."""


def run_main(app: Commands) -> int:
    """Run the app on sys.argv and return the exit code; prints errors, lets no exception out."""
    options = sys.argv[1:]
    as_json, verbose = "--json" in options, bool({"-v", "--verbose"} & set(options))
    prepare()
    try:
        code = interrupts.working(lambda: _run(app))
        sys.stdout.flush()  # the interpreter would do it, and exit with a code of its own where that fails
        return code
    except EdgequantError as error:
        return show_error(error, as_json=as_json, verbose=verbose)
    except KeyboardInterrupt:
        _say("edgequant: interrupted")
        if as_json:
            _print_json(EdgequantError("INTERRUPTED", "interrupted"))
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader has gone (`| head`): nobody is left to tell.
        give_up(1, 2)
        return EXIT_ERROR
    except Exception as error:  # noqa: BLE001  (the last line of defence: a bug must not look like a verdict)
        return _other(error, as_json=as_json, verbose=verbose)


def _other(error: Exception, *, as_json: bool, verbose: bool) -> int:
    """What nobody expected: stdout cannot be written to, this host stopped it, or it is a bug."""
    if isinstance(error, StdoutLostError):
        give_up(1)
        hint = "What it is sent to is full or gone; a run's folder has its report."
        lost = EdgequantError("STDOUT_UNWRITABLE", f"stdout cannot be written to: {error}", hint=hint)
        return show_error(lost, as_json=False, verbose=False)
    if (known := host_error(error)) is not None:
        return show_error(known, as_json=as_json, verbose=verbose)
    if verbose:
        import traceback

        _say(_plain_lines(traceback.format_exc()))
    bug = EdgequantError(
        "INTERNAL_ERROR",
        f"{type(error).__name__}: {error}",
        hint="This is a bug in edgequant.  Run again with --verbose for where it happened, and report it.",
    )
    return show_error(bug, as_json=as_json, verbose=False)


def _say(text: str) -> None:
    print(text, file=sys.stderr)


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


def show_error(error: EdgequantError, *, as_json: bool, verbose: bool) -> int:
    """One line with the code, the hint below it, the last lines where there are some; returns the exit code."""
    # What a device or a model file wrote must not move the cursor.
    _say(f"edgequant: {error.code}: {_plain(str(error))}")
    if error.hint:
        _say(f"  {_plain(error.hint)}")
    if not verbose and isinstance(log := error.evidence.get("log"), str):  # elsewhere it is the last lines themselves
        _say(f"  log: {_plain(log)}")
    if verbose:
        for key, value in error.evidence.items():
            lines = value if isinstance(value, list) else [value]
            _say("\n".join((f"  {key}:", *(f"    {_plain(str(line))}" for line in lines))))
    if as_json:
        _print_json(error)
    return error.exit_code


def _print_json(error: EdgequantError) -> None:
    if document.begun():
        return  # the report is there: a second document behind it could not be read
    import json

    # Of what could not be used nothing is judged: ERROR is the verdict of what was to be run, and could not be.
    verdict = "ERROR" if error.exit_code == EXIT_ERROR else None
    found = {"schema": "edgequant.error/1", "verdict": verdict, "error": error.as_dict()}
    try:
        print(json.dumps(found, indent=2, default=str), flush=True)
    except (OSError, StdoutLostError):
        give_up(1)  # nobody reads it


def _plain_lines(text: str) -> str:
    return "\n".join(map(_plain, text.splitlines()))


def _plain(text: str) -> str:
    return printable(text, sys.stderr.encoding or "utf-8")
