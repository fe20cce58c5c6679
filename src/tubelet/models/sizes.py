"""Published encoders in one line each: `vit_b()` is a module with fresh weights, as in timm and torchvision.

`frames` and `size` are those of the clips that it takes; all further arguments are fields of its spec, such as
`drop_path=0.1` or `checkpointing=True`, and an unknown one is a ValueError. Weights are drawn from torch's default
generator as the authors draw them. The module takes uint8 clips [B,3,frames,size,size] (normalisation is inside) and
gives tokens [B,N,D] behind a final norm. A trained one: `tubelet.load(path).encoder`.
"""

from __future__ import annotations

from typing import Any

from tubelet.models.base import Encoder, EncoderSpec
from tubelet.models.mvit.model import MVIT_B, MVIT_L, MVIT_S
from tubelet.models.swin.model import SWIN_B, SWIN_L, SWIN_S, SWIN_T
from tubelet.models.timesformer import TIMESFORMER_B
from tubelet.models.vit import VIT_B, VIT_G, VIT_H, VIT_L, VIT_S, VIT_TI
from tubelet.spec import replace
from tubelet.types import ClipShape


def vit_ti(*, frames: int = 16, size: int = 224, **changes: Any) -> Encoder:
    """ViT-Ti/16, cubes of 2 x 16 x 16: 5.7 M parameters."""
    return _built(VIT_TI, ClipShape(frames=frames, size=size), changes)


def vit_s(*, frames: int = 16, size: int = 224, **changes: Any) -> Encoder:
    """ViT-S/16, cubes of 2 x 16 x 16: 22 M parameters (VideoMAE, arXiv:2203.12602)."""
    return _built(VIT_S, ClipShape(frames=frames, size=size), changes)


def vit_b(*, frames: int = 16, size: int = 224, **changes: Any) -> Encoder:
    """ViT-B/16, cubes of 2 x 16 x 16: 86 M parameters (VideoMAE, arXiv:2203.12602)."""
    return _built(VIT_B, ClipShape(frames=frames, size=size), changes)


def vit_l(*, frames: int = 16, size: int = 224, **changes: Any) -> Encoder:
    """ViT-L/16, cubes of 2 x 16 x 16: 304 M parameters (VideoMAE, arXiv:2203.12602)."""
    return _built(VIT_L, ClipShape(frames=frames, size=size), changes)


def vit_h(*, frames: int = 16, size: int = 224, **changes: Any) -> Encoder:
    """ViT-H/16, cubes of 2 x 16 x 16: 632 M parameters (VideoMAE, arXiv:2203.12602)."""
    return _built(VIT_H, ClipShape(frames=frames, size=size), changes)


def vit_g(*, frames: int = 16, size: int = 224, **changes: Any) -> Encoder:
    """ViT-g/14, cubes of 2 x 14 x 14: 1012 M parameters (VideoMAE V2, arXiv:2303.16727)."""
    return _built(VIT_G, ClipShape(frames=frames, size=size), changes)


def mvit_s(*, frames: int = 16, size: int = 224, **changes: Any) -> Encoder:
    """MViTv2-S: 34 M parameters (arXiv:2112.01526)."""
    return _built(MVIT_S, ClipShape(frames=frames, size=size), changes)


def mvit_b(*, frames: int = 32, size: int = 224, **changes: Any) -> Encoder:
    """MViTv2-B: 51 M parameters (arXiv:2112.01526)."""
    return _built(MVIT_B, ClipShape(frames=frames, size=size), changes)


def mvit_l(*, frames: int = 40, size: int = 312, **changes: Any) -> Encoder:
    """MViTv2-L: 213 M parameters (arXiv:2112.01526)."""
    return _built(MVIT_L, ClipShape(frames=frames, size=size), changes)


def swin_t(*, frames: int = 32, size: int = 224, **changes: Any) -> Encoder:
    """Video Swin-T: 28 M parameters (arXiv:2106.13230)."""
    return _built(SWIN_T, ClipShape(frames=frames, size=size), changes)


def swin_s(*, frames: int = 32, size: int = 224, **changes: Any) -> Encoder:
    """Video Swin-S: 50 M parameters (arXiv:2106.13230)."""
    return _built(SWIN_S, ClipShape(frames=frames, size=size), changes)


def swin_b(*, frames: int = 32, size: int = 224, **changes: Any) -> Encoder:
    """Video Swin-B: 88 M parameters (arXiv:2106.13230); BEVT (arXiv:2112.01529)."""
    return _built(SWIN_B, ClipShape(frames=frames, size=size), changes)


def swin_l(*, frames: int = 32, size: int = 224, **changes: Any) -> Encoder:
    """Video Swin-L: 197 M parameters (arXiv:2106.13230)."""
    return _built(SWIN_L, ClipShape(frames=frames, size=size), changes)


def timesformer_b(*, frames: int = 8, size: int = 224, **changes: Any) -> Encoder:
    """TimeSformer, ViT-B/16 with divided attention: 121 M parameters (arXiv:2102.05095)."""
    return _built(TIMESFORMER_B, ClipShape(frames=frames, size=size), changes)


def _built(spec: EncoderSpec, clip: ClipShape, changes: dict[str, Any]) -> Encoder:
    return replace(spec, **changes).build(clip, final_norm=True)
