"""Attention, blocks, stochastic depth and initial weights."""

import math

import pytest
import torch
from torch import nn

from tubelet.nn.attention import CPU_FLOAT32_TOKENS, CPU_PLAIN_TOKENS, Attention, attend
from tubelet.nn.block import Block
from tubelet.nn import cpu as cpu_attention
from tubelet.nn.cpu import blocked_attention
from tubelet.nn.drop_path import DropPath, drop_path_rates
from tubelet.nn.init import mask_token_, truncated_normal_, xavier_


def filled(module: nn.Module) -> nn.Module:
    for value in module.parameters():
        nn.init.normal_(value, std=0.3)
    return module


def test_attention_is_softmax_of_scaled_products_without_key_bias() -> None:
    attention, x = Attention(12, 3), torch.randn(2, 5, 12)
    filled(attention)
    q, k, v = (x @ part.T for part in attention.qkv.weight.chunk(3))
    q, v = q + attention.q_bias, v + attention.v_bias
    heads = [t.reshape(2, 5, 3, 4).transpose(1, 2) for t in (q, k, v)]
    weights = (heads[0] @ heads[1].transpose(-2, -1) / math.sqrt(4)).softmax(-1)
    expected = attention.proj((weights @ heads[2]).transpose(1, 2).reshape(2, 5, 12))
    torch.testing.assert_close(attention(x), expected, atol=1e-5, rtol=1e-5)
    assert {name for name, _ in attention.named_parameters()} == {
        "q_bias", "v_bias", "qkv.weight", "proj.weight", "proj.bias"
    }  # fmt: skip


