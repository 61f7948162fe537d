"""The threat model: what an adversary may do to an image.

This file holds the data only and imports no torch; its geometry is in `zoo.ball`.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict

from zoo.errors import UserError, nearest
from zoo.numerals import decimal

Norm = Literal["Linf", "L2", "L1"]
NORMS: tuple[Norm, ...] = get_args(Norm)


def parse_norm(text: str) -> Norm:
    """Reads a norm in any case; raises `UserError` with the nearest name."""
    for norm in NORMS:
        if text.lower() == norm.lower():
            return norm
    raise UserError(f"unknown norm '{text}'; {nearest(text, NORMS)}")


def parse_eps(value: Any) -> float:
    """Reads a radius given as a number, a decimal text or a fraction like '8/255'.

    Raises:
        UserError: not a number, NaN, infinite, zero or negative.
    """
    try:
        if isinstance(value, bool):
            raise TypeError
        if isinstance(value, str) and "/" in value:
            above, below = value.split("/")
            eps = decimal(above) / decimal(below)
        else:
            eps = decimal(value) if isinstance(value, str) else float(value)
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        raise UserError(
            f"eps must be a number or a fraction such as 8/255, not '{value}'"
        ) from None
    if not math.isfinite(eps) or eps <= 0:
        raise UserError(
            f"eps must be positive and finite, not {value}; "
            "for the clean accuracy alone use --attacks none"
        )
    return eps


Eps = Annotated[float, BeforeValidator(parse_eps)]


class ThreatModel(BaseModel):
    """A norm ball around each image, cut to the pixel range [0, 1].

    Every result carries one. Pixels are raw, before any normalisation.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    norm: Norm
    eps: Eps
    """Radius in the units of pixels in [0, 1]: 8 / 255, not 8."""

    @property
    def order(self) -> float:
        """p of the L_p norm."""
        return {"Linf": math.inf, "L2": 2.0, "L1": 1.0}[self.norm]

    def check_units(self, shape: tuple[int, ...]) -> None:
        """Raises `UserError` if the ball swallows every image of this shape.

        An eps as large as the diameter of the pixel box is meaningless; in practice
        it means that the radius was given for pixels in 0-255.
        """
        dim = math.prod(shape)
        diameter = float(dim ** (1 / self.order))  # of [0, 1]^dim; 1 for Linf
        if self.eps >= diameter:
            raise UserError(
                f"eps {self.eps:g} in {self.norm} reaches any image from any other "
                f"(pixels are in [0, 1]); did you mean {self.eps:g}/255?"
            )

    def tolerance(self, shape: tuple[int, ...]) -> float:
        """How far beyond eps float32 rounding may carry an honest adversarial.

        One unit in the last place at 1.0 (2^-23) in every pixel, measured in this
        norm, plus a relative 1e-6 for the projection's own division.
        """
        dim = math.prod(shape)
        return float(2.0**-23 * dim ** (1 / self.order) + 1e-6 * self.eps)

    def __str__(self) -> str:
        scaled = self.eps * 255
        whole = round(scaled)
        if self.norm == "Linf" and whole > 0 and abs(scaled - whole) < 1e-6:
            return f"{self.norm} {whole}/255"
        return f"{self.norm} {self.eps:g}"
