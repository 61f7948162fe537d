"""Users' scripts around robrep's public interface, one for each library they come with.

Models are tiny and their weights random: what is tested is that the same function is
measured here and there.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

import zoo
from robrep_eval import evaluate, fit_probe, to_art, to_robustbench

pytestmark = pytest.mark.slow


DIGITS, NAMES = load_digits(return_X_y=True)
GREY = torch.tensor(DIGITS[:120]).reshape(-1, 1, 8, 8).float() / 16
LABELS = torch.tensor(NAMES[:120])
COLOUR = GREY.repeat(1, 3, 1, 1).repeat_interleave(4, 2).repeat_interleave(4, 3)
TEST, TRAIN = (COLOUR[:12], LABELS[:12]), (COLOUR[20:], LABELS[20:])
MEAN, STD = (0.5, 0.4, 0.3), (0.5, 0.25, 0.2)
QUICK: dict[str, Any] = {"eps": 0.01, "attacks": "fgsm", "measure": ()}


def normalised(x: Tensor) -> Tensor:
    return (x - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def of_timm() -> nn.Module:
    model: nn.Module = timm.create_model("test_vit", num_classes=0, img_size=32)
    return model


class Token(nn.Module):
    """What people write around a model of transformers."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(pixel_values=x).last_hidden_state[:, 0]  # type: ignore[no-any-return]


def of_transformers() -> nn.Module:
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=32,
    )
    return Token(transformers.ViTModel(config, add_pooling_layer=False))


def of_open_clip() -> nn.Module:
    open_clip = pytest.importorskip("open_clip")
    vision = {"image_size": 32, "layers": 2, "width": 64, "patch_size": 16}
    text = {"context_length": 4, "vocab_size": 9, "width": 8, "heads": 1, "layers": 1}
    tower: nn.Module = open_clip.CLIP(24, vision, text).visual
    return tower


@pytest.mark.parametrize("make", [of_timm, of_transformers, of_open_clip])
def test_an_encoder_of_a_library(make: Callable[[], nn.Module], tmp_path: Path) -> None:
    torch.manual_seed(0)
    own = make().eval()
    folder = tmp_path / "run"
    classifier, _ = fit_probe(own, TRAIN, mean=MEAN, std=STD)
    with torch.no_grad():
        features = own(normalised(TEST[0]))
        assert classifier.linear is not None
        torch.testing.assert_close(classifier(TEST[0]), classifier.linear(features))
    found = evaluate(own, TEST, train=TRAIN, mean=MEAN, std=STD, output=folder, **QUICK)
    right = int((classifier(TEST[0]).argmax(1) == TEST[1]).sum())
    assert found.clean.k == right
    assert found.robust <= found.clean
    assert zoo.verify_folder(folder, model=own, dataset=TEST)


def test_a_checkpoint_of_lightning(tmp_path: Path) -> None:
    lightning = pytest.importorskip("pytorch_lightning")

    class Lit(lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self, rate: float = 0.1) -> None:
            super().__init__()
            self.save_hyperparameters()
            self.net = timm.create_model("test_vit", num_classes=10, img_size=32)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    torch.manual_seed(0)
    model = Lit().eval()
    trainer = lightning.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False
    )
    trainer.strategy.connect(model)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    options: dict[str, Any] = {
        "arch": "timm:test_vit",
        "arch_options": {"img_size": 32},
        "mean": MEAN,
        "std": STD,
        **QUICK,
    }
    whole = evaluate(str(tmp_path / "last.ckpt"), TEST, classes=10, **options)
    with torch.no_grad():
        right = model.net(normalised(TEST[0])).argmax(1) == TEST[1]
    assert whole.probe is None
    assert whole.clean.k == int(right.sum())
    assert "under 'net.' are used" in whole.notes[0]
    probed = evaluate(
        str(tmp_path / "last.ckpt"), TEST, train=TRAIN, kind="features", **options
    )
    assert probed.probe is not None


@pytest.fixture(scope="module")
def digits() -> tuple[zoo.Classifier, Tensor, Tensor]:
    """A classifier of the zoo's, and images it knows."""
    encoder = zoo.load("tarrl-digits")
    classifier, _ = fit_probe(encoder, (GREY[20:], LABELS[20:]))
    with torch.no_grad():
        known = classifier(GREY).argmax(1) == LABELS
    return classifier, GREY[known][:16], LABELS[known][:16]


def inside(adversarial: Tensor, x: Tensor, eps: float) -> bool:
    far = (adversarial - x).abs().max()
    return bool(far <= eps + 1e-6) and bool(
        ((adversarial >= 0) & (adversarial <= 1)).all()
    )


def test_art(digits: tuple[zoo.Classifier, Tensor, Tensor]) -> None:
    from art.attacks.evasion import FastGradientMethod, HopSkipJump

    classifier, x, y = digits
    estimator = to_art(classifier)
    quick = FastGradientMethod(estimator, eps=0.1).generate(x.numpy(), y.numpy())
    assert inside(torch.tensor(quick), x, 0.1)
    with torch.no_grad():
        wanted = classifier(torch.tensor(quick)).numpy()
    np.testing.assert_allclose(estimator.predict(quick), wanted, atol=1e-5)
    slow = HopSkipJump(estimator, max_iter=1, max_eval=20, init_eval=2, verbose=False)
    assert slow.generate(x[:2].numpy()).shape == (2, 1, 8, 8)
    np.testing.assert_allclose(
        estimator.predict(quick.astype(np.float64)), wanted, atol=1e-5
    )


def test_arts_autoattack(digits: tuple[zoo.Classifier, Tensor, Tensor]) -> None:
    pytest.importorskip("multiprocess")
    from art.attacks.evasion import AutoAttack, FastGradientMethod

    classifier, x, y = digits
    estimator = to_art(classifier)
    attack = AutoAttack(
        estimator, eps=0.1, attacks=[FastGradientMethod(estimator, eps=0.1)]
    )
    assert inside(torch.tensor(attack.generate(x.numpy(), y.numpy())), x, 0.1)


def test_foolbox(digits: tuple[zoo.Classifier, Tensor, Tensor]) -> None:
    foolbox = pytest.importorskip("foolbox")
    classifier, x, y = digits
    model = foolbox.PyTorchModel(classifier, bounds=(0, 1), device="cpu")
    assert foolbox.utils.accuracy(model, x, y) == 1
    attack = foolbox.attacks.LinfFastGradientAttack(random_start=False)
    _, clipped, fooled = attack(model, x, y, epsilons=0.3)
    assert inside(clipped, x, 0.3)
    with torch.no_grad():
        assert torch.equal(fooled, classifier(clipped).argmax(1) != y)
    found = evaluate(classifier, (x, y), eps=0.3, attacks="fgsm", measure=())
    assert found.robust.k <= int((~fooled).sum())


def test_torchattacks(digits: tuple[zoo.Classifier, Tensor, Tensor]) -> None:
    """No extra names it: 3.5.1, the last, asks for requests 2.25, that for urllib3 1,
    and robrep for urllib3 2. `.ci/run` installs it alone and runs this test."""
    torchattacks = pytest.importorskip("torchattacks")
    classifier, x, y = digits
    assert inside(torchattacks.FGSM(classifier, eps=0.1)(x, y), x, 0.1)


def test_robustbench(digits: tuple[zoo.Classifier, Tensor, Tensor]) -> None:
    from robustbench.utils import clean_accuracy

    classifier, x, y = digits
    assert clean_accuracy(to_robustbench(classifier), x, y) == 1
