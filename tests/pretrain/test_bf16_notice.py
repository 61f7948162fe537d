"""Whoever asks for bf16 on a processor without it is told, once it is known."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest
import torch

from pretrain.precision import slowness
from pretrain.recipe import Recipe, load_recipe, merge, validate

CPU = torch.device("cpu")
FLAGS = Path("/proc/cpuinfo")


def recipe(precision: str) -> Recipe:
    asked = {"precision": precision}
    return validate(merge(load_recipe("simclr-fashion-mnist"), asked))


@pytest.mark.skipif(
    platform.machine() != "x86_64"
    or not FLAGS.exists()
    or not hasattr(torch.cpu, "get_capabilities"),
    reason="torch tells of this processor nothing that the kernel tells too",
)
def test_it_is_said_where_the_kernel_lists_no_such_instructions() -> None:
    words = set(FLAGS.read_text().split())
    told = slowness(recipe("bf16"), CPU)
    assert (told is None) == bool(words & {"avx512_bf16", "amx_bf16"})


LACKS = {"avx512_bf16": False, "amx_bf16": False}


@pytest.mark.parametrize(
    ("known", "precision", "device", "said"),
    [
        (LACKS, "bf16", "cpu", True),
        (LACKS, "fp32", "cpu", False),
        (LACKS, "bf16", "cuda", False),
        ({**LACKS, "amx_bf16": True}, "bf16", "cpu", False),
        ({"neon": True}, "bf16", "cpu", False),
        (None, "bf16", "cpu", False),
    ],
)
def test_what_is_not_known_or_not_asked_for_is_not_said(
    monkeypatch: pytest.MonkeyPatch,
    known: dict[str, bool] | None,
    precision: str,
    device: str,
    said: bool,
) -> None:
    if known is None:  # an older torch
        monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    else:
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: known, raising=False)
    told = slowness(recipe(precision), torch.device(device))
    assert (told is not None) == said
    assert told is None or "-o precision=fp32" in told
