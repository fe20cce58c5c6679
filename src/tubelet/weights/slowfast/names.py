"""SlowFast's checkpoints of multiscale transformers in and out: the same tensors under other names.

Sources: `video_model_builder.py`, `attention.py`, `head_helper.py` and `masked.py` of facebookresearch/SlowFast. Pairs
are (theirs, ours) as in `tubelet.weights.videomae.names`.
"""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from typing import Final

from torch import Tensor

from tubelet.weights.tensors.rename import Pairs

_BLOCK: Final[Pairs] = (
    ("norm{}.{.}", "norm{}.{.}"),
    ("attn.qkv.{.}", "attention.qkv.{.}"),
    ("attn.proj.{.}", "attention.proj.{.}"),
    *((f"attn.pool_{part}.weight", f"attention.pool_{part}.weight") for part in "qkv"),
    *((f"attn.norm_{part}.{{.}}", f"attention.pool_{part}.norm.{{.}}") for part in "qkv"),
    *((f"attn.rel_pos_{axis}", f"attention.relative.rel_pos_{axis}") for axis in "thw"),
    ("mlp.fc{}.{.}", "mlp.fc{}.{.}"),
    ("proj.{.}", "proj.{.}"),
)
_ENCODER: Final[Pairs] = (
    ("patch_embed.proj.{.}", "patch_embed.{.}"),
    ("cls_token", "class_token"),
    ("mask_token", "mask_token"),
    ("pos_embed_spatial", "pos_embed_space"),
    ("pos_embed_temporal", "pos_embed_time"),
    ("pos_embed_class", "pos_embed_class"),
    *((f"blocks.{{}}.{theirs}", f"blocks.{{}}.{ours}") for theirs, ours in _BLOCK),
)
_IN_ENCODER: Final[Pairs] = tuple((theirs, f"encoder.{ours}") for theirs, ours in _ENCODER)
CLASSIFIER: Final[Pairs] = (
    *_IN_ENCODER,
    ("norm.{.}", "encoder.norm.{.}"),
    ("head.projection.{.}", "head.{.}"),
)
"""With a final norm inside the encoder: poolings "class" and "normed_mean"."""
MEAN_CLASSIFIER: Final[Pairs] = (
    *_IN_ENCODER,
    ("norm.{.}", "fc_norm.{.}"),
    ("head.projection.{.}", "head.{.}"),
)
"""With the norm behind the mean of the tokens: pooling "mean", as MaskFeat is fine-tuned."""
MASKFEAT: Final[Pairs] = (
    *_IN_ENCODER,
    ("pred_head.transforms.0.0.{.}", "encoder.norm.{.}"),
    ("pred_head.projections.0.{.}", "prediction_head.{.}"),
)
"""MaskFeat's pre-training; `hogs.0.weight_x` and `weight_y` are fixed filters and left out."""
CONVERTERS: Final[dict[str, Pairs]] = {"mvit": CLASSIFIER, "mvit_mean": MEAN_CLASSIFIER, "maskfeat": MASKFEAT}
FIXED: Final = r"hogs\.\d+\.weight_[xy]"
_MARK: Final = "blocks.0.attn.pool_k.weight"


def is_slowfast(names: Container[str]) -> bool:
    """Whether these are names of a multiscale transformer that pools by convolutions."""
    return _MARK in names and "patch_embed.proj.weight" in names


def kind_of(state: Mapping[str, Tensor], mean_pooling: bool | None) -> tuple[str, tuple[str, ...]]:
    """Which of `CONVERTERS` fits, and notes on what was assumed.

    The tensors of a classifier do not tell whether the norm comes before or behind the mean of tokens; `mean_pooling`
    does. Without it, tokens that widen in MLPs are taken as MaskFeat's, which pools first.
    """
    if any(name == "mask_token" or name.startswith("pred_head.") for name in state):
        return "maskfeat", ()
    if mean_pooling is None and "head.projection.weight" in state:
        found = "mvit_mean" if _widens_in_mlp(state) else "mvit"
        what = "the mean of tokens" if found == "mvit_mean" else "the class token"
        return found, (f"what the head reads is not in the file: taken as {what}, as published models of this form",)
    return ("mvit_mean" if mean_pooling else "mvit"), ()


def _widens_in_mlp(state: Mapping[str, Tensor]) -> bool:
    last = [name for name in state if re.fullmatch(r"blocks\.\d+\.proj\.weight", name)]
    widens = [state[name.replace(".proj.", ".mlp.fc1.")].shape[1] == state[name].shape[1] for name in last]
    return bool(widens) and all(widens)
