"""Recipes: what is accepted, what is refused and in which words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel, ValidationError

from pretrain import methods
from pretrain.recipe import (
    Section,
    built_in,
    dump,
    load_recipe,
    merge,
    parse_override,
    validate,
)
from zoo import architectures, datasets
from zoo.datasets.names import FOLDER, split_name
from zoo.errors import UserError
from zoo.records import Record

BASE: dict[str, Any] = {"name": "a", "method": "simclr", "epochs": 3}


def kinds(base: type[BaseModel]) -> list[type[BaseModel]]:
    return [found for kind in base.__subclasses__() for found in (kind, *kinds(kind))]


@pytest.mark.parametrize(
    "kind", [*kinds(Section), *kinds(Record)], ids=lambda kind: kind.__name__
)
def test_true_is_no_number_in_any_setting_or_record(kind: type[BaseModel]) -> None:
    for name, field in kind.model_fields.items():
        if name == "schema_version":
            continue  # compared before everything else, by type
        try:
            kind.model_validate({name: True})
        except ValidationError as error:
            if any(fault["loc"][:1] == (name,) for fault in error.errors()):
                continue
        said = str(field.annotation)
        assert any(word in said for word in ("bool", "Any")), f"{name}: {said}"


@pytest.mark.parametrize(
    ("arch", "option"),
    [
        ("resnet_s8", {"stem_stride": True}),
        ("resnet_s8", {"widths": [True, 32, 64]}),
        ("resnet_s8", {"linear_end": True}),
        ("timm:resnet18", {"output_stride": True}),
        ("timm:resnet18", {"drop_rate": False}),
        ("transformers:vit", {"resize": True}),
    ],
)
def test_true_is_no_number_of_an_architecture(
    arch: str, option: dict[str, Any]
) -> None:
    with pytest.raises(UserError, match="is no switch"):
        architectures.resolve_options(arch, option)


def test_switches_of_an_architecture_stay() -> None:
    for arch, option in (
        ("timm:vit_tiny_patch16_224", {"qkv_bias": False}),
        ("timm:resnet18", {"zero_init_last": True}),
        ("transformers:vit", {"qkv_bias": True}),
    ):
        assert architectures.resolve_options(arch, option) == option


@pytest.mark.parametrize("name", built_in())
def test_built_in_recipes_are_valid_and_survive_a_round_trip(name: str) -> None:
    recipe = validate(load_recipe(name))
    methods.options(recipe)
    if recipe.init is None:
        architectures.resolve_options(recipe.arch, recipe.arch_options)
    base, reading = split_name(recipe.data)
    if base.startswith(FOLDER):
        assert reading is not None
        assert reading.shape == (3, 224, 224)
    else:
        datasets.get(recipe.data)
    assert recipe.name == name
    assert validate(yaml.safe_load(dump(recipe))) == recipe


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"epoch": 3}, "unknown key 'epoch'; did you mean 'epochs'"),
        ({"optimizer": {"lrr": 1}}, "unknown key 'optimizer.lrr'; did you mean 'lr'"),
        ({"augment": {"croop": 1}}, "unknown key 'augment.croop'; did you mean 'crop'"),
        ({"epochs": "many"}, "'epochs': .* not 'many'"),
        ({"epochs": True}, "'epochs': input should be a number, not True"),
        ({"optimizer": {"lr": True}}, "'optimizer.lr': input should be a number"),
        ({"attack": {"step_size": True}}, "step_size': input should be a number"),
        ({"augment": {"jitter": [True, 0, 0, 0]}}, "jitter.0': input should be a num"),
        ({"threat": {"norm": "Linf", "eps": True}}, "eps must be a number"),
        ({"epochs": 0}, "'epochs': .*greater than or equal to 1, not 0"),
        ({"batch": 1}, "'batch': .* not 1"),
        ({"optimizer": {"lr": -1}}, "'optimizer.lr': .* not -1"),
        ({"optimizer": {"lr": float("nan")}}, "'optimizer.lr': .* not nan"),
        ({"threat": {"norm": "Linf", "eps": -1}}, "eps must be positive"),
        ({"threat": {"norm": "L3", "eps": 1}}, "'threat.norm': .* not 'L3'"),
        ({"attack": {"step_size": "1/0"}}, "eps must be a number"),
        ({"name": "A B"}, "'name'"),
        ({"accumulate": 4}, "accumulate 4 needs draws: image"),
        ({"accumulate": 3, "draws": "image"}, "batch 256 has no 3 equal parts"),
        (
            {"checkpoint_activations": True, "compile": True},
            "checkpoint_activations and compile exclude each other",
        ),
        ({"passes": 10}, "either epochs or passes"),
        ({"epochs": None}, "either epochs or passes"),
    ],
)
def test_bad_recipes_are_refused_with_the_key(
    change: dict[str, Any], words: str
) -> None:
    content = {**BASE, **change}
    with pytest.raises(UserError, match=words):
        validate(content)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"method": "tarl"}, "did you mean 'tarrl'"),
        ({"method": "tarrl"}, "needs a threat model"),
        ({"options": {"temprature": 1}}, "did you mean 'temperature'"),
        ({"options": {"temperature": -1}}, "'temperature': .* not -1"),
        ({"teacher": "zoo:simclr-digits"}, "uses no teacher"),
        (
            {"method": "deacl", "threat": {"norm": "Linf", "eps": 0.1}},
            "starts from a trained encoder",
        ),
    ],
)
def test_bad_options_are_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        methods.options(validate({**BASE, **change}))


def test_numbers_that_yaml_reads_as_text_are_numbers() -> None:
    content = yaml.safe_load("{lr: 1e-3}")  # YAML 1.1 makes this a string
    recipe = validate({**BASE, "optimizer": content, "attack": {"step_size": "2/255"}})
    assert recipe.optimizer.lr == 0.001
    assert recipe.attack.step_size == pytest.approx(2 / 255)


def test_override() -> None:
    assert parse_override("attack.steps=3") == {"attack": {"steps": 3}}
    assert parse_override("teacher=zoo:a") == {"teacher": "zoo:a"}
    with pytest.raises(UserError, match="key=value"):
        parse_override("attack.steps")


def test_merge() -> None:
    base = {"method": "tarrl", "options": {"weight": 1}, "a": {"b": 1, "c": 2}}
    assert merge(base, {"a": {"b": 3}})["a"] == {"b": 3, "c": 2}
    assert merge({"epochs": 3}, {"passes": 10}) == {"passes": 10}
    assert merge({"passes": 3}, {"epochs": 10}) == {"epochs": 10}
    # Options belong to a method: another method does not inherit them.
    assert "options" not in merge(base, {"method": "acl"})


def test_base_is_found_beside_the_recipe_and_among_the_built_in(
    tmp_path: Path,
) -> None:
    (tmp_path / "one.yaml").write_text("base: tarrl-digits\nseed: 5\nbatch: 32\n")
    (tmp_path / "two.yaml").write_text("base: one.yaml\nbatch: 64\n")
    content = load_recipe(tmp_path / "two.yaml")
    assert (content["method"], content["seed"], content["batch"]) == ("tarrl", 5, 64)


def test_broken_files_are_named(tmp_path: Path) -> None:
    circle = tmp_path / "circle.yaml"
    circle.write_text("base: circle.yaml\n")
    with pytest.raises(UserError, match="based on itself"):
        load_recipe(circle)
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [1\n")
    with pytest.raises(UserError, match=r"broken\.yaml is not valid YAML"):
        load_recipe(broken)
    broken.write_text("just words\n")
    with pytest.raises(UserError, match="must be a mapping"):
        load_recipe(broken)
    with pytest.raises(UserError, match="did you mean 'tarrl-digits'"):
        load_recipe("tarrl-digit")
