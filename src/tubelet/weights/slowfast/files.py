"""SlowFast's files of MViTv2 and MaskFeat: recognised by their names, renamed strictly, fixed filters left out."""

from __future__ import annotations

import re

from tubelet.disk.tensors import State, in_float32
from tubelet.weights.checkpoint import Undescribed
from tubelet.weights.slowfast import names as slowfast
from tubelet.weights.slowfast.recipe import clip_of, describe
from tubelet.weights.tensors.files import OpenedWeights
from tubelet.weights.tensors.given import Given
from tubelet.weights.tensors.rename import check_unwrapped, from_official, unwrapped
from tubelet.weights.tensors.slowfast_config import SlowFastConfig


def matches(opened: OpenedWeights) -> bool:
    """Whether the names, without wrappers, are those of a multiscale transformer that pools by convolutions."""
    return slowfast.is_slowfast(unwrapped(opened.tensors))


def read(opened: OpenedWeights) -> Undescribed:
    """A classifier, or MaskFeat's pre-training; ValueError in one line where a tensor has no place."""
    file, state = opened.file, opened.content.state
    config = SlowFastConfig.of(opened.content.options)
    names = unwrapped(state)
    check_unwrapped(names, state, file)
    fixed = tuple(short for short in names if re.fullmatch(slowfast.FIXED, short))
    kept = {short: state[name] for short, name in names.items() if short not in fixed}
    kind, notes = slowfast.kind_of(kept, config.mean_pooling)
    ours, more = in_float32(from_official(kept, slowfast.CONVERTERS[kind], source=str(file)))
    notes += (f"{', '.join(fixed)}: fixed filters of the target, which tubelet makes itself",) if fixed else ()
    return Undescribed(
        file,
        _words(ours, kind),
        ours,
        describe,
        clip_of,
        Given(file, config=config),
        dropped=tuple(names[short] for short in fixed),
        notes=(*notes, *more),
    )


def _words(state: State, kind: str) -> str:
    if kind == "maskfeat":
        return "SlowFast MaskFeat pre-training"
    return f"SlowFast MViT classifier, {len(state['head.bias'])} classes" if "head.bias" in state else "SlowFast MViT"
