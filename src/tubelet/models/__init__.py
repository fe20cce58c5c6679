"""Networks: encoders by kind (`vit_b()`, `mvit_s()`, ... make one), decoders, heads, tokenizers."""

from tubelet.models.sizes import (
    mvit_b,
    mvit_l,
    mvit_s,
    swin_b,
    swin_l,
    swin_s,
    swin_t,
    timesformer_b,
    vit_b,
    vit_g,
    vit_h,
    vit_l,
    vit_s,
    vit_ti,
)

__all__ = [
    "mvit_b",
    "mvit_l",
    "mvit_s",
    "swin_b",
    "swin_l",
    "swin_s",
    "swin_t",
    "timesformer_b",
    "vit_b",
    "vit_g",
    "vit_h",
    "vit_l",
    "vit_s",
    "vit_ti",
]
