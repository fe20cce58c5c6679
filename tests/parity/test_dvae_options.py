"""The parity test of the tokenizer runs unchanged on a case of another size, made by a plain implementation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from cases import Shapes, passes_on, random_weights
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from golden import load_case


def plain_logits(weights: dict[str, Tensor], image: Tensor, config: dict[str, Any]) -> Tensor:
    """From the authors' names, layer by layer."""

    def conv(name: str, x: Tensor) -> Tensor:
        weight = weights[f"encoder.blocks.{name}.w"]
        return F.conv2d(x, weight, weights[f"encoder.blocks.{name}.b"], padding=weight.shape[-1] // 2)

    groups, blocks = config["group_count"], config["n_blk_per_group"]
    x = conv("input", 0.8 * image + 0.1)
    for group in range(1, groups + 1):
        for block in range(1, blocks + 1):
            where = f"group_{group}.block_{block}"
            path = x
            for number in range(1, 5):
                path = conv(f"{where}.res_path.conv_{number}", F.relu(path))
            skips = f"encoder.blocks.{where}.id_path.w" in weights
            x = (conv(f"{where}.id_path", x) if skips else x) + path / (groups * blocks) ** 2
        x = F.max_pool2d(x, 2) if group < groups else x
    return conv("output.conv", F.relu(x))


def test_the_plain_implementation_is_the_authors() -> None:
    case = load_case("case08_dalle_dvae")
    logits = plain_logits(case.weight, case.input["image"], case.meta["config"])
    torch.testing.assert_close(logits, case.output["logits"], atol=1e-4, rtol=1e-4)


def shapes(config: dict[str, Any]) -> Shapes:
    found: Shapes = {"input": (config["n_hid"], 3, 7, 7)}
    before = config["n_hid"]
    for group in range(1, config["group_count"] + 1):
        width = config["n_hid"] * 2 ** (group - 1)
        for block in range(1, config["n_blk_per_group"] + 1):
            where, hidden = f"group_{group}.block_{block}", width // 4
            if before != width:
                found[f"{where}.id_path"] = (width, before, 1, 1)
            for number, into in enumerate((before, hidden, hidden), start=1):
                found[f"{where}.res_path.conv_{number}"] = (hidden, into, 3, 3)
            found[f"{where}.res_path.conv_4"] = (width, hidden, 1, 1)
            before = width
    found["output.conv"] = (config["vocab_size"], before, 1, 1)
    both: Shapes = {}
    for name, shape in found.items():
        both |= {f"encoder.blocks.{name}.w": shape, f"encoder.blocks.{name}.b": shape[:1]}
    return both


@pytest.mark.parametrize(("blocks", "image"), [(2, (2, 3, 48, 80)), (3, (1, 3, 64, 32))])
def test_other_sizes(blocks: int, image: tuple[int, ...], tmp_path: Path) -> None:
    config = {"group_count": 4, "image": list(image), "n_blk_per_group": blocks, "n_hid": 12, "n_init": 8}
    config["vocab_size"] = 96
    with torch.random.fork_rng():
        torch.manual_seed(0)
        weights, picture = random_weights(shapes(config)), torch.rand(image)
    leaves = {name: value.clone().requires_grad_() for name, value in weights.items()}
    logits = plain_logits(leaves, picture, config)
    F.cross_entropy(logits, torch.zeros(logits[:, 0].shape, dtype=torch.int64)).backward()
    best = logits.detach().topk(2, dim=1).values
    tensors = {f"weight/{name}": value for name, value in weights.items()}
    tensors |= {"input/image": picture, "output/logits": logits.detach(), "output/token_ids": logits.argmax(1)}
    tensors["output/token_margin"] = best[:, 0] - best[:, 1]
    for name in ("encoder.blocks.input.w", "encoder.blocks.group_4.block_1.res_path.conv_1.w"):
        gradient = leaves[name].grad
        assert gradient is not None
        tensors[f"grad_norm/{name}"] = gradient.norm().reshape(1)
    meta, file = {"golden": json.dumps({"config": config})}, tmp_path / "case08_dalle_dvae.safetensors"
    save_file({name: value.contiguous() for name, value in tensors.items()}, file, meta)
    assert "....." in passes_on(tmp_path, "test_dvae.py")
