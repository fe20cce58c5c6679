"""The authors' files, however their names were wrapped: what is in one, under our names, and what is left out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from torch import Tensor

from tubelet.disk.tensors import State
from tubelet.nn.position import sinusoid
from tubelet.weights.slowfast import names as slowfast
from tubelet.weights.tensors.rename import from_official
from tubelet.weights.tensors.slowfast_config import SlowFastConfig
from tubelet.weights.tensors.unsupported import is_image_model, refusal
from tubelet.weights.videomae.names import CONVERTERS, kind_of_official

ANYWHERE: Final = ("_orig_mod.", "_checkpoint_wrapped_module.")
"""Put into names by `torch.compile` and by checkpointing of activations; never a name of a part."""
IN_FRONT: Final = ("module.", "model.", "backbone.")
"""Taken away where every name has it: DataParallel, and classes that hold the model as one of their parts."""
ENCODER: Final = "encoder."
_BACKBONE: Final = "backbone."
_TABLES: Final = ("pos_embed", "encoder.pos_embed", "decoder.pos_embed")


@dataclass(frozen=True)
class Official:
    """Tensors under our names; `kind` is a key of `CONVERTERS` here or in `tubelet.weights.slowfast.names`.

    `tokens` is the number of rows of a fixed position table that was saved though it need not be. `dropped` has names
    as in the file.
    """

    kind: str
    state: State
    tokens: int | None = None
    dropped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def from_file(state: Mapping[str, Tensor], file: Path, config: SlowFastConfig = SlowFastConfig()) -> Official:
    """Recognise and rename; ValueError in one line where it is another model, or a tensor has no place.

    `config` tells how a multiscale classifier of SlowFast pools.
    """
    names = unwrapped(state, file)
    theirs = {short: state[name] for short, name in names.items()}
    if slowfast.is_slowfast(theirs):
        return _multiscale(theirs, names, file, config)
    kind = kind_of_official(theirs)
    if kind is None or _is_other_model(theirs):
        raise ValueError(refusal(theirs, file))
    if kind == "pretrained" and _is_wrapped_classifier(theirs):
        names = {short.removeprefix(ENCODER): name for short, name in names.items()}
        kind, theirs = "finetuned", {short.removeprefix(ENCODER): tensor for short, tensor in theirs.items()}
    useless = _useless(theirs, kind, file)
    kept = {short: tensor for short, tensor in theirs.items() if short not in useless.dropped}
    renamed = from_official(kept, CONVERTERS[kind], source=str(file))
    return replace(useless, kind=kind, state=renamed, dropped=tuple(names[short] for short in useless.dropped))


def _multiscale(theirs: Mapping[str, Tensor], names: Mapping[str, str], file: Path, config: SlowFastConfig) -> Official:
    fixed = tuple(name for name in theirs if re.fullmatch(slowfast.FIXED, name))
    kept = {name: tensor for name, tensor in theirs.items() if name not in fixed}
    kind, notes = slowfast.kind_of(kept, config.mean_pooling)
    renamed = from_official(kept, slowfast.CONVERTERS[kind], source=str(file))
    notes += (f"{', '.join(fixed)}: fixed filters of the target, which tubelet makes itself",) if fixed else ()
    return Official(kind, renamed, None, tuple(names[short] for short in fixed), notes)


def unwrapped(state: Mapping[str, Tensor], file: Path) -> dict[str, str]:
    """Names without what wrappers put into them, each with its name in the file.

    ValueError where two names become one.
    """
    names = {_without(name, ANYWHERE): name for name in state}
    _check_count(names, state, file)
    found = True
    while found and names:
        found = False
        for prefix in IN_FRONT:
            if all(name.startswith(prefix) for name in names):
                names = {name.removeprefix(prefix): old for name, old in names.items()}
                found = True
    if any(name.startswith(f"{_BACKBONE}patch_embed.") for name in names):  # the head is beside the backbone
        names = {name.removeprefix(_BACKBONE): old for name, old in names.items()}
    _check_count(names, state, file)
    return names


def _without(name: str, parts: tuple[str, ...]) -> str:
    for part in parts:
        name = name.replace(part, "")
    return name


def _check_count(names: Mapping[str, str], state: Mapping[str, Tensor], file: Path) -> None:
    if len(names) < len(state):
        lost = next(name for name in state if name not in names.values())
        raise ValueError(f"{file}: {lost} is there twice, with and without a prefix; keep one of the two models in it")


def _is_other_model(theirs: Mapping[str, Tensor]) -> bool:
    embedding = next(tensor for name, tensor in theirs.items() if name.endswith("patch_embed.proj.weight"))
    others = ("cls_token", "rel_pos_h", "relative_position_bias_table", "temporal_attn.qkv.weight")
    return is_image_model(embedding) or any(name.endswith(others) for name in theirs)


def _is_wrapped_classifier(theirs: Mapping[str, Tensor]) -> bool:
    """A fine-tuned model whose names all begin with `encoder.`: pre-trained encoders have no `fc_norm`."""
    return all(name.startswith(ENCODER) for name in theirs) and "encoder.fc_norm.weight" in theirs


def _useless(theirs: Mapping[str, Tensor], kind: str, file: Path) -> Official:
    """Tensors that are known to have no effect: by their names in the file without wrappers, with a reason each."""
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
    return Official(kind, {}, tokens, (*dropped, *heads), tuple(notes))


def _is_fixed_table(table: Tensor) -> bool:
    if table.ndim != 3 or table.shape[0] != 1 or not table.is_floating_point():
        return False
    rounding = 1e-4 if table.element_size() >= 4 else 1e-2
    fixed = sinusoid(table.shape[1], table.shape[2])
    return bool((table.float() - fixed).abs().max() < rounding)
