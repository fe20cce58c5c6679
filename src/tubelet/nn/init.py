"""Initial weights as the authors draw them; all from torch's default generator (the loop names the draw)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


@torch.no_grad()
def mask_token_(token: Tensor, std: float = 0.02) -> None:
    """Normal, cut at one deviation (V1 `modeling_pretrain.py`: a = -std, b = std; narrower than usual)."""
    nn.init.trunc_normal_(token, std=std, a=-std, b=std)


@torch.no_grad()
def xavier_(module: nn.Module) -> None:
    """For `module.apply`: pre-training. Linear: Xavier uniform, bias 0; LayerNorm: 1 and 0.

    The cube embedding keeps PyTorch's default of a convolution, as with the authors.
    """
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
    _zero_bias_and_unit_norm(module)


@torch.no_grad()
def truncated_normal_(module: nn.Module) -> None:
    """For `module.apply`: classifiers. Linear: normal with deviation 0.02, bias 0; LayerNorm: 1 and 0."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
    _zero_bias_and_unit_norm(module)


def _zero_bias_and_unit_norm(module: nn.Module) -> None:
    if isinstance(module, nn.LayerNorm):
        nn.init.ones_(module.weight)
    if isinstance(module, nn.Linear | nn.LayerNorm) and module.bias is not None:
        nn.init.zeros_(module.bias)


@torch.no_grad()
def biased_normal_(module: nn.Module) -> None:
    """For `module.apply`: multiscale transformers. Linear and convolution: normal with deviation 0.02.

    Biases of linear maps and norms start at 0.02 (SlowFast `video_model_builder.py`); that of a convolution keeps
    PyTorch's default.
    """
    if isinstance(module, nn.Linear | nn.Conv3d):
        nn.init.trunc_normal_(module.weight, std=0.02)
    if isinstance(module, nn.LayerNorm):
        nn.init.ones_(module.weight)
    if isinstance(module, nn.Linear | nn.LayerNorm) and module.bias is not None:
        nn.init.constant_(module.bias, 0.02)
