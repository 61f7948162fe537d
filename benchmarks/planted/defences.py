"""Defences that hold nothing, each of a kind of its own.

Each wraps a classifier that attacks break. `HELD_OUT` were not looked at while the
settings of the checks were chosen.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo import datasets
from zoo.classifier import Classifier

Change = Callable[[Tensor], Tensor]


class Wrapped(nn.Module):
    """A classifier with something done to pixels before or to logits after."""

    def __init__(
        self,
        inner: nn.Module,
        before: Change = lambda x: x,
        after: Change = lambda s: s,
    ) -> None:
        super().__init__()
        self.inner, self.before, self.after = inner, before, after

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.inner(self.before(x)))


def pixels(change: Change) -> Callable[[nn.Module], nn.Module]:
    """A defence that changes pixels."""
    return lambda inner: Wrapped(inner, before=change)


def logits(change: Change) -> Callable[[nn.Module], nn.Module]:
    """A defence that changes logits."""
    return lambda inner: Wrapped(inner, after=change)


def _waves(x: Tensor, pitch: float) -> Tensor:
    """Uneven ground between 0 and 1 over the images, (N, 1)."""
    flat = x.flatten(1)
    generator = torch.Generator().manual_seed(1)
    directions = torch.randn(flat.shape[1], 16, generator=generator).to(flat)
    return (0.5 + 0.5 * (pitch * flat @ directions).sin()).mean(dim=1, keepdim=True)


class DecoyOnTop(nn.Module):
    """Adds to the largest logit a term whose slope outweighs the logits' own."""

    def __init__(self, inner: nn.Module, height: float = 200.0) -> None:
        super().__init__()
        self.inner, self.height = inner, height

    def forward(self, x: Tensor) -> Tensor:
        s: Tensor = self.inner(x)
        top = F.one_hot(s.argmax(dim=1), s.shape[1]).to(s)
        return s + self.height * top * _waves(x, 20.0)


class DecoyScale(nn.Module):
    """Stretches all logits by a factor that varies far more than they do."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        s: Tensor = self.inner(x)
        gap = s - s.amax(dim=1, keepdim=True)
        return gap.sign() * (1e-3 * gap.abs() + 50 + 50 * _waves(x, 30.0))


class Backward(torch.autograd.Function):
    """Leaves its input as it is, and changes the gradient on its way back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * ctx.factor, None


class StraightThrough(torch.autograd.Function):
    """Rounds, and claims that it did not: a wrong gradient."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return (x * 4).round() / 4

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        return gradient


class Remembers(nn.Module):
    """Answers what looks like an earlier question as it answered that one."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.asked: list[tuple[Tensor, Tensor]] = []

    def forward(self, x: Tensor) -> Tensor:
        answers = []
        for image, answer in zip(x, self.inner(x), strict=True):
            answers.append(self._known(image.detach(), answer))
        return torch.stack(answers)

    def _known(self, image: Tensor, answer: Tensor) -> Tensor:
        if self.asked:
            known = torch.stack([one for one, _ in self.asked])
            distance = (known - image).abs().flatten(1).mean(dim=1)
            if float(distance.min()) < 0.05:
                return answer * 0 + self.asked[int(distance.argmin())][1]
        self.asked = [*self.asked, (image, answer.detach())][-400:]
        return answer


class TiresOfQuestions(nn.Module):
    """Turns its answers by one class once it was asked often."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.asked = 0

    def forward(self, x: Tensor) -> Tensor:
        self.asked += len(x)
        s: Tensor = self.inner(x)
        return s + 5 * torch.tensor(float(self.asked)).sin() * s.detach().roll(1, 1)


class BatchStatistics(nn.Module):
    """Batch norm that uses the statistics of the batch whatever mode it is in."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        s: Tensor = self.inner(x)
        deviation = s.std(dim=0, unbiased=False) + 0.1
        return (s - s.mean(dim=0)) / deviation


class OptimisedAtTestTime(nn.Module):
    """Moves each image to where the model is surer, before it answers."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            leaf = x.detach().clone().requires_grad_()
            surest = self.inner(leaf).log_softmax(dim=1).amax(dim=1).sum()
            (step,) = torch.autograd.grad(surest, leaf)
        return self.inner(x + 0.02 * step.sign())  # type: ignore[no-any-return]


class Neighbours(nn.Module):
    """Five nearest training images vote with what the classifier says of them."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        x = datasets.load("digits", "train").images(slice(400))
        self.x = x.flatten(1)
        with torch.no_grad():
            self.answers = inner(x).argmax(dim=1)

    def forward(self, x: Tensor) -> Tensor:
        nearest = torch.cdist(x.flatten(1), self.x).topk(5, largest=False).indices
        return F.one_hot(self.answers[nearest], 10).sum(dim=1).to(x)


