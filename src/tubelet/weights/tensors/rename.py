"""The same tensors under other names: a pure rename, then strict; and names that our own older files have."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from torch import Tensor

from tubelet.disk.tensors import State

Rules = Sequence[tuple[str, str]]
OLDER: Final = (("decoder.narrow.weight", "decoder.encoder_to_decoder.weight"),)
"""(then, now): tensors of our own methods that had a different name in files of earlier versions."""


def name_now(name: str) -> str:
    """The name that a tensor of our own has today, whatever stands before it (`exp_avg/`, `classifier.`)."""
    for then, now in OLDER:
        name = name.replace(then, now)
    return name


def name_then(name: str) -> str:
    """The first name that a tensor of our own had: the inverse of `name_now`."""
    for then, now in OLDER:
        name = name.replace(now, then)
    return name


def rename(state: Mapping[str, Tensor], rules: Rules, *, drop: Sequence[str] = (), source: str = "checkpoint") -> State:
    """Each name goes through the first rule (pattern, replacement) that matches it whole.

    `drop` lists patterns of names to leave out; every pattern must occur. ValueError names what no rule knows,
    what `drop` promised but the state does not have, and two names that become one.
    """
    for pattern in drop:
        if not any(re.fullmatch(pattern, name) for name in state):
            raise ValueError(f"{source}: nothing to drop matches {pattern!r}")
    kept = {name: tensor for name, tensor in state.items() if not any(re.fullmatch(p, name) for p in drop)}
    unknown = [name for name in kept if _new_name(name, rules) is None]
    if unknown:
        raise ValueError(f"{source}: no rule knows {', '.join(unknown[:3])} ({len(unknown)} of {len(kept)} tensors)")
    renamed = {str(_new_name(name, rules)): tensor for name, tensor in kept.items()}
    if len(renamed) < len(kept):
        raise ValueError(f"{source}: two tensors get the same name")
    return renamed


def _new_name(name: str, rules: Rules) -> str | None:
    for pattern, replacement in rules:
        match = re.fullmatch(pattern, name)
        if match:
            return match.expand(replacement)
    return None


ANYWHERE: Final = ("_orig_mod.", "_checkpoint_wrapped_module.")
"""Put into names by `torch.compile` and by checkpointing of activations; never a name of a part."""
IN_FRONT: Final = ("module.", "model.", "backbone.")
"""Taken away where every name has it: DataParallel, and classes that hold the model as one of their parts."""


def unwrapped(state: Mapping[str, Tensor]) -> dict[str, str]:
    """Names without what wrappers put into them, each with its name in the file; fewer where two become one."""
    names = {_without(name, ANYWHERE): name for name in state}
    found = True
    while found and names:
        found = False
        for prefix in IN_FRONT:
            if all(name.startswith(prefix) for name in names):
                names = {name.removeprefix(prefix): old for name, old in names.items()}
                found = True
    if any(name.startswith("backbone.patch_embed.") for name in names):  # the head is beside the backbone
        names = {name.removeprefix("backbone."): old for name, old in names.items()}
    return names


def check_unwrapped(names: Mapping[str, str], state: Mapping[str, Tensor], file: Path) -> None:
    """ValueError where two tensors have the same name without their wrappers."""
    if len(names) < len(state):
        kept = set(names.values())
        lost = next(name for name in state if name not in kept)
        raise ValueError(f"{file}: {lost} is there twice, with and without a prefix; keep one of the two models in it")


def _without(name: str, parts: tuple[str, ...]) -> str:
    for part in parts:
        name = name.replace(part, "")
    return name


Pairs = tuple[tuple[str, str], ...]


def from_official(state: Mapping[str, Tensor], pairs: Pairs, *, source: str = "checkpoint") -> State:
    """Their names to ours: `PRETRAINED` for a `MaskedAutoencoder`, `FINETUNED` for a `Classifier`.

    ValueError where a tensor has a name that the table does not know. Tensors are not copied.
    """
    return rename(state, _rules(pairs), source=source)


def to_official(state: Mapping[str, Tensor], pairs: Pairs, *, source: str = "model") -> State:
    """Our names to theirs: the inverse of `from_official`."""
    return rename(state, _rules(tuple((ours, theirs) for theirs, ours in pairs)), source=source)


def _rules(pairs: Pairs) -> Rules:
    return [(_pattern(old), _replacement(new)) for old, new in pairs]


def _pattern(name: str) -> str:
    return re.escape(name).replace(r"\{\}", r"(\d+)").replace(r"\{\.\}", r"(weight|bias)")


def _replacement(name: str) -> str:
    """Numbers and endings come in the same order on both sides."""
    parts = re.split(r"\{\.?\}", name)
    return "".join(f"{part}\\g<{number}>" for number, part in enumerate(parts[:-1], 1)) + parts[-1]
