"""The tensors of a Hugging Face VideoMAE folder: reading them, and their names to ours and back.

Three things are re-arranged before the rename and after it; the rename itself is strict. transformers keeps the
matrices of q, k and v apart, ours lie in one (q, then k, then v); its biases of q and v have had two spellings on the
disk; and a bias of k, which has no effect, is left out. Names are those that transformers 5.23 writes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from tubelet.disk.tensors import State
from tubelet.weights.huggingface.config import CONFIG, VideoMAEConfig, read_json
from tubelet.weights.tensors.files import WEIGHTS, read_tensors
from tubelet.weights.tensors.rename import Pairs

INDEXES: Final = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
INNER: Final = "videomae."
"""In front of the encoder's names in models that have something on top of it."""
_ATTENTION: Final = "attention.attention."
_SPELLINGS: Final = (("query.bias", "q_bias"), ("value.bias", "v_bias"))
_PARTS: Final = ("query", "key", "value")
BLOCK: Final[Pairs] = (
    ("layernorm_before.{.}", "norm1.{.}"),
    (f"{_ATTENTION}q_bias", "attention.q_bias"),
    (f"{_ATTENTION}v_bias", "attention.v_bias"),
    (f"{_ATTENTION}qkv.weight", "attention.qkv.weight"),
    ("attention.output.dense.{.}", "attention.proj.{.}"),
    ("layernorm_after.{.}", "norm2.{.}"),
    ("intermediate.dense.{.}", "mlp.fc1.{.}"),
    ("output.dense.{.}", "mlp.fc2.{.}"),
)
ENCODER: Final[Pairs] = (
    ("embeddings.patch_embeddings.projection.{.}", "encoder.patch_embed.{.}"),
    *((f"encoder.layer.{{}}.{theirs}", f"encoder.blocks.{{}}.{ours}") for theirs, ours in BLOCK),
    ("layernorm.{.}", "encoder.norm.{.}"),
)
PRETRAINED: Final[Pairs] = (
    *((INNER + theirs, ours) for theirs, ours in ENCODER),
    ("encoder_to_decoder.weight", "decoder.encoder_to_decoder.weight"),
    ("mask_token", "decoder.mask_token"),
    *((f"decoder.decoder_layers.{{}}.{theirs}", f"decoder.blocks.{{}}.{ours}") for theirs, ours in BLOCK),
    ("decoder.norm.{.}", "decoder.norm.{.}"),
    ("decoder.head.{.}", "decoder.head.{.}"),
)
FINETUNED: Final[Pairs] = (
    *((INNER + theirs, ours) for theirs, ours in ENCODER),
    ("fc_norm.{.}", "fc_norm.{.}"),
    ("classifier.{.}", "head.{.}"),
)


def read_weights(folder: Path) -> tuple[Path, State]:
    """The file (or the index of several) and all tensors in it, under transformers' names.

    ValueError where there is none, one of several is missing, or a file is damaged. Nothing is executed.
    """
    for name in WEIGHTS:
        if (folder / name).is_file():
            return folder / name, read_tensors(folder / name)
    for name in INDEXES:
        if (folder / name).is_file():
            return folder / name, _read_shards(folder / name)
    raise ValueError(f"{folder}: has a {CONFIG} but no weights; give it {' or '.join((*WEIGHTS, INDEXES[0]))}")


def _read_shards(index: Path) -> State:
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise ValueError(f"{index}: has no weight_map that says which file holds which tensor")
    state: State = {}
    for name in sorted(set(map(str, places.values()))):
        if Path(name).name != name:
            raise ValueError(f"{index}: {name!r} is not the name of a file beside it")
        state |= read_tensors(index.parent / name)
    if state.keys() != places.keys():
        odd = sorted(state.keys() ^ places.keys())[0]
        raise ValueError(f"{index}: its files and its weight_map do not hold the same tensors ({odd})")
    return state


def one_spelling(state: Mapping[str, Tensor]) -> State:
    """`query.bias` and `value.bias` as `q_bias` and `v_bias`, as all but a few versions of transformers write them."""
    renamed: State = {}
    for name, tensor in state.items():
        for old, new in _SPELLINGS:
            if name.endswith(_ATTENTION + old):
                name = name.removesuffix(old) + new
        renamed[name] = tensor
    return renamed


def zero_key_biases(state: Mapping[str, Tensor], file: Path) -> tuple[str, ...]:
    """Names of biases of k, to be left out. ValueError where one is not zero: then it is another kind of model."""
    names = tuple(name for name in state if re.search(rf"{re.escape(_ATTENTION)}(key\.bias|k_bias)$", name))
    for name in names:
        if state[name].any():
            raise ValueError(f"{file}: {name} is not zero, but keys of VideoMAE have no bias; is it another model?")
    return names


def joined(state: Mapping[str, Tensor], config: VideoMAEConfig | None, file: Path) -> State:
    """The matrices of q, k and v in one, and zero biases where there are none. `split` is the inverse.

    ValueError where a config promises biases of q and v and the file has none, or the reverse.
    """
    out = dict(state)
    for prefix in _attentions(state):
        weights = [out.pop(f"{prefix}{part}.weight", None) for part in _PARTS]
        found = [weight for weight in weights if weight is not None]
        if len(found) < len(_PARTS):
            raise ValueError(f"{file}: {prefix} lacks the matrix of {' or '.join(_PARTS)}")
        out[f"{prefix}qkv.weight"] = torch.cat(found)
        for name in ("q_bias", "v_bias"):
            if config is not None and (prefix + name in out) != config.has_biases:
                raise ValueError(_bias_mistake(prefix + name, config, file))
            out.setdefault(prefix + name, torch.zeros_like(found[0][:, 0]))
    return out


def _bias_mistake(name: str, config: VideoMAEConfig, file: Path) -> str:
    if not config.has_biases:
        return f"{file}: has {name} although {CONFIG} says qv_bias false; set it to true if the model was trained so"
    return (
        f"{file}: lacks {name} although {CONFIG} says qv_bias true; some 5.x versions of transformers lose these biases"
        " when they load and save: convert the original checkpoint again"
    )


def split(state: Mapping[str, Tensor]) -> State:
    """Each joint matrix in three, under transformers' names."""
    out: State = {}
    for name, tensor in state.items():
        if name.endswith(f"{_ATTENTION}qkv.weight"):
            prefix = name.removesuffix("qkv.weight")
            parts = zip(_PARTS, tensor.chunk(3), strict=True)
            out |= {f"{prefix}{part}.weight": rows.clone() for part, rows in parts}
        else:
            out[name] = tensor
    return out


def all_biases_zero(state: Mapping[str, Tensor]) -> bool:
    """Whether every bias of q and v is zero, which training hardly leaves."""
    biases = [t for name, t in state.items() if name.endswith((f"{_ATTENTION}q_bias", f"{_ATTENTION}v_bias"))]
    return bool(biases) and not any(bias.any() for bias in biases)


def _attentions(state: Mapping[str, Tensor]) -> list[str]:
    """What stands in front of the tensors of each attention."""
    found = (re.match(rf"(.*{re.escape(_ATTENTION)})(?:query|key|value)\.weight$", name) for name in state)
    return sorted({match[1] for match in found if match})
