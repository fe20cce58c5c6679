"""The libraries that decode video for training, by name, behind one seam. PyAV is the reference."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tubelet.video.read.file import VideoFile, open_video
from tubelet.video.read.frame_folder import FrameFolder
from tubelet.video.read.frame_range import frame_range_of
from tubelet.video.read.image_file import ImageFile
from tubelet.video.read.limits import Limits
from tubelet.video.read.numbered import is_still
from tubelet.video.read.torchcodec import TorchcodecFile, open_with_torchcodec, why_missing

Decoder = Literal["pyav", "torchcodec", "nvdec"]


Video = VideoFile | FrameFolder | ImageFile | TorchcodecFile
"""An open video: `len`, `info`, `frames(indices, short_side=...)`, `between`; `VideoFile` says what each means."""


@dataclass(frozen=True)
class Reading:
    """How videos are opened: by which decoder, within which limits. Images are read alike with any.

    ValueError in one line where this machine has not got the decoder.
    """

    decoder: Decoder = "pyav"
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if self.decoder == "pyav":
            return
        missing = why_missing(cuda=self.decoder == "nvdec")
        if missing is not None:
            raise ValueError(f"data.decoder={self.decoder}: {missing}")

    def open(self, path: Path) -> AbstractContextManager[Video]:
        """The video, for the time of a `with` block; BadVideo where it cannot be read."""
        if self.decoder == "pyav" or is_still(path) or frame_range_of(path) is not None:
            return open_video(path, limits=self.limits)
        return open_with_torchcodec(path, limits=self.limits, device="cuda" if self.decoder == "nvdec" else "cpu")
