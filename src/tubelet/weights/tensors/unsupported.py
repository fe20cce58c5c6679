"""What a checkpoint is that is not of VideoMAE: one clear line instead of missing keys."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from torch import Tensor

READS: Final = (
    "tubelet reads its own runs, VideoMAE and VideoMAE V2 files, SlowFast MViTv2 and MaskFeat files and Hugging Face "
    "VideoMAE folders"
)
_EMBEDDINGS: Final = (
    "patch_embed.proj.weight",  # timm, DeiT, MAE; VideoMAE too, with one axis more
    "patch_embeddings.projection.weight",  # transformers
    "conv_proj.weight",  # torchvision
    "visual.conv1.weight",  # CLIP
)
_MARKS: Final = (
    ("relative_position_bias_table", "a Swin transformer (Video Swin, BEVT)"),
    ("rel_pos_h", "a multiscale transformer (MViT) that does not pool as MViTv2 does"),
    ("temporal_attn", "TimeSformer"),
    ("temporal_attention", "TimeSformer"),
)


def refusal(state: Mapping[str, Tensor], file: Path) -> str:
    """One line: what the tensors are, as far as their names and shapes tell, and what to give instead."""
    for mark, model in _MARKS:
        if any(mark in name for name in state):
            return f"{file}: weights of {model}, which tubelet does not build; {READS}"
    for name, tensor in state.items():
        if name.endswith(_EMBEDDINGS):
            return f"{file}: {_by_embedding(name, tensor, state)}"
    some = ", ".join(sorted(state)[:3]) or "nothing"
    return f"{file}: not a checkpoint of tubelet or VideoMAE: no encoder among its tensors ({some}); {READS}"


def is_image_model(embedding: Tensor) -> bool:
    """Whether a patch embedding has no axis of time."""
    return embedding.ndim == 4


def _by_embedding(name: str, tensor: Tensor, state: Mapping[str, Tensor]) -> str:
    shape = list(tensor.shape)
    if is_image_model(tensor):
        return (
            f"an image ViT: {name} is {shape}, of frames without time; a video model's has five axes; "
            f"give weights of a video model, or train one with tubelet pretrain ({READS})"
        )
    if "videomae." in name or name.startswith("embeddings."):
        return "the weights of a Hugging Face VideoMAE folder; give the folder, which needs its config.json"
    if any(other.endswith("cls_token") for other in state):
        return (
            "a video ViT with a class token, which VideoMAE does not have (is it MAE-ST?); tubelet does not build it; "
            f"{READS}"
        )
    return f"no VideoMAE: {name} is {shape}, but the rest has other names ({', '.join(sorted(state)[:3])}); {READS}"
