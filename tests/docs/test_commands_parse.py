"""Every command line of the README and of docs/ is one that edgequant takes: parsed by its real options, not run."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from edgequant.cli.commands import app
from edgequant.spec import Limit, Variant

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands(page: Path) -> list[list[str]]:
    blocks = re.findall(r"```console\n(.*?)```", page.read_text(), re.DOTALL)
    lines = [line[2:] for block in blocks for line in block.splitlines() if line.startswith("$ ")]
    return [words for words in (shlex.split(line, comments=True) for line in lines) if words[0] == "edgequant"]


def parse(words: list[str]) -> dict[str, Any]:
    """What its command would be called with.  Raises Typer's usage errors."""
    command: Any = typer.main.get_command(app.build(None))
    name, rest, context = words[0], words[1:], None
    while True:
        context = command.make_context(name, rest, parent=context)
        if not hasattr(command, "resolve_command"):
            return context.params  # type: ignore[no-any-return]
        name, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])


COMMANDS = [pytest.param(words, id=f"{page.stem}: {shlex.join(words)}") for page in PAGES for words in commands(page)]


@pytest.mark.parametrize("words", COMMANDS)
def test_every_command_is_understood(words: list[str]) -> None:
    given = parse(words)
    for text in given.get("variant") or ():
        Variant.parse(text)
    for text in given.get("limit") or ():
        Limit.parse(text)


def test_there_are_commands() -> None:
    assert len(COMMANDS) >= 30
    assert {page.name for page in PAGES if commands(page)} >= {"README.md", "devices.md", "quantization.md"}


@pytest.mark.parametrize("line", ["edgequant verfy m", "edgequant verify m --devise local:", "edgequant devices scan"])
def test_what_it_does_not_take_is_noticed(line: str) -> None:
    with pytest.raises(typer.BadParameter.__base__):  # type: ignore[arg-type]
        parse(shlex.split(line))


def options(command: Any) -> set[str]:
    own = {name for each in command.params for name in (*each.opts, *each.secondary_opts)}
    return own.union(*map(options, getattr(command, "commands", {}).values()))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_option_it_names_exists(page: Path) -> None:
    """In its text too, but for those of other programs."""
    others = {"--help", "--useOriginRNNImpl", "--model"}
    others |= {"--only", "--quick", "--pairs", "--redo", "--timed"}  # of python -m bench
    others |= {"--part"}  # of python -m tests.defects.layers
    others |= {"--extensions", "--node_data_paths"}  # of Model Explorer
    named = set(re.findall(r"(?<![\w-])--[a-z][\w-]+", page.read_text()))
    assert named - options(typer.main.get_command(app.build(None))) - others == set()
