"""`optimum-cli export idetex`: convert's own options, carried over to argparse."""

from __future__ import annotations

import inspect
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from typing import get_type_hints

from export.__main__ import main
from export.command import convert


def declare_options(parser: ArgumentParser) -> None:
    """Declare every option of `python -m export convert` under its name."""
    for name, default, described in _options():
        if isinstance(default, bool):
            parser.add_argument(_flag(name), action="store_true", help=described)
        else:
            required = default is inspect.Parameter.empty
            parser.add_argument(_flag(name), required=required, help=described)


def run(arguments: Namespace | None) -> None:
    """Run the command with the options that were given."""
    given = vars(arguments or Namespace())
    words = ["convert"]
    for name, default, _ in _options():
        value = given[name]
        if isinstance(default, bool):
            words += [_flag(name)] * bool(value)
        elif value is not None:
            words += [_flag(name), str(value)]
    main(words)


def _options() -> Iterator[tuple[str, object, str]]:
    hints = get_type_hints(convert, include_extras=True)
    for name, parameter in inspect.signature(convert).parameters.items():
        yield name, parameter.default, str(hints[name].__metadata__[0].help)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
