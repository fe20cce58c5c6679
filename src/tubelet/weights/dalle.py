"""DALL-E's discrete VAE: its encoder from a file of tensors, or from the module that its authors pickled."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tubelet.disk.tensors import State, in_float32
from tubelet.models.tokenizers.dvae import DvaeEncoder, DvaeSpec
from tubelet.rng import step_rng
from tubelet.weights.tensors.files import read_tensors
from tubelet.weights.tensors.rename import Rules, rename
from tubelet.weights.tensors.strict import filled

PREFIXES: Final = ("", "encoder.", "cls_head.vae_encoder.")
"""Before the encoder's names: in `encoder.pkl`; beside a decoder; in checkpoints of BEVT."""
_STEM: Final = "blocks.input.w"
_HEAD: Final = "blocks.output.conv.w"
_BLOCK: Final = r"blocks\.group_(\d+)\.block_(\d+)\."
RULES: Final[Rules] = (
    (r"blocks\.input\.w", "stem.weight"),
    (r"blocks\.input\.b", "stem.bias"),
    (_BLOCK + r"id_path\.w", r"groups.\1.\2.skip.weight"),
    (_BLOCK + r"id_path\.b", r"groups.\1.\2.skip.bias"),
    (_BLOCK + r"res_path\.conv_(\d+)\.w", r"groups.\1.\2.convs.\3.weight"),
    (_BLOCK + r"res_path\.conv_(\d+)\.b", r"groups.\1.\2.convs.\3.bias"),
    (r"blocks\.output\.conv\.w", "head.weight"),
    (r"blocks\.output\.conv\.b", "head.bias"),
)
MODULES: Final = (
    *("dall_e.encoder.Encoder", "dall_e.encoder.EncoderBlock", "dall_e.utils.Conv2d"),
    *("torch.nn.modules.container.Sequential", "torch.nn.modules.activation.ReLU"),
    *("torch.nn.modules.pooling.MaxPool2d", "torch.nn.modules.linear.Identity"),
)
"""What the authors' `encoder.pkl` is made of. None of it is imported: tensors are taken out, by their places."""


def read_dvae(path: Path) -> DvaeEncoder:
    """The encoder in eval mode, on the CPU: of safetensors, of a state dict, or of DALL-E's own `encoder.pkl`.

    Nothing in the file is executed. ValueError in one line where it is missing, damaged, wants to run code, or holds no
    such encoder.
    """
    state = dvae_tensors(path)
    with step_rng(0, 0):
        encoder = DvaeEncoder(dvae_spec(state, path))
    return filled(encoder, rename(state, RULES, source=str(path)), path)


def dvae_tensors(path: Path) -> State:
    """The encoder's tensors by the authors' names, in float32."""
    state = read_tensors(path, modules=MODULES)
    prefix = next((prefix for prefix in PREFIXES if prefix + _STEM in state), None)
    if prefix is None:
        some = ", ".join(sorted(state)[:3])
        raise ValueError(f"{path}: no encoder of DALL-E's discrete VAE: no {_STEM} in it, but {some}")
    own = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(f"{prefix}blocks.")}
    return in_float32(own)[0]


def dvae_spec(state: State, path: Path) -> DvaeSpec:
    """Its size, from the shapes. ValueError where it is the decoder, or a part of an encoder."""
    stem, head = state[_STEM], state.get(_HEAD)
    if stem.ndim != 4 or stem.shape[1] != 3:
        raise ValueError(f"{path}: the decoder of DALL-E's discrete VAE; give its encoder (encoder.pkl)")
    places = [name.split(".")[1:3] for name in state if name.startswith("blocks.group_")]
    if head is None or not places:
        raise ValueError(f"{path}: lacks {_HEAD if head is None else 'blocks.group_1'}: is it a part of a file?")
    groups, blocks = (max(int(place[part].split("_")[1]) for place in places) for part in (0, 1))
    return DvaeSpec(width=stem.shape[0], groups=groups, blocks=blocks, vocabulary=head.shape[0])
