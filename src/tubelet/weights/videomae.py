"""VideoMAE's released checkpoints (V1 and V2) in and out: the same tensors under other names.

Sources: `modeling_pretrain.py` and `modeling_finetune.py` of MCG-NJU/VideoMAE and OpenGVLab/VideoMAEv2. Fixed position
tables and the bias of k are in neither form. Every pair of names below is (theirs, ours); `{}` stands for a number,
`{.}` for weight or bias.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from torch import Tensor

from tubelet.weights.rename import Rules, State, rename

Pairs = tuple[tuple[str, str], ...]

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
    ("encoder_to_decoder.weight", "decoder.narrow.weight"),
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


def from_official(state: Mapping[str, Tensor], pairs: Pairs, *, source: str = "checkpoint") -> State:
    """Their names to ours: `PRETRAINED` for a `MaskedAutoencoder`, `FINETUNED` for a `Classifier`.

    ValueError where a tensor has a name that the table does not know. Tensors are not copied.
    """
    return rename(state, _rules(pairs), source=source)


def to_official(state: Mapping[str, Tensor], pairs: Pairs, *, source: str = "model") -> State:
    """Our names to theirs: the inverse of `from_official`."""
    return rename(state, _rules(tuple((ours, theirs) for theirs, ours in pairs)), source=source)


def kind_of_official(state: Mapping[str, Tensor]) -> str | None:
    """Which of `CONVERTERS` fits a file by its cube embedding; None where it is not one of theirs."""
    if "encoder.patch_embed.proj.weight" in state:
        return "pretrained"
    return "finetuned" if "patch_embed.proj.weight" in state else None


def _rules(pairs: Pairs) -> Rules:
    return [(_pattern(old), _replacement(new)) for old, new in pairs]


def _pattern(name: str) -> str:
    return re.escape(name).replace(r"\{\}", r"(\d+)").replace(r"\{\.\}", r"(weight|bias)")


def _replacement(name: str) -> str:
    """Numbers and endings come in the same order on both sides."""
    parts = re.split(r"\{\.?\}", name)
    return "".join(f"{part}\\g<{number}>" for number, part in enumerate(parts[:-1], 1)) + parts[-1]
