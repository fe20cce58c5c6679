"""From an image model to one of clips: kernels get an axis of time, tables of positions in time begin without a say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor, nn

from tubelet.disk.tensors import State
from tubelet.models.encoders import Encoder
from tubelet.recipe import Inflate
from tubelet.weights.checkpoint import ENCODER

EMBEDDING: Final = "encoder.patch_embed.weight"
CLASS_TOKEN: Final = "encoder.class_token"
RELATIVE_TIME: Final = ".rel_pos_t"


def inflated(state: State, encoder: Encoder, how: Inflate) -> tuple[State, tuple[str, ...]]:
    """The tensors of an encoder of single frames for one of clips, and lines that say what was done.

    Tensors, under our names, may be without numbers. The kernel of a frame, [D,C,p,q], is put into one of f frames,
    [D,C,f,p,q]: "centre" gives all of it to the middle frame (arXiv:2103.15691, section 3.4), "mean" an equal part to
    each frame of the token's own cube, and none to frames of the cubes beside it, which are not there at the ends of a
    clip. So in both ways a clip of one repeated frame gives the embedding of that frame. Kernels that pool tokens get
    the centre: a token's own. Relative positions in time are those of no distance, or zeros. Learnt tables of whole
    grids are left to the caller. What does not fit in another way than in time is left to the strict check.
    """
    wanted = {ENCODER + name: tensor for name, tensor in encoder.state_dict().items()}
    changed: State = {}
    for name, tensor in state.items():
        ours = wanted.get(name)
        if ours is None or tensor.ndim != 5 or ours.ndim != 5 or not _differ_in_time(tensor, ours):
            continue
        own = _own_frames(encoder, ours.shape[2]) if name == EMBEDDING and how == "mean" else _centre(ours.shape[2])
        changed[name] = _with_time(tensor, ours.shape[2], own)
    notes = []
    if EMBEDDING in changed:
        frames = changed[EMBEDDING].shape[2]
        notes.append(f"an image model: its patch embedding is inflated to {frames} frames ({how})")
    new = {name: torch.zeros_like(table) for name, table in wanted.items() if _is_new_table(name, state)}
    if new:
        notes.append(f"{len(new)} tables of relative positions in time begin with zeros")
    if CLASS_TOKEN in state:
        notes.append("its class token attends to the tokens of every frame now, so its features change a little")
    return {**state, **changed, **new}, tuple(notes)


def _is_new_table(name: str, state: Mapping[str, Tensor]) -> bool:
    return name.endswith(RELATIVE_TIME) and name not in state


def _differ_in_time(tensor: Tensor, ours: Tensor) -> bool:
    """Alike but for the frames of the kernel; an image run may have learnt with a kernel that was as long as ours."""
    return tensor.shape[:2] == ours.shape[:2] and tensor.shape[3:] == ours.shape[3:] and ours.shape[2] > 1


def _centre(frames: int) -> slice:
    return slice(frames // 2, frames // 2 + 1)


def _own_frames(encoder: Encoder, frames: int) -> slice:
    """Places of the kernel that lie on the token's own cube; those before it are of the cube before."""
    embedding = encoder.patch_embed
    before = int(embedding.padding[0]) if isinstance(embedding, nn.Conv3d) else 0
    step = encoder.clip.frames // encoder.grid.t
    return slice(before, min(before + step, frames))


def _with_time(kernel: Tensor, frames: int, own: slice) -> Tensor:
    """Of a kernel longer than a frame only its centre ever saw one: the rest met padding."""
    seen = kernel[:, :, _centre(kernel.shape[2])]
    out = seen.new_zeros((*kernel.shape[:2], frames, *kernel.shape[3:]))
    out[:, :, own] = seen / (own.stop - own.start)
    return out
