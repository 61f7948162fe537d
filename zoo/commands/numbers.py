"""Types of numbers on command lines; see `zoo.numerals`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import rich_click as click

from zoo import numerals


class _Strict:
    """Text is read by `read` before click's own type sees it."""

    read: Callable[[str], float]
    kind: str

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Any:
        """As click's; one line for what is no such number."""
        if isinstance(value, str):
            try:
                value = type(self).read(value)
            except ValueError:
                self.fail(f"'{value}' is not {self.kind}.", param, ctx)  # type: ignore[attr-defined]
        return super().convert(value, param, ctx)  # type: ignore[misc]

    def _describe_range(self) -> str:
        """As click's; nothing for --help to show where there is no range."""
        if self.min is None and self.max is None:  # type: ignore[attr-defined]
            return ""
        return super()._describe_range()  # type: ignore[misc,no-any-return]


class Whole(_Strict, click.IntRange):
    """Whole numbers in a range, if one is given."""

    read = staticmethod(numerals.whole)
    kind = "a whole number such as 12"


class Decimal(_Strict, click.FloatRange):
    """Finite numbers in a range, if one is given."""

    read = staticmethod(numerals.decimal)
    kind = "a number such as 0.5 or 1e-3"


WHOLE = Whole()
DECIMAL = Decimal()
