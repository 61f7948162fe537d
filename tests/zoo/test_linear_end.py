"""Ending an encoder in a linear map, and taking that end off again."""

from __future__ import annotations

import pytest
import torch

from zoo.encoder import Encoder, EncoderSpec, fingerprint
from zoo.errors import UserError
from zoo.linear_end import with_end, without_end


@pytest.fixture
def plain() -> Encoder:
    torch.manual_seed(0)
    return Encoder(EncoderSpec(arch="resnet_s8", shape=(1, 8, 8))).eval()


def test_the_end_maps_the_features(plain: Encoder) -> None:
    rows = torch.randn(5, plain.dim)
    x = torch.rand(7, 1, 8, 8)
    ended = with_end(plain, rows)
    with torch.no_grad():
        expected = plain(x) @ rows.T
        assert torch.allclose(ended(x), expected, rtol=1e-5, atol=1e-5)
    assert ended.dim == 5
    assert not ended.training
    assert not any(p.requires_grad for p in ended.parameters())


def test_taking_it_off_gives_back_what_there_was(plain: Encoder) -> None:
    rows = torch.randn(5, plain.dim)
    ended = with_end(plain, rows)
    shortened, found = without_end(ended)
    assert found is not None
    assert torch.equal(found, rows)
    assert shortened.spec == plain.spec
    assert fingerprint(shortened) == fingerprint(plain)
    assert fingerprint(with_end(shortened, found)) == fingerprint(ended)


def test_an_encoder_without_an_end_comes_back_as_it_is(plain: Encoder) -> None:
    assert without_end(plain) == (plain, None)


def test_more_features_than_there_are_are_refused(plain: Encoder) -> None:
    with pytest.raises(UserError, match="a linear end keeps 1 to 64 features"):
        with_end(plain, torch.randn(65, plain.dim))
