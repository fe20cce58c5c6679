"""Names of TimeSformer's checkpoints: its authors' and transformers', in and out.

Sources: `timesformer/models/vit.py` of facebookresearch/TimeSformer, transformers 5.23. Pairs are (theirs, ours) as in
`tubelet.weights.videomae.names`, ours those of a `Classifier` with pooling "class". Beside the names one shape differs:
theirs embed patches of images, ours cubes with one frame.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from torch import Tensor

from tubelet.disk.tensors import State
from tubelet.weights.tensors.rename import Pairs, from_official, to_official

_BLOCK: Final[Pairs] = (
    ("norm{}.{.}", "norm{}.{.}"),
    ("attn.qkv.{.}", "attention.qkv.{.}"),
    ("attn.proj.{.}", "attention.proj.{.}"),
    ("temporal_norm1.{.}", "temporal_norm.{.}"),
    ("temporal_attn.qkv.{.}", "temporal_attention.qkv.{.}"),
    ("temporal_attn.proj.{.}", "temporal_attention.proj.{.}"),
    ("temporal_fc.{.}", "temporal_fc.{.}"),
    ("mlp.fc{}.{.}", "mlp.fc{}.{.}"),
)
AUTHORS: Final[Pairs] = (
    ("cls_token", "encoder.class_token"),
    ("pos_embed", "encoder.pos_embed"),
    ("time_embed", "encoder.time_embed"),
    ("patch_embed.proj.{.}", "encoder.patch_embed.{.}"),
    *((f"blocks.{{}}.{theirs}", f"encoder.blocks.{{}}.{ours}") for theirs, ours in _BLOCK),
    ("norm.{.}", "encoder.norm.{.}"),
    ("head.{.}", "head.{.}"),
)
"""Behind `without_prefix`: released files have `model.` in front of every name."""
_HF_BLOCK: Final[Pairs] = (
    ("layernorm_before.{.}", "norm1.{.}"),
    ("layernorm_after.{.}", "norm2.{.}"),
    ("attention.attention.qkv.{.}", "attention.qkv.{.}"),
    ("attention.output.dense.{.}", "attention.proj.{.}"),
    ("temporal_layernorm.{.}", "temporal_norm.{.}"),
    ("temporal_attention.attention.qkv.{.}", "temporal_attention.qkv.{.}"),
    ("temporal_attention.output.dense.{.}", "temporal_attention.proj.{.}"),
    ("temporal_dense.{.}", "temporal_fc.{.}"),
    ("intermediate.dense.{.}", "mlp.fc1.{.}"),
    ("output.dense.{.}", "mlp.fc2.{.}"),
)
HUGGINGFACE: Final[Pairs] = (
    ("timesformer.embeddings.cls_token", "encoder.class_token"),
    ("timesformer.embeddings.position_embeddings", "encoder.pos_embed"),
    ("timesformer.embeddings.time_embeddings", "encoder.time_embed"),
    ("timesformer.embeddings.patch_embeddings.projection.{.}", "encoder.patch_embed.{.}"),
    *((f"timesformer.encoder.layer.{{}}.{theirs}", f"encoder.blocks.{{}}.{ours}") for theirs, ours in _HF_BLOCK),
    ("timesformer.layernorm.{.}", "encoder.norm.{.}"),
    ("classifier.{.}", "head.{.}"),
)
"""transformers' `TimesformerForVideoClassification`."""
PREFIX: Final = "model."
_EMBEDDING: Final = "encoder.patch_embed.weight"


def without_prefix(state: Mapping[str, Tensor]) -> State:
    """Names as the authors' module has them, whether the file is of the module or of its wrapper."""
    return {name.removeprefix(PREFIX): value for name, value in state.items()}


def from_theirs(state: Mapping[str, Tensor], pairs: Pairs, *, source: str = "checkpoint") -> State:
    """Their tensors by our names and in our shapes; ValueError where a name is not known."""
    ours = from_official(state, pairs, source=source)
    return {name: value.unsqueeze(2) if name == _EMBEDDING else value for name, value in ours.items()}


def to_theirs(state: Mapping[str, Tensor], pairs: Pairs, *, source: str = "model") -> State:
    """The inverse of `from_theirs`."""
    flat = {name: value.squeeze(2) if name == _EMBEDDING else value for name, value in state.items()}
    return to_official(flat, pairs, source=source)
