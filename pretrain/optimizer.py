"""Optimiser, schedule and average: from the recipe to torch and timm."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from pretrain.quiet import quiet_import
from pretrain.recipe import OptimizerSettings, Recipe


def build_optimizer(
    module: nn.Module,
    settings: OptimizerSettings,
    rates: Mapping[nn.Module, float] | None = None,
) -> torch.optim.Optimizer:
    """Batch norm and biases get no weight decay, and with LARS no adaptation.

    Args:
        module: What is trained.
        settings: Of the optimiser.
        rates: Parts of it with a peak learning rate of their own, without decay.
    """
    apart = {p for part in rates or {} for p in part.parameters()}
    trained = [p for p in module.parameters() if p.requires_grad and p not in apart]
    groups: list[dict[str, Any]] = [
        {
            "params": [p for p in trained if p.ndim > 1],
            "weight_decay": settings.weight_decay,
        },
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups += [
        {"params": list(part.parameters()), "weight_decay": 0.0, "lr": rate}
        for part, rate in (rates or {}).items()
    ]
    groups = [group for group in groups if group["params"]]
    if settings.name == "sgd":
        return torch.optim.SGD(groups, lr=settings.lr, momentum=settings.momentum)
    if settings.name == "adamw":
        return torch.optim.AdamW(groups, lr=settings.lr)
    with quiet_import():
        from timm.optim import Lars

    lars: torch.optim.Optimizer = Lars(
        groups, lr=settings.lr, momentum=settings.momentum, trust_coeff=0.001
    )
    return lars


def build_schedule(
    optimizer: torch.optim.Optimizer, settings: OptimizerSettings, steps: int
) -> Any:
    """timm's scheduler; `step_update(n)` sets the rate of step n: it has no state."""
    with quiet_import():
        from timm.scheduler import CosineLRScheduler, MultiStepLRScheduler

    warmup = {
        "warmup_t": round(settings.warmup * steps),
        "warmup_lr_init": 0.0,
        "t_in_epochs": False,
    }
    if settings.schedule == "cosine":
        return CosineLRScheduler(
            optimizer, t_initial=steps, lr_min=0.0, warmup_prefix=False, **warmup
        )
    # timm drops the rate at the step t with t + 1 = decay_t; step 1 is the first here.
    after = [steps // 2, 3 * steps // 4] if settings.schedule == "steps" else []
    drops = [last + 2 for last in after]
    return MultiStepLRScheduler(optimizer, decay_t=drops, decay_rate=0.1, **warmup)


def build_average(encoder: nn.Module, recipe: Recipe) -> Any:
    """timm's exponential average of the weights, or None.

    Its decay rises as t / (t + 10) over the steps t, so that the first weights, which
    are the worst, leave it in runs that are short beside 1 / (1 - decay) too.
    """
    if recipe.average is None:
        return None
    with quiet_import():
        from timm.utils import ModelEmaV3

    return ModelEmaV3(
        encoder,
        decay=recipe.average,
        use_warmup=True,
        warmup_gamma=10.0,
        warmup_power=1.0,
        foreach=recipe.sharding == "none",  # not for shares beside whole buffers
    )
