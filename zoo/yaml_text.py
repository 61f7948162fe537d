"""YAML of settings: JSON's values in another spelling, and nothing that YAML adds.

No dates, binary values or sets, no aliases, which can grow without end, and no key
twice, of which the last would win without a word.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from zoo import budgets
from zoo.errors import UserError

ADDED = ("timestamp", "binary", "omap", "pairs", "set")
"""Tags that have no counterpart in JSON."""


class _Loader(yaml.SafeLoader):
    """Reads a date as the text that it is."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise budgets.BudgetError("it has an alias (*name); write the value out")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise ValueError(f"it says '{key.value}' twice")
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else id(key))
        return super().construct_mapping(node, deep)


_TAGS = {f"tag:yaml.org,2002:{name}" for name in ADDED}
_Loader.yaml_constructors = {
    tag: made
    for tag, made in yaml.SafeLoader.yaml_constructors.items()
    if tag not in _TAGS
}
_Loader.yaml_implicit_resolvers = {
    first: [(tag, form) for tag, form in forms if tag not in _TAGS]
    for first, forms in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def parse(text: str, name: str) -> Any:
    """Parses YAML; raises `UserError` that calls it `name` if it is broken."""
    try:
        with budgets.naming(name):
            budgets.check(len(text), budgets.SETTINGS_BYTES, "characters")
            content = yaml.load(text, _Loader)
            budgets.check_values(content)
            return content
    except UserError:
        raise
    except RecursionError:
        raise UserError(
            f"{name} is refused: it is nested more than {budgets.DEPTH} deep"
        ) from None
    except Exception as error:  # "!!int x" fails in all ways there are
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{name} is not valid YAML: {reason}") from None


def read(path: Path) -> Any:
    """Reads a YAML file; raises `UserError` that names it."""
    try:
        text = budgets.read_bytes(path, budgets.SETTINGS_BYTES).decode()
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not valid YAML: {error}") from None
    return parse(text, str(path))
