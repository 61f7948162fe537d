"""Each method's loss against its paper's formula, written once more from the images.

Augmentation is switched off, so every view is the image itself, and the adversarial
images are recorded on their way out of the attack; the expected loss is then computed
from a copy of the networks taken before the step. One file in spite of its length: all
of it rests on that recording, and each method is met by the same questions.
"""

from __future__ import annotations

import copy
from importlib.metadata import EntryPoint
from typing import Any

import pretraining as tiny
import pytest
import torch
import torch.nn.functional as F
from pretraining import contrast_by_loops
from torch import Tensor, nn

from pretrain import augment, batchnorm, methods
from pretrain.methods.advcl import high_pass
from pretrain.methods.base import Cost, Method
from pretrain.methods.dynacl import DynACL
from pretrain.recipe import AttackSettings, AugmentSettings
from zoo.ball import lengths
from zoo.encoder import Encoder
from zoo.nets.memory_format import memory_format


@pytest.fixture(autouse=True)
def _still(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weak views are the images themselves too."""
    monkeypatch.setattr(augment, "WEAK_SHIFT", 0.0)


def _recorded(made: Method) -> list[Tensor]:
    """Collects what the attacks of a method return."""
    found: list[Tensor] = []
    attack = made.attack

    def recording(*args: Any, **keywords: Any) -> Tensor:
        x_adv = attack(*args, **keywords)
        found.append(x_adv)
        return x_adv

    made.attack = recording  # type: ignore[method-assign]
    return found


def _run(
    name: str, **keywords: Any
) -> tuple[dict[str, float], Method, list[Tensor], Tensor, Tensor]:
    """Loss parts; a copy of the method before the step; adversarials; x; y."""
    made = tiny.method(name, **keywords)
    before = copy.deepcopy(made)
    adversarial = _recorded(made)
    batch = tiny.batch()
    parts = {k: float(v.detach()) for k, v in made(batch).items()}
    return parts, before, adversarial, batch.x, batch.y


def _project(made: Method, *images: Tensor, norms: int = 0) -> list[Tensor]:
    """Projections of one joint train-mode pass, with one set of batch norms."""
    encoder = batchnorm.collapsed(made.encoder, norms).train()
    projector = batchnorm.collapsed(made.projector, norms).train()
    with torch.no_grad():
        u = projector(encoder(torch.cat(images)))
    return list(u.split([len(x) for x in images]))


def test_simclr() -> None:
    parts, before, _, x, _ = _run("simclr")
    expected = contrast_by_loops(_project(before, x, x), 0.5)
    assert parts == pytest.approx({"contrast": expected}, rel=1e-4)


def test_rocl() -> None:
    parts, before, (x_adv,), x, _ = _run("rocl")
    u1, u2, u_adv = _project(before, x, x, x_adv)
    # Two positives for each anchor, summed: twice the mean over positives.
    contrast = 2 * contrast_by_loops([u1, u2, u_adv], 0.5)
    extra = contrast_by_loops([u_adv, u2], 0.5) / 256
    assert parts == pytest.approx({"contrast": contrast, "extra": extra}, rel=1e-4)


def test_acl() -> None:
    parts, before, (v_adv,), x, _ = _run("acl")
    clean = contrast_by_loops(_project(before, x, x, norms=0), 0.5) / 2
    pair = _project(before, *v_adv.chunk(2), norms=1)
    adversarial = contrast_by_loops(pair, 0.5) / 2
    expected = {"clean": clean, "adversarial": adversarial}
    assert parts == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("progress", [0.0, 0.52])
def test_dynacl(progress: float) -> None:
    made = tiny.method("dynacl")
    before = copy.deepcopy(made)
    assert isinstance(before, DynACL)
    found = _recorded(made)
    batch = tiny.batch()
    object.__setattr__(batch, "progress", progress)
    parts = {k: float(v.detach()) for k, v in made(batch).items()}
    s = 1 - int(progress * 20) / 20  # methods.md 3.6: stages of 1 / 20
    w = 1 + (2 / 3) * (1 - s)

    def pair(norms: int, v1: Tensor, v2: Tensor) -> list[Tensor]:
        q = batchnorm.collapsed(before.query, norms).train()
        k = batchnorm.collapsed(before.key, norms).train()
        with torch.no_grad():
            return [q(v1), k(v2)]

    clean = contrast_by_loops(pair(0, batch.x, batch.x), 0.5)
    adversarial = contrast_by_loops(pair(1, *found[0].chunk(2)), 0.5)
    expected = {"clean": (2 - w) / 2 * clean, "adversarial": w / 2 * adversarial}
    assert parts == pytest.approx(expected, rel=1e-4)


def test_dynacl_averages_weights_of_the_query() -> None:
    made = tiny.method("dynacl", options={"momentum": 0.75})
    assert isinstance(made, DynACL)
    with torch.no_grad():
        for p in made.query.parameters():
            p.add_(1.0)
    old = [k.clone() for k in made.key.parameters()]
    made(tiny.batch())
    for k, q, o in zip(
        made.key.parameters(), made.query.parameters(), old, strict=True
    ):
        torch.testing.assert_close(k, 0.75 * o + 0.25 * q)
    assert not any(k.requires_grad for k in made.key.parameters())


def test_advcl() -> None:
    parts, before, (x_c, x_p), x, y = _run("advcl")
    u1, u2, u_high = _clean_then(before, x, x, high_pass(x))
    u_adv = _advcl_adversarial(before, x_c)
    contrast = contrast_by_loops([u1, u2, u_high, u_adv], 0.5)
    with torch.no_grad():
        z = batchnorm.collapsed(before.encoder, 2).train()(x_p)
        heads = list(before.heads)  # type: ignore[arg-type]
        terms = [float(F.cross_entropy(h(z), y[:, m])) for m, h in enumerate(heads)]
    expected = {"contrast": contrast, "labels": 0.2 * sum(terms) / 2}
    assert parts == pytest.approx(expected, rel=1e-4)


def _clean_then(made: Method, *images: Tensor) -> list[Tensor]:
    return _project(made, *images, norms=0)


def _advcl_adversarial(made: Method, x: Tensor) -> Tensor:
    return _project(made, x, norms=1)[0]


def test_high_pass_keeps_what_is_far_from_the_centre() -> None:
    side = torch.arange(8.0)
    slow = torch.cos(2 * torch.pi * side / 8).expand(1, 1, 8, 8)  # 1 bin: dropped
    fast = torch.cos(2 * torch.pi * 3 * side / 8).expand(1, 1, 8, 8)  # 3 bins: kept
    torch.testing.assert_close(high_pass(slow + fast + 0.5), fast, atol=1e-5, rtol=0)


def test_deacl() -> None:
    parts, before, (x_adv,), x, _ = _run("deacl")
    teacher = before.teacher
    assert teacher is not None
    with torch.no_grad():
        target = teacher(x)
        z, z_adv = before.encoder(torch.cat([x, x_adv])).chunk(2)
    clean = -F.cosine_similarity(z, target).mean()
    adversarial = -2 * F.cosine_similarity(z_adv, z).mean()
    expected = {"clean": float(clean), "adversarial": float(adversarial)}
    assert parts == pytest.approx(expected, rel=1e-4)


def test_pgd_at_and_trades() -> None:
    parts, before, (x_adv,), _, y = _run("pgd-at")
    logits = _logits(before, x_adv)
    assert parts["adversarial"] == pytest.approx(
        float(F.cross_entropy(logits, y[:, 0])), rel=1e-4
    )
    parts, before, (x_adv,), x, y = _run("trades")
    clean, adversarial = _logits(before, torch.cat([x, x_adv])).chunk(2)
    divergence = F.kl_div(
        adversarial.log_softmax(1), clean.softmax(1), reduction="batchmean"
    )
    assert parts["clean"] == pytest.approx(
        float(F.cross_entropy(clean, y[:, 0])), rel=1e-4
    )
    assert parts["adversarial"] == pytest.approx(6 * float(divergence), rel=1e-4)


def _logits(made: Method, x: Tensor) -> Tensor:
    classifier = made.classifier
    assert isinstance(classifier, nn.Module)
    with torch.no_grad():
        logits: Tensor = classifier(x)
    return logits


def _standardised_square(z: Tensor, other: Tensor, of: Tensor) -> float:
    """mean_x of ||(z - other) / deviation||^2 / d, in plain arithmetic."""
    variance = ((of - of.mean(0)) ** 2).mean(0)
    variance = variance + 1e-4 * variance.max()
    return float((((z - other) ** 2) / variance).mean())


@pytest.mark.parametrize("reference", ["self", "stopped", "eval"])
@pytest.mark.parametrize("inputs", ["raw", "one", "both"])
def test_tarrl(reference: str, inputs: str) -> None:
    options = {"reference": reference, "inputs": inputs, "weight": 3.0}
    parts, before, (x_adv,), x, _ = _run("tarrl", options=options)
    clean = [x, x, x] if inputs == "raw" else [x, x]
    copies = 2 if inputs == "both" else 1
    assert len(x_adv) == copies * len(x)
    encoder = copy.deepcopy(before.encoder)
    with torch.no_grad():
        z = encoder.train()(torch.cat([*clean, x_adv]))
        anchor = z[: copies * len(x)]  # all views are the image itself
        if reference == "eval":
            anchor = before.encoder.eval()(torch.cat([x] * copies))
        u = copy.deepcopy(before.projector).train()(z[: 2 * len(x)])
    moved = _standardised_square(z[len(clean) * len(x) :], anchor, anchor)
    expected = {
        "contrast": contrast_by_loops(list(u.chunk(2)), 0.5),
        "displacement": 3.0 * moved,
    }
    assert parts == pytest.approx(expected, rel=1e-3)


def test_tarrl_beside_a_teacher() -> None:
    options = {"reference": "teacher", "weight": 3.0}
    parts, before, (x_adv,), x, _ = _run("tarrl", options=options)
    assert before.teacher is not None
    with torch.no_grad():
        target = before.teacher(x)
        z, z_adv = before.encoder(torch.cat([x, x_adv])).chunk(2)
    expected = {
        "clean": _standardised_square(z, target, target),
        "displacement": 3.0 * _standardised_square(z_adv, target, target),
    }
    assert parts == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("name", tiny.ALL)
def test_passes_are_as_declared(name: str) -> None:
    steps, n = 3, 6
    made = tiny.method(name, steps=steps)
    counted = _count(made, tiny.batch(n))
    assert counted == pytest.approx(made.cost(AttackSettings(steps=steps)).__dict__)


@pytest.mark.parametrize(
    "options",
    [
        {"inputs": "raw"},
        {"inputs": "both", "norms": "dual"},
        {"reference": "eval", "layer": "projector"},
        {"reference": "teacher"},
    ],
    ids=str,
)
def test_passes_of_tarrls_options_are_as_declared(options: dict[str, Any]) -> None:
    made = tiny.method("tarrl", steps=2, options=options)
    counted = _count(made, tiny.batch(6))
    assert counted == pytest.approx(made.cost(AttackSettings(steps=2)).__dict__)


def _count(made: Method, batch: Any) -> dict[str, float]:
    """Rows per image that went forward, back to the input, and back to the weights.

    Counted at the last normalisation before the pooled features, in every encoder.
    """
    counts = {"forward": 0.0, "to_input": 0.0, "full": 0.0}
    n = len(batch.x)

    def hook(module: nn.Module, _: Any, z: Tensor) -> None:
        counts["forward"] += len(z) / n
        if z.requires_grad:
            trained = any(p.requires_grad for p in module.parameters())
            kind = "full" if trained else "to_input"

            def went_back(_: Tensor) -> None:
                counts[kind] += len(z) / n

            z.register_hook(went_back)

    for module in made.modules():
        if isinstance(module, Encoder):
            module.register_forward_hook(hook)
    torch.stack(list(made(batch).values())).sum().backward()
    return counts


@pytest.mark.parametrize("name", [n for n in tiny.ALL if n != "simclr"])
def test_attack_stays_in_the_ball_and_leaves_the_networks_alone(name: str) -> None:
    made = tiny.method(name, steps=3)
    seen: list[tuple[Tensor, Tensor, float, float]] = []
    attack = made.attack

    def watching(objective: Any, x: Tensor, *args: Any, **keywords: Any) -> Tensor:
        before = {k: v.clone() for k, v in made.state_dict().items()}
        x_adv = attack(objective, x, *args, **keywords)
        for key, value in made.state_dict().items():
            assert torch.equal(value, before[key]), key
        assert all(p.grad is None for p in made.parameters())
        assert made.training
        with torch.no_grad():
            made.eval()
            norms = keywords.get("norms", 0)
            with batchnorm.using(norms, *made.children()):
                start, end = objective(x).sum(), objective(x_adv).sum()
            made.train()
        seen.append((x, x_adv, float(start), float(end)))
        return x_adv

    made.attack = watching  # type: ignore[method-assign]
    made(tiny.batch())
    assert seen
    for x, x_adv, start, end in seen:
        tolerance = tiny.THREAT.tolerance(tiny.SHAPE)
        assert float(lengths(x_adv - x, "Linf").max()) <= 0.1 + tolerance
        assert float(x_adv.min()) >= 0
        assert float(x_adv.max()) <= 1
        assert end > start


def test_displacement_attack_finds_the_optimum_of_a_linear_encoder() -> None:
    # One feature w.x, whose displacement is largest at x + eps sign(w) or its mirror.
    class Linear(nn.Module):
        dim = 1

        def __init__(self) -> None:
            super().__init__()
            generator = torch.Generator().manual_seed(0)
            self.w = nn.Parameter(torch.randn(64, 1, generator=generator))

        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1) @ self.w

    net = Linear()
    made = tiny.method("tarrl", steps=4, net=net)  # type: ignore[arg-type]
    found = _recorded(made)
    batch = tiny.batch()
    object.__setattr__(batch, "x", 0.2 + 0.6 * batch.x)  # eps away from the box
    made(batch)
    moved = (found[0] - batch.x).flatten(1)
    best = 0.1 * net.w.detach().abs().sum()
    torch.testing.assert_close(
        (moved @ net.w.detach()).abs().flatten(), best.expand(len(moved))
    )


@pytest.mark.parametrize("reference", ["self", "stopped", "eval"])
@pytest.mark.parametrize("distance", ["squared", "l2", "cosine"])
def test_an_encoder_gains_nothing_by_shrinking_its_last_layer(
    reference: str, distance: str
) -> None:
    options = {"reference": reference, "distance": distance}

    def displacement(factor: float) -> float:
        net = tiny.Plain()
        with torch.no_grad():
            last = net.layers[-1]
            last.weight.mul_(factor)  # type: ignore[operator]
            last.bias.mul_(factor)  # type: ignore[operator]
        made = tiny.method("tarrl", options=options, net=net)  # type: ignore[arg-type]
        return float(made(tiny.batch())["displacement"].detach())

    assert displacement(0.1) == pytest.approx(displacement(1.0), rel=1e-4)
    assert displacement(1.0) > 0.01


@pytest.mark.parametrize("name", tiny.ALL)
def test_bf16_is_for_the_networks_and_changes_little(name: str) -> None:
    loss, gradient, dtypes = _loss_and_gradient(name, bf16=True)
    exact, exact_gradient, exact_dtypes = _loss_and_gradient(name, bf16=False)
    assert dtypes == {torch.bfloat16}
    assert exact_dtypes == {torch.float32}
    # The attacks climb rounded gradients and end elsewhere: no closer agreement.
    assert loss == pytest.approx(exact, rel=0.03)
    assert len(gradient) == len(exact_gradient)
    assert float(F.cosine_similarity(gradient, exact_gradient, dim=0)) > 0.8


def _loss_and_gradient(name: str, bf16: bool) -> tuple[float, Tensor, set[torch.dtype]]:
    """One step's loss and weight gradients, and what the convolutions computed in."""
    views = AugmentSettings(crop=0.4, shift=0.2)
    made = tiny.method(name, augment=views)
    dtypes = set()
    for module in made.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda *call: dtypes.add(call[2].dtype))
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        parts = made(tiny.batch(64))
    assert all(part.dtype == torch.float32 for part in parts.values())
    total = torch.stack(list(parts.values())).sum()
    total.backward()
    found = [p.grad.flatten() for p in made.parameters() if p.grad is not None]
    return float(total.detach()), torch.cat(found), dtypes


