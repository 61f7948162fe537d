"""A linear map as the last layer of any backbone."""

from __future__ import annotations

from torch import Tensor, nn

from zoo.errors import UserError


class LinearEnd(nn.Module):
    """A backbone of which fewer features leave than it makes.

    Args:
        backbone: With an attribute `dim`.
        features: How many leave; their directions are weights like any other.
    """

    def __init__(self, backbone: nn.Module, features: int) -> None:
        super().__init__()
        whole = int(backbone.dim)  # type: ignore[arg-type]
        if not isinstance(features, int) or not 1 <= features <= whole:
            raise UserError(
                f"a linear end keeps 1 to {whole} features of this architecture, "
                f"not {features}"
            )
        self.backbone = backbone
        self.end = nn.Linear(whole, features, bias=False)
        self.dim = features

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, features)."""
        return self.end(self.backbone(x))  # type: ignore[no-any-return]