class Voting(nn.Module):
    """Nine fixed shifts of the brightness vote."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        votes = x.new_zeros(len(x), 10)
        for shift in torch.linspace(-0.05, 0.05, 9).tolist():
            votes = votes + F.one_hot(self.inner(x + shift).argmax(dim=1), 10)
        return votes


class Dropped(nn.Module):
    """Dropout that stays on."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(F.dropout(x, 0.2, training=True))  # type: ignore[no-any-return]


def jpeg(x: Tensor) -> Tensor:
    """Through bytes and back, as a preprocessing defence does."""
    from torchvision.io import ImageReadMode, decode_jpeg, encode_jpeg

    grey = (x.clamp(0, 1) * 255).round().to(torch.uint8).cpu()
    back = [
        decode_jpeg(encode_jpeg(image, quality=75), mode=ImageReadMode.GRAY)
        for image in grey
    ]
    return torch.stack(back).to(x) / 255


def resized(x: Tensor) -> Tensor:
    """To a random size and back."""
    size = int(torch.randint(6, 11, (1,)))
    moved = F.interpolate(x, size=(size, size), mode="bilinear")
    return F.interpolate(moved, size=x.shape[-2:], mode="bilinear")


def hashed(x: Tensor) -> Tensor:
    """Adds noise that is a function of the very bits of the image."""
    rows = []
    for image in x:
        bits = hashlib.sha256(image.detach().cpu().numpy().tobytes()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(bits[:6], "little"))
        rows.append(0.15 * torch.randn(image.shape, generator=generator))
    return x + torch.stack(rows).to(x)


def winners(x: Tensor) -> Tensor:
    """The brightest third of the pixels, the others black."""
    flat = x.flatten(1)
    least = flat.topk(max(1, flat.shape[1] // 3), dim=1).values[:, -1:]
    return torch.where(flat >= least, flat, 0.0).view_as(x)


def thermometer(x: Tensor) -> Tensor:
    """How many of six thresholds each pixel passes."""
    passed = [(x > (level + 0.5) / 6).to(x) for level in range(6)]
    return torch.stack(passed).mean(dim=0)


def stairs(s: Tensor) -> Tensor:
    """Logits in coarse steps, with a tiny slope on each."""
    return (s / 4).round() * 4 + 1e-4 * s.sin() * 7


def clipped_softmax(s: Tensor) -> Tensor:
    """Probabilities within limits, where most answers lie."""
    return s.softmax(dim=1).clamp(1e-2, 0.91)


@dataclass(frozen=True)
class Planted:
    """One defence."""

    name: str
    build: Callable[[nn.Module], nn.Module]


TUNED = (
    Planted("decoy added to the largest logit", DecoyOnTop),
    Planted("NaN gradients", pixels(lambda x: x + (x - x.detach()).abs().sqrt())),
    Planted("JPEG", pixels(jpeg)),
    Planted("random resizing", pixels(resized)),
    Planted("logits times 10,000", logits(lambda s: 1e4 * s)),
    Planted("k winners take all", pixels(winners)),
    Planted("thermometer coding", pixels(thermometer)),
    Planted("gradient with its sign turned", pixels(lambda x: Backward.apply(x, -1.0))),
    Planted("clipped softmax", logits(clipped_softmax)),
    Planted("majority vote", Voting),
    Planted("batch statistics", BatchStatistics),
    Planted("remembers what it was asked", Remembers),
    Planted("pixels over 255", pixels(lambda x: x / 255)),
)
MILD = (Planted("mild decoy", lambda inner: DecoyOnTop(inner, height=2.0)),)
"""Adds about ten points alone: the checks may call it doubtful, or miss it."""

HELD_OUT = (
    Planted("decoy that stretches the logits", DecoyScale),
    Planted("five levels of grey", pixels(lambda x: (x * 4).round() / 4)),
    Planted("random noise", pixels(lambda x: x + 0.1 * torch.randn_like(x))),
    Planted("answers that wear off", TiresOfQuestions),
    Planted("logits in coarse steps", logits(stairs)),
    Planted("noise from a hash of the image", pixels(hashed)),
    Planted("dropout at test time", Dropped),
    Planted("straight-through rounding", pixels(StraightThrough.apply)),
    Planted("graph cut by detach", logits(lambda s: s.detach())),
    Planted(
        "gradients too small for float32", pixels(lambda x: Backward.apply(x, 1e-44))
    ),
    Planted("optimisation at test time", OptimisedAtTestTime),
    Planted("neighbours vote", Neighbours),
    Planted("softmax for logits", logits(lambda s: s.softmax(dim=1))),
)


def behind(planted: Planted, inner: Classifier) -> Classifier:
    """The classifier behind a defence."""
    module = planted.build(inner).eval()
    return Classifier(module, nn.Identity(), classes=inner.classes, shape=inner.shape)