@pytest.mark.parametrize("name", tiny.ALL)
def test_export_is_a_plain_encoder_with_the_same_features(name: str) -> None:
    made = tiny.method(name)
    torch.stack(list(made(tiny.batch()).values())).sum().backward()  # moves statistics
    exported = made.export()
    plain = tiny.encoder()
    assert exported.state_dict().keys() == plain.state_dict().keys()
    x = tiny.batch(seed=3).x
    made.eval()
    with torch.no_grad(), batchnorm.using(made.published_norms(), made):
        torch.testing.assert_close(exported(x), made.published()(x))
    assert not exported.training


@pytest.mark.parametrize("name", ["acl", "dynacl"])
def test_exported_batch_norms_saw_adversarial_images(name: str) -> None:
    made = tiny.method(name)
    made(tiny.batch())
    sets = [m for m in made.modules() if isinstance(m, batchnorm.BatchNormSets)]
    assert sets
    assert made.published_norms() == batchnorm.ADVERSARIAL
    clean, adversarial = sets[0].sets
    assert not torch.equal(clean.running_mean, adversarial.running_mean)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "passes"),
    [  # methods.md section 7 at its numbers of steps; RoCL shares its last pass
        ("simclr", 6), ("acl", 32), ("advcl", 38), ("deacl", 17), ("dynacl", 28),
        ("rocl", 20), ("tarrl", 20), ("pgd-at", 13), ("trades", 17),
    ],
)  # fmt: skip
def test_passes_are_the_published_counts(name: str, passes: float) -> None:
    made = tiny.method(name)
    assert made.cost(AttackSettings(steps=5)).passes == passes


