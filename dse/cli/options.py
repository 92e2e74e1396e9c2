"""Options and arguments that several commands share, with their shell completion."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from dse.core.errors import UsageError

Command = TypeVar("Command", bound=Callable[..., Any])


def _complete_models(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from dse.flow.workload import available_models

    items = [
        CompletionItem(name, help=text) for name, text in available_models().items() if name.startswith(incomplete)
    ]
    return [*items, CompletionItem(incomplete, type="file")]


def _complete_accelerators(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from dse.core import registry
    from dse.flow.accelerator import presets

    names = [*presets(), *registry.names(registry.BACKENDS)]
    items = [CompletionItem(name) for name in names if name.startswith(incomplete)]
    return [*items, CompletionItem(incomplete, type="file")]


def quiet_option(function: Command) -> Command:
    """`--quiet`: no progress."""
    return click.option("--quiet", is_flag=True, help="No progress and no tables.")(function)


def workload_option(function: Command) -> Command:
    """`--workload MODEL`."""
    return click.option(
        "--workload",
        required=True,
        metavar="MODEL",
        shell_complete=_complete_models,
        help="zoo:NAME or a model file; see dse list models.",
    )(function)


def accelerator_option(function: Command) -> Command:
    """`--accelerator DESIGN`."""
    return click.option(
        "--accelerator",
        required=True,
        metavar="DESIGN",
        shell_complete=_complete_accelerators,
        help="A preset, a family, or a YAML file; see dse list presets.",
    )(function)


def dims_option(function: Command) -> Command:
    """`--dim NAME=VALUE`, repeatable."""
    return click.option(
        "--dim", "dims", multiple=True, metavar="NAME=VALUE", help="Value of a symbolic dimension; repeatable."
    )(function)


def parse_dims(dims: tuple[str, ...]) -> dict[str, int]:
    """NAME=VALUE pairs as a mapping.

    Raises
    ------
    UsageError: not NAME=VALUE, or the value is not a positive integer below 2**31.
    """
    result: dict[str, int] = {}
    for item in dims:
        name, equals, text = item.partition("=")
        if not name or not equals:
            raise UsageError(f"--dim {item!r} is not NAME=VALUE, such as N=1")
        if not (text.isascii() and text.isdigit() and len(text) <= 10 and 1 <= int(text) < 2**31):
            raise UsageError(f"--dim {name}: {text!r} is not an integer in 1..{2**31 - 1}")
        result[name] = int(text)
    return result
