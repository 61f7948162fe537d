"""Images brought to the size that a foreign model was made for."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from zoo.errors import UserError, nearest

RESAMPLING = ("bilinear", "bicubic")


class Resized(nn.Module):
    """A model of another library behind a differentiable resize.

    Args:
        model: Maps images (N, C, S, S) to features (N, d) by `features`.
        resize: Height and width S, or None to leave images as they are.
        resample: One of `RESAMPLING`, antialiased, without Pillow's rounding to bytes.
    """

    dim: int

    def __init__(
        self, model: nn.Module, resize: int | None, resample: str = "bilinear"
    ) -> None:
        super().__init__()
        if resample not in RESAMPLING:
            raise UserError(
                f"resample cannot be '{resample}'; {nearest(str(resample), RESAMPLING)}"
            )
        self.model = model
        self.resize = resize
        self.resample = resample

    def forward(self, x: Tensor) -> Tensor:
        if self.resize is not None and x.shape[-2:] != (self.resize, self.resize):
            x = F.interpolate(
                x,
                (self.resize, self.resize),
                mode=self.resample,
                antialias=True,
                align_corners=False,
            )
        return self.features(x)

    def features(self, x: Tensor) -> Tensor:
        """What the model gives, (N, d)."""
        return self.model(x)  # type: ignore[no-any-return]
