"""The authors' files of VideoMAE V1 and V2, however their names were wrapped: what is in one, and what is left out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from torch import Tensor

from tubelet.disk.tensors import State, in_float32
from tubelet.nn.position import sinusoid
from tubelet.weights.checkpoint import Undescribed
from tubelet.weights.tensors.files import OpenedWeights
from tubelet.weights.tensors.given import Given
from tubelet.weights.tensors.options import SavedOptions
from tubelet.weights.tensors.rename import check_unwrapped, from_official, unwrapped
from tubelet.weights.tensors.unsupported import is_image_model
from tubelet.weights.videomae.names import CONVERTERS, kind_of_official
from tubelet.weights.videomae.recipe import clip_of, describe
from tubelet.weights.videomae.shapes import USUAL

ENCODER: Final = "encoder."
GIANT_PATCH: Final = 14
"""Of ViT-g, which only VideoMAE V2 has. The smaller files of V2 have the same names and shapes as those of V1."""
_TABLES: Final = ("pos_embed", "encoder.pos_embed", "decoder.pos_embed")


def matches(opened: OpenedWeights) -> bool:
    """Whether the names, without wrappers, are those of VideoMAE and of no model beside it."""
    theirs = {short: opened.tensors[name] for short, name in unwrapped(opened.tensors).items()}
    return kind_of_official(theirs) is not None and not _is_other_model(theirs)


def read(opened: OpenedWeights) -> Undescribed:
    """Rename strictly; ValueError in one line where a tensor has no place, or two models are in the file."""
    file, state = opened.file, opened.content.state
    names = unwrapped(state)
    check_unwrapped(names, state, file)
    theirs = {short: state[name] for short, name in names.items()}
    kind = kind_of_official(theirs)
    assert kind is not None
    if kind == "pretrained" and _is_wrapped_classifier(theirs):
        names = {short.removeprefix(ENCODER): name for short, name in names.items()}
        kind, theirs = "finetuned", {short.removeprefix(ENCODER): tensor for short, tensor in theirs.items()}
    useless = _useless(theirs, kind, file)
    kept = {short: tensor for short, tensor in theirs.items() if short not in useless.names}
    ours, notes = in_float32(from_official(kept, CONVERTERS[kind], source=str(file)))
    options = SavedOptions.of(opened.content.options)
    return Undescribed(
        file,
        _words(ours, options),
        ours,
        describe,
        clip_of,
        Given(file, options=options, tokens=useless.tokens),
        usual=USUAL,
        dropped=tuple(names[short] for short in useless.names),
        notes=(*useless.notes, *notes),
    )


def _words(state: State, options: SavedOptions) -> str:
    is_v2 = (
        options.is_v2
        or "encoder.blocks.0.attention.scale" in state  # cosine attention
        or state["encoder.patch_embed.weight"].shape[-1] == GIANT_PATCH
    )
    version = " V2" if is_v2 else ""
    if "head.bias" in state:
        return f"VideoMAE{version} classifier, {len(state['head.bias'])} classes"
    if any(name.startswith("decoder.") for name in state):
        return f"VideoMAE{version} pre-training"
    return f"VideoMAE{version} encoder alone"


def _is_other_model(theirs: Mapping[str, Tensor]) -> bool:
    embedding = next(tensor for name, tensor in theirs.items() if name.endswith("patch_embed.proj.weight"))
    others = ("cls_token", "rel_pos_h", "relative_position_bias_table", "temporal_attn.qkv.weight")
    return is_image_model(embedding) or any(name.endswith(others) for name in theirs)


def _is_wrapped_classifier(theirs: Mapping[str, Tensor]) -> bool:
    """A fine-tuned model whose names all begin with `encoder.`: pre-trained encoders have no `fc_norm`."""
    return all(name.startswith(ENCODER) for name in theirs) and "encoder.fc_norm.weight" in theirs


class _Useless(NamedTuple):
    """Names in the file without wrappers, a reason for each, and the rows of a fixed table that was among them."""

    names: tuple[str, ...]
    notes: tuple[str, ...]
    tokens: int | None


def _useless(theirs: Mapping[str, Tensor], kind: str, file: Path) -> _Useless:
    """Tensors that are known to have no effect."""
    dropped, notes, tokens = [], [], None
    for name in _TABLES:
        table = theirs.get(name)
        if table is not None and _is_fixed_table(table):
            dropped.append(name)
            notes.append(f"{name} is the fixed sine table; tubelet makes it itself")
            tokens = table.shape[1]
        elif table is not None and name != ("pos_embed" if kind == "finetuned" else "encoder.pos_embed"):
            raise ValueError(f"{file}: {name} is a learnt position table where VideoMAE has a fixed one")
    if kind == "pretrained":
        heads = [name for name in theirs if name.startswith(("encoder.head.", "encoder.fc_norm."))]
        notes += [f"{', '.join(heads)}: pre-training reads tokens, not classes"] if heads else []
    else:
        mean = "fc_norm.weight" in theirs
        heads = [name for name in theirs if mean and name.startswith("norm.")]
        notes += [f"{', '.join(heads)}: with fc_norm the classifier reads the mean of unnormed tokens"] if heads else []
    return _Useless((*dropped, *heads), tuple(notes), tokens)


def _is_fixed_table(table: Tensor) -> bool:
    if table.ndim != 3 or table.shape[0] != 1 or not table.is_floating_point():
        return False
    rounding = 1e-4 if table.element_size() >= 4 else 1e-2
    fixed = sinusoid(table.shape[1], table.shape[2])
    return bool((table.float() - fixed).abs().max() < rounding)
