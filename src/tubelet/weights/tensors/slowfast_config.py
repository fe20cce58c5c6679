"""What SlowFast's checkpoints say of themselves: the script's settings, which they hold as YAML text under `cfg`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

from tubelet.nn.pixels import Colours

_LONGEST: Final = 1_000_000


@dataclass(frozen=True)
class SlowFastConfig:
    """The settings by section and name, as far as the text can be read; nothing where there is none.

    Every answer is None where the settings do not have it, or not of its type.
    """

    sections: Mapping[str, Any] = field(default_factory=dict)

    @staticmethod
    def of(options: Mapping[str, Any]) -> SlowFastConfig:
        """From what lies beside the weights. Plain data only: no name in the text is ever looked up."""
        text = options.get("cfg")
        if not isinstance(text, str) or len(text) > _LONGEST:
            return SlowFastConfig()
        try:
            found = yaml.safe_load(text)
        except (yaml.YAMLError, ValueError, RecursionError):
            return SlowFastConfig()
        return SlowFastConfig(found if isinstance(found, dict) else {})

    @property
    def frames(self) -> int | None:
        return _count(self._get("DATA", "NUM_FRAMES"))

    @property
    def size(self) -> int | None:
        return _count(self._get("DATA", "TRAIN_CROP_SIZE"))

    @property
    def stride(self) -> int | None:
        """Frames of the video from one frame of a clip to the next."""
        return _count(self._get("DATA", "SAMPLING_RATE"))

    @property
    def colours(self) -> Colours | None:
        mean, std = _numbers(self._get("DATA", "MEAN")), _numbers(self._get("DATA", "STD"))
        return None if mean is None or std is None else Colours(mean=mean, std=std)

    @property
    def patch_stride(self) -> tuple[int, int, int] | None:
        return _steps(self._get("MVIT", "PATCH_STRIDE"))

    @property
    def kv_stride(self) -> tuple[int, int, int] | None:
        return _steps(self._get("MVIT", "POOL_KV_STRIDE_ADAPTIVE"))

    @property
    def residual_pooling(self) -> bool | None:
        return _switch(self._get("MVIT", "RESIDUAL_POOLING"))

    @property
    def mean_pooling(self) -> bool | None:
        """Whether the head reads the mean of tokens, normed afterwards."""
        return _switch(self._get("MVIT", "USE_MEAN_POOLING"))

    def q_stride(self, block: int) -> tuple[int, int, int] | None:
        """Of a block's queries, where the settings list it."""
        found = self._get("MVIT", "POOL_Q_STRIDE")
        listed = found if isinstance(found, list) else []
        rows = [row for row in listed if isinstance(row, list) and row[:1] == [block]]
        return _steps(rows[0][1:]) if rows else None

    def _get(self, section: str, name: str) -> Any:
        found = self.sections.get(section)
        return found.get(name) if isinstance(found, dict) else None


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _switch(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None


def _steps(value: Any) -> tuple[int, int, int] | None:
    if not isinstance(value, list | tuple) or len(value) != 3 or any(_count(side) is None for side in value):
        return None
    return value[0], value[1], value[2]


def _numbers(value: Any) -> tuple[float, float, float] | None:
    if not isinstance(value, list) or len(value) != 3 or not all(isinstance(one, int | float) for one in value):
        return None
    return float(value[0]), float(value[1]), float(value[2])