def test_cosine_attention_multiplies_cosines_by_a_learnt_factor_up_to_a_hundred() -> None:
    attention, x = Attention(12, 3, cosine=True), torch.randn(2, 5, 12)
    filled(attention)
    assert attention.scale is not None
    attention.scale.data[:, 0, 0] = torch.tensor([-1.0, 2.0, 9.0])  # the last is over the clamp
    q, k, v = (x @ part.T for part in attention.qkv.weight.chunk(3))
    q, v = q + attention.q_bias, v + attention.v_bias
    heads = [t.reshape(2, 5, 3, 4).transpose(1, 2) for t in (q, k, v)]
    cosines = nn.functional.cosine_similarity(heads[0].unsqueeze(3), heads[1].unsqueeze(2), dim=-1)
    factors = torch.tensor([math.exp(-1.0), math.exp(2.0), math.exp(4.6052)]).view(3, 1, 1)
    expected = attention.proj(((cosines * factors).softmax(-1) @ heads[2]).transpose(1, 2).reshape(2, 5, 12))
    torch.testing.assert_close(attention(x), expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(attention.tail(x, 2), expected[:, 3:], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("tokens", [5, CPU_FLOAT32_TOKENS + 1, CPU_PLAIN_TOKENS + 1])
def test_short_bf16_sequences_on_the_cpu_give_what_the_kernel_gives(tokens: int) -> None:
    q, k, v = (torch.randn(1, 2, tokens, 8, dtype=torch.bfloat16) for _ in range(3))
    plain = nn.functional.scaled_dot_product_attention(q, k, v)
    with torch.autocast("cpu", torch.bfloat16):
        fast = attend(q, k, v)
    assert fast.dtype == torch.bfloat16
    torch.testing.assert_close(fast, plain, atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize(("asking", "tokens"), [(9, 9), (200, 200), (330, 330), (40, 330)])
def test_every_cpu_path_has_the_gradient_of_attention(asking: int, tokens: int) -> None:
    rng = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 3, n, 8, generator=rng).bfloat16() for n in (asking, tokens, tokens))
    gradient = torch.randn(2, 3, asking, 8, generator=rng)
    a, b, c = (x.double().requires_grad_() for x in (q, k, v))
    exact = torch.autograd.grad(nn.functional.scaled_dot_product_attention(a, b, c), (a, b, c), gradient.double())
    q, k, v = (x.requires_grad_() for x in (q, k, v))
    with torch.autocast("cpu", torch.bfloat16):
        mixed = attend(q, k, v)
    for mine, theirs in zip(torch.autograd.grad(mixed, (q, k, v), gradient.bfloat16()), exact, strict=True):
        error = (mine.double() - theirs).norm() / theirs.norm()
        assert error < 1e-2  # bf16 has 8 bits: 4e-3 for a rounding


def test_blocks_of_heads_need_not_divide_them(monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v = (torch.randn(1, 5, 20, 8).bfloat16().requires_grad_() for _ in range(3))
    whole = torch.autograd.grad(blocked_attention(q, k, v).float().sum(), (q, k, v))
    monkeypatch.setattr(cpu_attention, "BLOCK_WEIGHTS", 2 * 20 * 20)
    parts = torch.autograd.grad(blocked_attention(q, k, v).float().sum(), (q, k, v))
    assert all(torch.equal(a, b) for a, b in zip(whole, parts, strict=True))


@pytest.mark.parametrize("count", [1, 3, 7])
def test_the_tail_of_a_block_is_the_end_of_the_whole(count: int) -> None:
    block = Block(Attention(12, 3), mlp_ratio=2.0, layer_scale=0.5)
    filled(block)
    x = torch.randn(2, 7, 12, requires_grad=True)
    whole, tail = block(x)[:, 7 - count :], block.tail(x, count)
    torch.testing.assert_close(tail, whole, atol=1e-5, rtol=1e-5)
    expected = torch.autograd.grad(whole.square().sum(), x)[0]
    torch.testing.assert_close(torch.autograd.grad(tail.square().sum(), x)[0], expected, atol=1e-3, rtol=1e-3)


def test_layer_scale_exists_only_where_asked_for() -> None:
    assert not [name for name, _ in Block(Attention(8, 2), mlp_ratio=4.0).named_parameters() if "scale" in name]
    scaled = Block(Attention(8, 2), mlp_ratio=4.0, layer_scale=0.1)
    assert scaled.scale1 is not None
    assert torch.equal(scaled.scale1, torch.full((8,), 0.1))


def test_drop_path_drops_whole_clips_and_keeps_the_mean() -> None:
    drop, x = DropPath(0.25), torch.ones(4000, 3, 2)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        out = drop(x)
        torch.manual_seed(0)
        assert torch.equal(drop(x), out)
    assert out.unique().tolist() == pytest.approx([0.0, 1 / 0.75])
    assert (out == out[:, :1, :1]).all()
    assert float(out.mean()) == pytest.approx(1.0, abs=0.04)
    assert torch.equal(drop.eval()(x), x)


def test_drop_path_grows_linearly_over_depth() -> None:
    assert drop_path_rates(0.3, 4) == pytest.approx([0.0, 0.1, 0.2, 0.3])
    assert drop_path_rates(0.3, 1) == [0.0]


def test_mask_token_is_cut_at_one_deviation() -> None:
    token = torch.empty(1, 1, 4000)
    mask_token_(token)
    assert float(token.abs().max()) <= 0.02
    assert float(token.abs().max()) > 0.0195


def test_initial_weights() -> None:
    model = nn.Sequential(nn.Linear(200, 100), nn.LayerNorm(100), nn.Linear(100, 100, bias=False))
    filled(model).apply(xavier_)
    linear, norm = model[0], model[1]
    assert isinstance(linear, nn.Linear)
    assert isinstance(norm, nn.LayerNorm)
    assert float(linear.weight.detach().abs().max()) <= math.sqrt(6 / 300)
    assert not linear.bias.any()
    assert (norm.weight == 1).all()
    model.apply(truncated_normal_)
    assert float(linear.weight.detach().std()) == pytest.approx(0.02, rel=0.05)
