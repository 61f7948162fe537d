"""How `robrep-eval run` takes its options: once each, in lists, or from a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import rich_click as click
from click.core import ParameterSource
from click.types import StringParamType

from zoo import yaml_text
from zoo.errors import UserError, nearest

LEFT_OUT = ("config", "help")
"""Options that a file cannot hold."""


class Words(StringParamType):
    """Text that may be given several times; from the environment, one on each line."""

    envvar_list_splitter = "\n"


class OnceCommand(click.RichCommand):
    """Refuses an option that is given twice and takes one value.

    The usual way, the last one wins, evaluates something else than was asked for.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        _, _, order = self.make_parser(ctx).parse_args(args=list(args))
        for param in order:
            one = isinstance(param, click.Option) and not (
                param.multiple or param.count or param.is_flag
            )
            if one and order.count(param) > 1:
                raise click.UsageError(
                    f"{param.opts[0]} is given twice; it takes one value", ctx
                )
        return super().parse_args(ctx, args)


def read_config(
    context: click.Context, _: click.Parameter, path: Path | None
) -> Path | None:
    """Has the options in a YAML file stand in for the defaults.

    Raises:
        UserError: no YAML, an option that there is not (with the nearest), a value
            that is no option's.
    """
    if path is None:
        return None
    content = yaml_text.read(path)
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no options, such as 'model: zoo:tarrl-digits'")
    known = {
        word.lstrip("-"): param
        for param in context.command.params
        if isinstance(param, click.Option) and param.name not in LEFT_OUT
        for word in param.opts
        if word.startswith("--")
    }
    found: dict[str, Any] = {}
    for key, value in content.items():
        name = str(key).replace("_", "-")
        if name not in known:
            raise UserError(f"{path}: no option '{key}'; {nearest(name, known)}")
        param = known[name]
        assert param.name is not None
        if param.name in found:
            raise UserError(f"{path}: '{key}' is {param.opts[0]}, which is there twice")
        if value is not None:
            found[param.name] = _value(value, param, f"{path}: {key}")
    context.default_map = found
    return path


def _value(value: Any, param: click.Option, where: str) -> Any:
    """As words of a command line would be, from which click reads them."""
    if param.is_flag:
        if not isinstance(value, bool):
            raise UserError(f"{where} is true or false, not {value!r}")
        return value
    many = value if isinstance(value, list) else [value]
    if any(isinstance(one, (dict, list, bool)) or one is None for one in many):
        raise UserError(f"{where} is text, a number or a list of them, not {value!r}")
    if param.multiple:
        return [str(one) for one in many]
    if isinstance(value, list):
        raise UserError(f"{where} takes one value, not {value!r}")
    return str(value)


def typed(context: click.Context, words: Sequence[str]) -> list[str]:
    """The words of a command with those of its file in the file's place.

    So what is recorded says all, and needs no file.
    """
    held = context.default_map or {}
    found: list[str] = []
    skip = False
    for word in words:
        if skip or word.startswith("--config="):
            skip = False
        elif word == "--config":
            skip = True
        else:
            found.append(word)
    for param in context.command.params:
        source = context.get_parameter_source(param.name or "")
        if param.name not in held or source is not ParameterSource.DEFAULT_MAP:
            continue
        value = held[param.name]
        if isinstance(value, bool):
            found += [param.opts[0]] * value
        else:
            many = value if isinstance(value, list) else [value]
            found += [word for one in many for word in (param.opts[0], one)]
    return found
