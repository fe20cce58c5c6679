"""Golden-like cases of other sizes and options, written by a plain implementation, and parity tests run on them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

HERE = Path(__file__).parent
Outputs = Callable[[dict[str, Tensor]], dict[str, Tensor]]
Shapes = dict[str, tuple[int, ...]]


def with_gradients(weights: dict[str, Tensor], outputs: Outputs) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What `outputs` gives for these weights, and the gradients of its loss."""
    leaves = {name: value.clone().requires_grad_(value.is_floating_point()) for name, value in weights.items()}
    found = outputs(leaves)
    found["loss"].backward()
    gradients = {name: leaf.grad for name, leaf in leaves.items() if leaf.grad is not None}
    return {name: value.detach() for name, value in found.items()}, gradients


def random_weights(shapes: Shapes) -> dict[str, Tensor]:
    return {name: torch.randn(shape) * (0.5 if len(shape) == 1 else 0.1) for name, shape in shapes.items()}


def block_shapes(prefix: str, width: int, hidden: int, *, scaled: bool, cosine_heads: int = 0) -> Shapes:
    norms: Shapes = {f"{prefix}norm{n}.{part}": (width,) for n in (1, 2) for part in ("weight", "bias")}
    attention: Shapes = {f"{prefix}attn.q_bias": (width,), f"{prefix}attn.v_bias": (width,)}
    if cosine_heads:
        attention[f"{prefix}attn.scale"] = (cosine_heads, 1, 1)
    attention[f"{prefix}attn.qkv.weight"] = (3 * width, width)
    attention[f"{prefix}attn.proj.weight"] = (width, width)
    attention[f"{prefix}attn.proj.bias"] = (width,)
    mlp: Shapes = {f"{prefix}mlp.fc1.weight": (hidden, width), f"{prefix}mlp.fc1.bias": (hidden,)}
    mlp |= {f"{prefix}mlp.fc2.weight": (width, hidden), f"{prefix}mlp.fc2.bias": (width,)}
    scales = {f"{prefix}gamma_{n}": (width,) for n in (1, 2)} if scaled else {}
    return {**norms, **attention, **mlp, **scales}


def write_case(
    folder: Path, stem: str, *, config: dict[str, Any], weights: dict[str, Tensor], inputs: dict[str, Tensor],
    outputs: Outputs, detached: list[str],
) -> None:  # fmt: skip
    found, gradients = with_gradients(weights, outputs)
    norms = {name: gradient.norm().reshape(1) for name, gradient in gradients.items()}
    found["grad_norm_total"] = torch.cat(list(norms.values())).norm()
    meta = {
        "config": config,
        "extra": {"params_with_zero_or_no_grad": detached},
        "tolerance_per_output": {name: {"atol": 5e-5, "rtol": 1e-4} for name in found},
    }
    parts = {"weight": weights, "input": inputs, "grad_norm": norms}
    flat = {f"{part}/{name}": value.contiguous() for part, held in parts.items() for name, value in held.items()}
    flat |= {f"output/{name}": value.reshape(value.shape or (1,)).contiguous() for name, value in found.items()}
    save_file(flat, folder / f"{stem}.safetensors", metadata={"golden": json.dumps(meta)})


def passes_on(folder: Path, test_file: str) -> str:
    """Run a parity test file on the cases of this folder; what it printed. None may fail or be skipped."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(HERE / test_file)],
        env={**os.environ, "TUBELET_GOLDEN": str(folder), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        cwd=HERE.parents[1],
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert "skipped" not in done.stdout
    return done.stdout
