"""Commands made of groups of options.  Annotations have to be objects here: the groups are a test's own."""

from typing import Annotated, Any

import pytest
import typer

from edgequant.cli.commands import app
from edgequant.cli.groups import Commands, Group, Key, typed
from edgequant.cli.options import BudgetName, Cases, Device, Making, Running


def options(words: set[str] | None) -> dict[str, list[tuple[str, Any]]]:
    """Of each command: its options with their help."""
    root: Any = typer.main.get_command(app.build(words))
    found: dict[str, list[tuple[str, Any]]] = {}
    waiting = [((), root)]
    while waiting:
        path, command = waiting.pop()
        found[" ".join(path)] = [(each.name, each.help) for each in command.params]
        waiting += [((*path, name), below) for name, below in getattr(command, "commands", {}).items()]
    return found


def test_a_command_that_is_named_has_all_its_options_and_others_have_none() -> None:
    everything = options(None)
    assert {"verify", "devices probe", "pack build"} <= everything.keys()
    assert len(everything["verify"]) > 30
    for words in ({"--help"}, {"verify", "m.onnx", "--json"}, {"devices", "probe", "--help"}, {"pack", "list"}):
        some = options(words)
        assert some.keys() == everything.keys()
        for command, found in some.items():
            # Those of a group are its own, and few.
            if all(word in words for word in command.split()) or command in ("devices", "pack"):
                assert found == everything[command]
    assert options({"--help"})["verify"] == options({"run"})["devices probe"] == []


def test_no_help_names_a_file_that_only_a_checkout_has() -> None:
    helps = [text or "" for found in options(None).values() for _, text in found]
    assert len(helps) > 100
    assert not [text for text in helps if "docs/" in text or "configs/" in text]


def test_what_was_typed_is_what_was_given_by_its_key() -> None:
    assert typed(Cases(), Making(), Running(), Device()) == {}
    given = typed(
        Cases(inputs="cases", shape=["x=1"]),
        Making(no_fallback=True, budget=BudgetName.latency),
        Running(no_latency=True, threads=2, cores="4-7"),
        Device(python="python3.9", accept_new_host_key=True),
    )
    assert given == {
        "inputs": "cases",
        "shapes": ["x=1"],
        "fallback": False,
        "budget": "latency",
        "latency": False,
        "options": {"threads": 2, "cores": "4-7"},
        "device_options": {"python": "python3.9", "accept_new_host_key": True},
    }
    with pytest.raises(TypeError, match="Cases has no threads"):
        Cases(threads=1)


def test_groups_arrive_whole(capsys: pytest.CaptureFixture[str]) -> None:
    class Size(Group):
        section = "size"
        wide: Annotated[int, typer.Option("--wide"), Key("size.width")] = 1

    class Sizes(Size):
        high: Annotated[int, typer.Option("--high")] = 2

    commands = Commands(name="tool", help="Does.")

    @commands.command("do", short_help="Do it.")
    def do(
        what: Annotated[str, typer.Argument()], *, twice: Annotated[bool, typer.Option("--twice")] = False, size: Sizes
    ) -> None:
        """Do it."""
        print(what, twice, size.wide, size.high, typed(size))

    line = ["do", "it", "--wide", "7"]
    commands.command("other", short_help="Another.")(lambda: None)
    typer.main.get_command(commands.build(set(line))).main(line, standalone_mode=False)
    assert capsys.readouterr().out == "it False 7 2 {'size': {'width': 7}}\n"
