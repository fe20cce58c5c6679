"""A task that is no classes: how bright a video is and how much brighter its left is, which a flip turns round."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float, Num
from torch import Tensor, nn
from torch.nn import functional as F

from tubelet.data.class_names import Names
from tubelet.methods.tasks import Mix, Task
from tubelet.types import Output
from tubelet.video.augment.crops import Placement
from tubelet.video.lists.manifest import Manifest, VideoRef


class Brightness(Task):
    """Labels are `level` or `level:slope`, as text; the loss is a squared error, the metric an absolute one."""

    metric: ClassVar[str] = "mean_absolute_error"
    higher_is_better: ClassVar[bool] = False

    kind: Literal["brightness"] = "brightness"
    scale: float = 1.0

    def labelled(self, manifest: Manifest, names: Names) -> tuple[VideoRef, ...]:
        assert names == ()
        return tuple(self._read(video, manifest) for video in manifest.videos)

    def _read(self, video: VideoRef, manifest: Manifest) -> VideoRef:
        if video.values is not None:
            return video
        assert video.label is not None
        text = str(video.label) if manifest.classes is None else manifest.classes[video.label]
        try:
            level, slope = (float(part) for part in f"{text}:0".split(":")[:2])
        except ValueError as error:
            raise ValueError(f"{manifest.place(video)}: {text!r} is no brightness") from error
        return VideoRef(video.path, None, video.name, video.line, video.part, (level, slope))

    def label(self, video: VideoRef, placements: Sequence[Placement]) -> Num[Tensor, "V *L"]:
        assert video.values is not None
        level, slope = video.values
        return torch.tensor([[level, -slope if place.flipped else slope] for place in placements])

    def truth(self, videos: Sequence[VideoRef]) -> Num[np.ndarray, "M *L"]:
        return np.array([video.values for video in videos], dtype=np.float64)

    def made_up(self, index: int, *, clips: int, outputs: int) -> Num[Tensor, "V *L"]:
        return torch.full((clips, outputs), index / 100)

    def outputs(self, classes: int | None) -> int | None:
        assert classes is None
        return 2

    def learn(self, network: nn.Module, video: Tensor, labels: Tensor, mix: Mix | None) -> Output:
        found = network(video).float()
        with torch.no_grad():
            error = (found - labels).abs().mean()
        return Output({"video": self.scale * F.mse_loss(found, labels)}, {"video": {"error": error}})

    def total(self, predictions: Float[np.ndarray, "M P"], truth: Num[np.ndarray, "M *L"]) -> float:
        return float(np.abs(predictions - truth).mean(axis=1).sum())
