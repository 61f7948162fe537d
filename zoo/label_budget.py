"""How many labels of a training split a probe may use, as people write it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from zoo.errors import UserError
from zoo.numerals import decimal, whole


@dataclass(frozen=True)
class LabelBudget:
    """How many training images may be used with their labels."""

    text: str
    """ "10%" or "500"."""
    amount: float
    """Share in (0, 1], or a number of images."""
    is_share: bool

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads "1%", "10%" or a number of images.

        Raises:
            UserError: anything else, a share outside (0, 100], or no image at all.
        """
        word = text.strip()
        is_share = word.endswith("%")
        try:
            amount = decimal(word.removesuffix("%")) / 100 if is_share else whole(word)
        except ValueError:
            raise UserError(
                f"--labels '{text}' is neither a share such as 10% nor a number of "
                "images such as 500"
            ) from None
        if not (0 < amount <= 1 if is_share else amount >= 1):
            raise UserError(
                f"--labels '{text}' is out of range: write a share above 0% and up to "
                "100%, or a number of at least 1"
            )
        return cls(f"{100 * amount:g}%" if is_share else f"{amount}", amount, is_share)

    def count(self, n: int) -> int:
        """Number of images out of n."""
        return round(self.amount * n) if self.is_share else int(self.amount)