def test_cost_in_forward_equivalents() -> None:
    assert Cost(2, 0, 2).passes == 6
    assert Cost(14, 10, 4).passes == 32  # ACL with 5 steps


def test_methods_by_name() -> None:
    for name in tiny.ALL:
        assert issubclass(methods.get(name), Method)
    with pytest.raises(ValueError, match="did you mean 'tarrl'"):
        methods.get("tarl")


def test_narrow_networks_keep_the_default_layout() -> None:
    # With 4 channels in channels_last torch's CPU kernels overwrite foreign memory.
    assert memory_format(tiny.encoder()) == torch.channels_last
    narrow = nn.Sequential(nn.Conv2d(1, 8, 3), nn.Conv2d(8, 4, 3))
    assert memory_format(narrow) == torch.contiguous_format


def test_other_packages_add_methods(monkeypatch: pytest.MonkeyPatch) -> None:
    def found(*, group: str) -> list[EntryPoint]:
        assert group == "robrep.methods"
        return [
            EntryPoint(name, "pretrain.methods.simclr:SimCLR", group) for name in new
        ]

    monkeypatch.setattr(methods, "entry_points", found)
    try:
        new = ["theirs"]
        methods.registry.cache_clear()
        assert methods.get("theirs").__name__ == "SimCLR"
        new = ["tarrl"]
        methods.registry.cache_clear()
        with pytest.raises(ValueError, match=r"'tarrl' .* already exists"):
            methods.registry()
    finally:
        monkeypatch.undo()
        methods.registry.cache_clear()
