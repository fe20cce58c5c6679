"""Names of Swin's checkpoints: Video Swin's and BEVT's (mmaction), and those of 2-D Swin, which are to be inflated.

Sources: SwinTransformer/Video-Swin-Transformer, xyzforever/BEVT, microsoft/Swin-Transformer, transformers 5.23. Pairs
are (theirs, ours) as in `tubelet.weights.videomae.names`. Indices and masks that follow from sizes are in files and in
no model of ours.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor

from tubelet.disk.tensors import State
from tubelet.weights.tensors.rename import Pairs

_BLOCK: Final[Pairs] = (
    ("norm{}.{.}", "norm{}.{.}"),
    ("attn.qkv.{.}", "attention.qkv.{.}"),
    ("attn.proj.{.}", "attention.proj.{.}"),
    ("attn.relative_position_bias_table", "attention.table"),
    ("mlp.fc{}.{.}", "mlp.fc{}.{.}"),
)
ENCODER: Final[Pairs] = (
    ("patch_embed.proj.{.}", "patch_embed.{.}"),
    ("patch_embed.norm.{.}", "patch_embed.norm.{.}"),
    *((f"layers.{{}}.blocks.{{}}.{theirs}", f"stages.{{}}.blocks.{{}}.{ours}") for theirs, ours in _BLOCK),
    ("layers.{}.downsample.norm.{.}", "stages.{}.merge.norm.{.}"),
    ("layers.{}.downsample.reduction.weight", "stages.{}.merge.reduction.weight"),
    ("norm.{.}", "norm.{.}"),
)
"""The encoder alone: 2-D Swin as its authors write it, but for a `head`."""
CLASSIFIER: Final[Pairs] = (
    *((f"backbone.{theirs}", f"encoder.{ours}") for theirs, ours in ENCODER),
    ("cls_head.fc_cls.{.}", "head.{.}"),
)
"""Video Swin, and BEVT once it is fine-tuned: a `Classifier` with pooling "normed_mean"."""
BEVT_ENCODER: Final[Pairs] = (
    *((f"backbone.{theirs}", ours) for theirs, ours in ENCODER),
    ("backbone.mask_token", "mask_token"),
)
"""What BEVT's two streams share, as the names of a `Swin`, with the embedding of videos."""
BEVT_IMAGE_EMBEDDING: Final[Pairs] = (
    ("backbone.patch_embed_2d.proj.{.}", "{.}"),
    ("backbone.patch_embed_2d.norm.{.}", "norm.{.}"),
)
"""As the names of the `PatchEmbed` of images; see `with_frame_axis`."""
FIXED: Final = r".*(relative_position_index|attn_mask|rel_pos_index)"

_HF_BLOCK: Final[Pairs] = (
    ("layernorm_before.{.}", "norm1.{.}"),
    ("attention.self.qkv.{.}", "attention.qkv.{.}"),
    ("attention.output.dense.{.}", "attention.proj.{.}"),
    ("attention.self.relative_position_bias_table", "attention.table"),
    ("layernorm_after.{.}", "norm2.{.}"),
    ("intermediate.dense.{.}", "mlp.fc1.{.}"),
    ("output.dense.{.}", "mlp.fc2.{.}"),
)
HUGGINGFACE: Final[Pairs] = (
    ("embeddings.patch_embeddings.projection.{.}", "patch_embed.{.}"),
    ("embeddings.norm.{.}", "patch_embed.norm.{.}"),
    ("embeddings.mask_token", "mask_token"),
    *((f"encoder.layers.{{}}.blocks.{{}}.{theirs}", f"stages.{{}}.blocks.{{}}.{ours}") for theirs, ours in _HF_BLOCK),
    ("encoder.layers.{}.downsample.norm.{.}", "stages.{}.merge.norm.{.}"),
    ("encoder.layers.{}.downsample.reduction.weight", "stages.{}.merge.reduction.weight"),
    ("layernorm.{.}", "norm.{.}"),
)
"""transformers' `SwinModel` on the disk, behind `joined` and without its prefix `swin.`."""
_PART: Final = re.compile(r"(.*\.attention\.self\.)(query|key|value)\.(weight|bias)")


def without_fixed(state: Mapping[str, Tensor]) -> State:
    """Without what follows from sizes."""
    return {name: value for name, value in state.items() if not re.fullmatch(FIXED, name)}


def joined(state: Mapping[str, Tensor]) -> State:
    """transformers' matrices and biases of q, k and v in one each, q first; ValueError where one of them is missing."""
    out: State = {}
    parts: dict[str, dict[str, Tensor]] = {}
    for name, value in state.items():
        match = _PART.fullmatch(name)
        if match is None:
            out[name] = value
        else:
            parts.setdefault(f"{match[1]}qkv.{match[3]}", {})[match[2]] = value
    for name, found in parts.items():
        missing = [part for part in ("query", "key", "value") if part not in found]
        if missing:
            raise ValueError(f"{name} cannot be put together: the file lacks its {' and '.join(missing)}")
        out[name] = torch.cat([found[part] for part in ("query", "key", "value")])
    return out


def with_frame_axis(state: Mapping[str, Tensor]) -> State:
    """The embedding of images as one of cubes with one frame: `weight` [D,C,p,q] to [D,C,1,p,q]."""
    return {**state, "weight": state["weight"].unsqueeze(2)}
