"""Options in groups, and commands made of groups.

An option is declared once, as a field of a `Group`: its name, its type, its default, what `--help` says of it and,
where it is not its own name, its key in a spec file.  A command names the groups it takes as parameters and gets them
whole; on the command line each of their options is one of its own.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Collection, Iterator
from enum import Enum
from typing import Any, ClassVar, NamedTuple, get_type_hints

import typer


class Key(NamedTuple):
    """The place of an option in a spec file, dotted, where it is not its own name in the section of its group.

    negated: a flag that says no, of a key that says yes.
    """

    name: str
    negated: bool = False


class Option(NamedTuple):
    """One field of a group.

    key: dotted, of the spec file; None where a spec has none, as what is shown is not part of what is checked.
    """

    name: str
    annotation: Any
    default: Any
    key: str | None
    negated: bool


class Group:
    """Base of option groups: ``name: Annotated[type, typer.Option(...)] = default`` for each option.

    Attributes:
        section: where a spec file has these options: "" at its top, None not at all.
    """

    section: ClassVar[str | None] = None

    def __init__(self, **given: Any) -> None:
        for option in self.options():
            setattr(self, option.name, given.pop(option.name, option.default))
        if given:
            raise TypeError(f"{type(self).__name__} has no {', '.join(given)}")

    @classmethod
    def options(cls) -> Iterator[Option]:
        """The options, those of the base first."""
        for base in reversed(cls.__mro__):
            for name, annotation in inspect.get_annotations(base).items():
                if name == "section":
                    continue
                own = Key(f"{cls.section}.{name}" if cls.section else name)
                key = next((each for each in annotation.__metadata__ if isinstance(each, Key)), own)
                where = None if cls.section is None else key.name
                yield Option(name, annotation, getattr(cls, name), where, key.negated)


def typed(*groups: Group) -> dict[str, Any]:
    """What was typed, by its key in a spec file, in sections as there; what was left out is not there."""
    found: dict[str, Any] = {}
    for group in groups:
        for option in group.options():
            value = getattr(group, option.name)
            if option.key is None or value == option.default:
                continue
            section, _, name = option.key.rpartition(".")
            value = not value if option.negated else value.value if isinstance(value, Enum) else value
            (found.setdefault(section, {}) if section else found)[name] = value
    return found


class Commands:
    """Commands under one name, and further such below it.

    Typer makes every option of every command before it prints as much as their names, which takes longer than all else
    that `--help` does.  So the options of a command are made, and the module that declares them is imported, only where
    the command line has its name.

    Args:
        opt: the module that is `opt` in the commands' annotations.
        settings: Typer's.
    """

    def __init__(self, *, opt: str | None = None, **settings: Any) -> None:
        self._opt = opt
        self._settings = settings
        self._commands: list[tuple[str, str, Callable[..., None]]] = []
        self._below: dict[str, Commands] = {}

    def command(self, name: str, *, short_help: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
        """Declare a command.  Its function takes parameters of Typer's kind and groups, and says in its docstring what
        it does."""

        def declare(function: Callable[..., None]) -> Callable[..., None]:
            self._commands.append((name, short_help, function))
            return function

        return declare

    def below(self, name: str, **settings: Any) -> Commands:
        """Commands that follow one more word."""
        return self._below.setdefault(name, Commands(opt=self._opt, **settings))

    def build(self, words: Collection[str] | None) -> typer.Typer:
        """The Typer app that understands a command line of these words; None for any command line."""
        app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, **self._settings)
        for name, short_help, function in self._commands:
            wanted = words is None or name in words
            app.command(name, short_help=short_help)(self._flat(function) if wanted else _unnamed)
        for name, commands in self._below.items():
            app.add_typer(commands.build(words), name=name)
        return app

    def _flat(self, function: Callable[..., None]) -> Callable[..., None]:
        """The function as Typer takes it: with the options of its groups for its parameters."""
        known = {} if self._opt is None else {"opt": importlib.import_module(self._opt)}
        hints = get_type_hints(function, localns=known, include_extras=True)
        parameters: list[inspect.Parameter] = []
        groups: dict[str, type[Group]] = {}
        for name, parameter in inspect.signature(function).parameters.items():
            hint = hints[name]
            if isinstance(hint, type) and issubclass(hint, Group):
                groups[name] = hint
                found = [(option.name, option.annotation, option.default) for option in hint.options()]
            else:
                found = [(name, hint, parameter.default)]
            parameters += [
                inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)
                for name, annotation, default in found
            ]

        def call(**given: Any) -> None:
            made = {
                name: group(**{each.name: given.pop(each.name) for each in group.options()})
                for name, group in groups.items()
            }
            function(**given, **made)

        call.__doc__ = function.__doc__
        call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        call.__annotations__ = {each.name: each.annotation for each in parameters}
        return call


def _unnamed() -> None:
    """Stands for a command that this command line does not name."""
