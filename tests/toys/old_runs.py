"""Run folders as an older version wrote them (`fixtures/old_runs`): the videos that they saw, and how they were made.

python tests/toys/old_runs.py OUT: makes such folders in OUT with the code as it is, and expected.json beside them.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

import av
import numpy as np
from toy_claims import say

import tubelet

FOLDER: Final = Path(__file__).parents[1] / "fixtures" / "old_runs"
EXPECTED: Final = "expected.json"
VIDEO: Final = Path("videos/0.mp4")
"""What `expected.json` is about: one clip of it."""
SIZE: Final = 32
CLASSES: Final = {"bright": 170, "dark": 60}
LAST: Final = 8
"""Step that the runs end with. Their checkpoints are of step 4, so that they have something left to do."""

_SHORT: Final = (
    *("run.device=cpu", "run.precision=fp32", "run.threads=1", "run.log_every=1", "run.save_every=4"),
    *("run.batch_size=4", "schedule.epochs=4", "schedule.warmup_epochs=1", "data.workers=0", "optim.lr=0.05"),
    *("clip.frames=4", f"clip.size={SIZE}"),
)
_VIT: Final = (
    *("model.encoder.width=16", "model.encoder.depth=2", "model.encoder.heads=2", "model.encoder.drop_path=0.1"),
)
_DECODER: Final = ("model.decoder.width=8", "model.decoder.depth=1", "model.decoder.heads=2", "mask.ratio=0.75")
_MVIT: Final = (
    *("model.encoder.width=8", "model.encoder.depth=3", "model.encoder.stages=[{start: 1}, {start: 2}]"),
    *("model.encoder.patch_stride=[2, 4, 4]", "model.encoder.patch_kernel=[3, 7, 7]"),
    *("model.encoder.patch_padding=[1, 3, 3]", "model.encoder.last_stage_stride=1", "model.encoder.drop_path=0.1"),
)
_TUNED: Final = ("mixing.mixup=0.8", "mixing.cutmix=1.0", "mixing.probability=1.0", "ema=0.9", "model.init_scale=1")
_MADE_BY: Final = {
    "pretrained": ("pretrain", "videomae-ti-cpu-pretrain", *_SHORT, *_VIT, *_DECODER, "--data", "videos"),
    "finetuned": (
        *("finetune", "videomae-ti-cpu-finetune", *_SHORT, *_VIT, *_TUNED),
        *("--train", "by-class", "--val", "by-class", "--start", "pretrained"),
    ),
    "maskfeat": ("pretrain", "maskfeat-ti-cpu-pretrain", *_SHORT, *_MVIT, "--data", "videos"),
}
"""Commands of the version that made them; none of the tests runs them."""


def write_videos(folder: Path) -> None:
    """videos/ and by-class/: 8 each, the same wherever they are made."""
    for number in range(8):
        _write_video(folder / f"videos/{number}.mp4", 60 + 15 * number, seed=number)
        name = list(CLASSES)[number % 2]
        _write_video(folder / f"by-class/{name}/{number}.mp4", CLASSES[name], seed=100 + number)


def _write_video(path: Path, level: int, *, seed: int, frames: int = 12) -> None:
    """Blocks of noise that move across the frame; as the codec's own planes and without loss, so nothing is rounded."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    noise = rng.integers(-50, 51, (SIZE // 4, SIZE // 4)).repeat(4, 0).repeat(4, 1)
    colours = rng.integers(108, 149, (SIZE // 2, SIZE))
    with av.open(str(path), "w") as container:
        stream = container.add_stream(
            "libx264", rate=25, options={"qp": "0", "preset": "ultrafast", "threads": "1", "g": "8"}
        )
        stream.width, stream.height, stream.pix_fmt = SIZE, SIZE, "yuv420p"
        for number in range(frames):
            grey = np.roll((level + noise).clip(16, 235), (number, 2 * number), axis=(0, 1))
            planes = np.ascontiguousarray(np.concatenate([grey, colours]).astype(np.uint8))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(planes, format="yuv420p")))
        container.mux(stream.encode(None))


def answers(run: Path) -> dict[str, Any]:
    """What the model of a run says of one clip, and `weights inspect` of it; the video is in the working folder."""
    model = tubelet.load(run, device="cpu")
    clip = tubelet.read_clip(VIDEO, frames=model.clip.frames, size=model.clip.size)
    encoded = model.encode(clip)
    facts = json.loads(say("weights", "inspect", str(run), "--tensors", "--json"))
    found = {
        "vector": encoded.pooled[0].tolist(),
        "last_token": encoded.tokens[0, -1].tolist(),
        "inspect": {name: value for name, value in facts.items() if name != "file"},
    }
    if model.classifier is not None:
        scores = model.classify(clip)
        found |= {"logits": scores.logits[0].tolist(), "names": list(scores.names)}
    return found


def make(out: Path) -> None:
    """The run folders in `out`, without the last checkpoint and TensorBoard's files, which name the machine."""
    with tempfile.TemporaryDirectory() as work, contextlib.chdir(work):
        write_videos(Path())
        for name, words in _MADE_BY.items():
            say(*words, "--out", name)
        expected = {name: answers(Path(name)) for name in _MADE_BY}
        for name in _MADE_BY:
            shutil.rmtree(f"{name}/checkpoints/step-{LAST:08d}")
            shutil.copytree(name, out / name, ignore=shutil.ignore_patterns("tensorboard", ".*"))
    (out / EXPECTED).write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    make(Path(sys.argv[1]).resolve())
