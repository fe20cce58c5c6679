"""The decoder: seen tokens first, then mask tokens; only wanted rows come out."""

import pytest
import torch
from pydantic import ValidationError

from tubelet.models.decoder import Decoder, DecoderSpec
from tubelet.types import Grid, Split

GRID = Grid(2, 2, 3)


def decoder(depth: int = 2) -> Decoder:
    spec = DecoderSpec(width=12, depth=depth, heads=3, layer_scale=0.5)
    return Decoder(spec, GRID, encoder_width=16, target_width=10)


def split() -> Split:
    seen = torch.tensor([[0, 5, 7], [1, 2, 11]])
    wanted = torch.tensor([[1, 2, 3, 4, 6], [0, 3, 4, 5, 6]])
    return Split(seen, wanted, torch.ones(2, 5))


@pytest.mark.parametrize("depth", [1, 2])
def test_fast_and_plain_path_agree(depth: int) -> None:
    model, tokens = decoder(depth), torch.randn(2, 3, 16, requires_grad=True)
    fast, plain = model(tokens, split()), model.plain(tokens, split())
    torch.testing.assert_close(fast, plain, atol=1e-5, rtol=1e-5)
    first, second = (torch.autograd.grad(x.square().sum(), [tokens, *model.parameters()]) for x in (fast, plain))
    torch.testing.assert_close(first, second, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("checkpointing", [1, True])
def test_checkpointing_changes_neither_output_nor_gradient(checkpointing: bool | int) -> None:
    """The first of three blocks, or all with the last one, which reads fewer rows: bit for bit."""
    plain, tokens = decoder(3), torch.randn(2, 3, 16, requires_grad=True)
    spec = DecoderSpec(width=12, depth=3, heads=3, layer_scale=0.5, checkpointing=checkpointing)
    again = Decoder(spec, GRID, encoder_width=16, target_width=10)
    again.load_state_dict(plain.state_dict())
    found = []
    for model in (plain, again):
        out = model(tokens, split())
        found.append([out, *torch.autograd.grad(out.square().sum(), [tokens, *model.parameters()])])
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)


def test_predictions_follow_the_order_of_wanted() -> None:
    model, tokens, one = decoder(), torch.randn(2, 3, 16), split()
    turned = Split(one.seen, one.wanted.flip(1), one.weight)
    torch.testing.assert_close(model(tokens, turned).flip(1), model(tokens, one), atol=1e-5, rtol=1e-5)


def test_a_place_is_known_by_its_position_alone() -> None:
    model, tokens, one = decoder(), torch.randn(2, 3, 16), split()
    moved = Split(one.seen, torch.cat([one.wanted[:, :-1], one.wanted[:, -1:] + 2], 1), one.weight)
    assert not torch.equal(model(tokens, moved)[:, -1], model(tokens, one)[:, -1])


def test_a_visible_token_may_be_wanted_too() -> None:
    one = split()
    both = Split(one.seen, torch.cat([one.wanted, one.seen[:, :1]], 1), torch.ones(2, 6))
    assert decoder()(torch.randn(2, 3, 16), both).shape == (2, 6, 10)


def test_heads_divide_width() -> None:
    with pytest.raises(ValidationError, match="width 10 is not a multiple of heads 3"):
        DecoderSpec(width=10, heads=3)
