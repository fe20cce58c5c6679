"""VideoMAE's released checkpoints (V1 and V2) in and out: the same tensors under other names.

Sources: `modeling_pretrain.py` and `modeling_finetune.py` of MCG-NJU/VideoMAE and OpenGVLab/VideoMAEv2. Fixed position
tables and the bias of k are in neither form. Every pair of names below is (theirs, ours); `{}` stands for a number,
`{.}` for weight or bias.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from torch import Tensor

from tubelet.weights.tensors.rename import Pairs

_BLOCK: Final[Pairs] = (
    ("norm{}.{.}", "norm{}.{.}"),
    ("attn.q_bias", "attention.q_bias"),
    ("attn.v_bias", "attention.v_bias"),
    ("attn.scale", "attention.scale"),  # of cosine attention, V2 only
    ("attn.qkv.weight", "attention.qkv.weight"),
    ("attn.proj.{.}", "attention.proj.{.}"),
    ("mlp.fc{}.{.}", "mlp.fc{}.{.}"),
    ("gamma_{}", "scale{}"),
)
_ENCODER: Final[Pairs] = (
    ("pos_embed", "pos_embed"),
    ("patch_embed.proj.{.}", "patch_embed.{.}"),
    *((f"blocks.{{}}.{theirs}", f"blocks.{{}}.{ours}") for theirs, ours in _BLOCK),
    ("norm.{.}", "norm.{.}"),
)
PRETRAINED: Final[Pairs] = (
    *((f"encoder.{theirs}", f"encoder.{ours}") for theirs, ours in _ENCODER),
    ("encoder_to_decoder.weight", "decoder.encoder_to_decoder.weight"),
    ("mask_token", "decoder.mask_token"),
    *((f"decoder.blocks.{{}}.{theirs}", f"decoder.blocks.{{}}.{ours}") for theirs, ours in _BLOCK),
    ("decoder.norm.{.}", "decoder.norm.{.}"),
    ("decoder.head.{.}", "decoder.head.{.}"),
)
FINETUNED: Final[Pairs] = (
    *((theirs, f"encoder.{ours}") for theirs, ours in _ENCODER),
    ("fc_norm.{.}", "fc_norm.{.}"),
    ("head.{.}", "head.{.}"),
)
CONVERTERS: Final[dict[str, Pairs]] = {"pretrained": PRETRAINED, "finetuned": FINETUNED}


def kind_of_official(state: Mapping[str, Tensor]) -> str | None:
    """Which of `CONVERTERS` fits a file by its cube embedding; None where it is not one of theirs."""
    if "encoder.patch_embed.proj.weight" in state:
        return "pretrained"
    return "finetuned" if "patch_embed.proj.weight" in state else None
