"""Full float32 where torch would take a short cut on a GPU."""

import pytest
import torch

from zoo.arithmetic import full_float32


def _short_cuts() -> tuple[bool, bool]:
    return torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32


def test_short_cuts_are_off_inside_and_as_before_after() -> None:
    before = _short_cuts()
    with full_float32():
        assert _short_cuts() == (False, False)
    assert _short_cuts() == before


def test_short_cuts_are_restored_after_an_error() -> None:
    before = _short_cuts()
    with pytest.raises(ZeroDivisionError), full_float32():
        raise ZeroDivisionError
    assert _short_cuts() == before


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_convolutions_on_a_gpu_are_those_of_the_cpu() -> None:
    rng = torch.Generator().manual_seed(0)
    x, w = (
        torch.rand(8, 32, 16, 16, generator=rng),
        torch.rand(32, 32, 3, 3, generator=rng),
    )
    want = torch.nn.functional.conv2d(x.double(), w.double())
    with full_float32():
        got = torch.nn.functional.conv2d(x.cuda(), w.cuda()).cpu()
    assert ((got - want) / want).abs().max() < 1e-5
