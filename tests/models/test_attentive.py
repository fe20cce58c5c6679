"""The attentive probe: what it computes, and what it does not depend on."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from tubelet.models.heads import AttentiveClassifier, AttentiveSpec
from tubelet.rng import step_rng

SPEC = AttentiveSpec(width=12, heads=3, mlp_ratio=2.0, init_scale=1.0)


def probe(spec: AttentiveSpec = SPEC, classes: int = 5) -> AttentiveClassifier:
    with step_rng(0, 0):
        built = spec.build(classes)
        for value in built.parameters():  # zeros and ones would hide what is left out
            torch.nn.init.normal_(value, std=0.5)
    return built.eval()


def tokens(batch: int = 2, count: int = 7) -> torch.Tensor:
    return torch.randn(batch, count, SPEC.width, generator=torch.Generator().manual_seed(1))


def test_it_is_the_formula_written_out() -> None:
    model, video = probe(), tokens()
    w = dict(model.named_parameters())
    normed = F.layer_norm(video, (12,), w["norm1.weight"], w["norm1.bias"], 1e-6)
    q = w["attention.q.weight"] @ w["query"] + w["attention.q.bias"]
    both = normed @ w["attention.kv.weight"].T + w["attention.kv.bias"]
    k, v = both[..., :12], both[..., 12:]
    heads = []
    for head in range(3):
        part = slice(4 * head, 4 * head + 4)
        share = (k[..., part] @ q[part] / math.sqrt(4)).softmax(-1)
        heads.append((share[..., None] * v[..., part]).sum(1))
    x = w["query"] + torch.cat(heads, -1) @ w["attention.proj.weight"].T + w["attention.proj.bias"]
    normed = F.layer_norm(x, (12,), w["norm2.weight"], w["norm2.bias"], 1e-6)
    hidden = F.gelu(normed @ w["mlp.fc1.weight"].T + w["mlp.fc1.bias"])
    x = x + hidden @ w["mlp.fc2.weight"].T + w["mlp.fc2.bias"]
    expected = x @ w["head.weight"].T + w["head.bias"]
    torch.testing.assert_close(model(video), expected, rtol=1e-5, atol=1e-5)


def test_the_order_of_tokens_does_not_matter_but_their_content_does() -> None:
    model, video = probe(), tokens()
    torch.testing.assert_close(model(video.flip(1)), model(video), rtol=1e-5, atol=1e-5)
    changed = video.clone()
    changed[:, 3] += 1.0 + torch.arange(12)
    assert not torch.allclose(model(changed), model(video), atol=1e-3)


@pytest.mark.parametrize("count", [1, 20])
def test_any_number_of_tokens_will_do(count: int) -> None:
    assert probe()(tokens(count=count)).shape == (2, 5)


def test_every_parameter_learns() -> None:
    model = probe()
    F.cross_entropy(model(tokens()), torch.tensor([1, 3])).backward()
    still = [name for name, value in model.named_parameters() if value.grad is None or not value.grad.any()]
    assert still == []


def test_the_first_predictions_are_near_even() -> None:
    with step_rng(0, 0):
        fresh = AttentiveSpec(width=12, heads=3).build(4)
    torch.testing.assert_close(fresh(tokens()).softmax(1), torch.full((2, 4), 0.25), rtol=0, atol=1e-3)


def test_heads_that_do_not_divide_the_width_are_refused() -> None:
    with pytest.raises(ValueError, match="width 12 is not a multiple of heads 5"):
        AttentiveSpec(width=12, heads=5).build(2)
