"""Options of the authors' training scripts, which their checkpoints hold as `args`: what the shapes do not tell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

V2_ONLY: Final = frozenset({"decoder_mask_ratio", "head_drop_rate"})
"""Options that only the scripts of VideoMAE V2 have, for pre-training and for fine-tuning."""


@dataclass(frozen=True)
class SavedOptions:
    """What of `args` says something about the model or its clips; None where it is not there or not of its type.

    Names of the fields of the scripts (V1 and V2 `run_mae_pretraining.py`, `run_class_finetuning.py`) are in `of`.
    """

    model: str | None = None
    frames: int | None = None
    size: int | None = None
    stride: int | None = None
    mask_ratio: float | None = None
    normalised: bool | None = None
    data_set: str | None = None
    is_v2: bool = False

    @staticmethod
    def of(options: Mapping[str, Any]) -> SavedOptions:
        """From the options by name. Whatever else is there is not looked at."""
        return SavedOptions(
            model=_text(options, "model"),
            frames=_count(options, "num_frames"),
            size=_count(options, "input_size"),
            stride=_count(options, "sampling_rate"),
            mask_ratio=_ratio(options, "mask_ratio"),
            normalised=_switch(options, "normlize_target"),
            data_set=_text(options, "data_set"),
            is_v2=not V2_ONLY.isdisjoint(options),
        )

    @property
    def names_a_size(self) -> bool:
        """Whether `model` is one of the published sizes, whose heads are known by their widths."""
        sizes = ("small", "base", "large", "huge", "giant", "gigantic")
        kinds = ("vit_", "pretrain_videomae_", "pretrain_mae_")
        return self.model is not None and any(self.model.startswith(f"{k}{size}_") for k in kinds for size in sizes)


def _text(options: Mapping[str, Any], name: str) -> str | None:
    value = options.get(name)
    return value if isinstance(value, str) else None


def _count(options: Mapping[str, Any], name: str) -> int | None:
    value = options.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _ratio(options: Mapping[str, Any], name: str) -> float | None:
    value = options.get(name)
    return value if isinstance(value, float) and 0.0 < value < 1.0 else None


def _switch(options: Mapping[str, Any], name: str) -> bool | None:
    value = options.get(name)
    return value if isinstance(value, bool) else None
