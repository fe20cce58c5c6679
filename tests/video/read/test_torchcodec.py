"""torchcodec gives PyAV's frames. Where the machine has no FFmpeg libraries, it is lent those in PyAV's wheel."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import av
import pytest
from toy_run import pretrain_recipe
from video_files import write_video
from zoo import ZOO, needs_zoo

from tubelet.recipe import Data, reading_of
from tubelet.runs.pretrain import pretrain
from tubelet.train.records.watch import SilentWatch
from tubelet.video.lists.manifest import read_manifest
from tubelet.video.lists.shards import ShardSample, write_shards
from tubelet.video.read import torchcodec as module
from tubelet.video.read.decoders import Reading
from tubelet.video.read.torchcodec import why_missing

CHECK = """
import json, sys
from pathlib import Path
import numpy as np
from tubelet.video.read.decoders import Reading
from tubelet.video.read.errors import BadVideo

def look(path):
    try:
        with Reading("torchcodec").open(path) as other, Reading("pyav").open(path) as one:
            few = [*np.linspace(len(one) - 1, 0, 5).astype(int).tolist(), 0]
            plain = np.abs(one.frames(few).astype(int) - other.frames(few))
            side = max(min(one.info.width, one.info.height) * 2 // 3, 1)
            small = [video.frames(few, short_side=side).astype(int) for video in (one, other)]
            facts = [(len(v), v.info.width, v.info.height, v.info.rotation, v.info.codec) for v in (one, other)]
            return {"equal": facts[0] == facts[1], "largest": int(plain.max()),
                    "scaled": float(np.abs(small[0] - small[1]).mean()), "shape": small[0].shape == small[1].shape}
    except BadVideo as bad:
        return {"reason": bad.reason}

print(json.dumps([look(Path(name)) for name in sys.argv[1:]]))
"""
H264 = [
    "made/vfr.mp4", "made/edit_list_trim.mp4", "made/long_gop_bframes.mp4", "made/start_offset_5s.mkv",
    "made/fragmented.mp4", "native/bt709_full_range.mp4", "native/rotated_90.mov", "native/rotated_180.mov",
]  # fmt: skip


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """That of a process in which torchcodec loads."""
    if importlib.util.find_spec("torchcodec") is None:
        pytest.skip("torchcodec is not installed")
    if why_missing(cuda=False) is None:
        return dict(os.environ)
    bundled = Path(av.__file__).parent.parent / "av.libs"
    folder = tmp_path_factory.mktemp("ffmpeg")
    for path in bundled.glob("lib*.so.*") if bundled.is_dir() else []:
        match = re.fullmatch(r"(lib(?:av|sw)\w+)-[0-9a-f]+\.so\.(\d+)\..*", path.name)
        if match:
            (folder / f"{match[1]}.so.{match[2]}").symlink_to(path)
    return {**os.environ, "LD_LIBRARY_PATH": f"{folder}:{bundled}"}


def compare(environment: dict[str, str], *paths: Path) -> list[dict[str, Any]]:
    """How torchcodec's frames differ from PyAV's, for each file."""
    done = subprocess.run(
        [sys.executable, "-c", CHECK, *map(str, paths)], env=environment, capture_output=True, text=True, check=False
    )
    if "does not load" in done.stderr:
        pytest.skip("torchcodec is installed but loads neither with the machine's FFmpeg nor with PyAV's")
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_frames_agree(environment: dict[str, str], tmp_path: Path) -> None:
    """The same bytes at the stored size, in a shard too; scaled, a level or two apart on average."""
    made = [
        write_video(tmp_path / "a.mp4", 20, size=(96, 64), b_frames=2),
        write_video(tmp_path / "b.mp4", 9, times=[0, 40, 90, 500, 510, 520, 800, 1000, 1001]),
    ]
    write_shards(tmp_path, "x", [ShardSample(path, {}) for path in made], shard_bytes=10**9)
    packed = [video.path for video in read_manifest(tmp_path / "x-000000.tar", labelled=False).videos]
    odd = [ZOO / name for name in H264] if ZOO.is_dir() else []
    for path, found in zip([*made, *packed, *odd], compare(environment, *made, *packed, *odd), strict=True):
        assert found.pop("scaled") < 4, path
        assert found == {"equal": True, "largest": 0, "shape": True}, path


@needs_zoo
def test_broken_files_are_bad_videos(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    names = ["broken/cenc_encrypted.mp4", "broken/tiny_no_frames.wmv", "broken/audio_only.mp4"]
    found = compare(environment, tmp_path / "text.mp4", tmp_path / "gone.mp4", *(ZOO / name for name in names))
    for one in found:
        assert one["reason"]
        assert "cpp" not in one["reason"], "not in plain words"
    assert found[1]["reason"] == "cannot be opened as a video: no such file"


def test_a_missing_decoder_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchcodec", None)
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", None)
    with pytest.raises(ValueError, match=r"data\.decoder=torchcodec: torchcodec is not installed; pip install"):
        reading_of(Data(decoder="torchcodec"))
    assert reading_of(Data()).decoder == "pyav"


def test_a_missing_decoder_costs_no_work(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Told before --fresh removes what is there."""
    monkeypatch.setitem(sys.modules, "torchcodec", None)
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", None)
    write_video(tmp_path / "videos/a.mp4", 3)
    recipe = pretrain_recipe(f"data.videos={tmp_path / 'videos'}", "data.decoder=torchcodec")
    with pytest.raises(ValueError, match="not installed"):
        pretrain(recipe, tmp_path / "run", SilentWatch(), fresh=True)
    assert not (tmp_path / "run").exists()


def test_one_that_does_not_load_is_told_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "torchcodec").mkdir()
    (tmp_path / "torchcodec/__init__.py").write_text("raise RuntimeError('Could not load libtorchcodec')")
    for name in [name for name in sys.modules if name.split(".")[0] == "torchcodec"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match="does not load; it needs FFmpeg's shared libraries"):
        Reading("torchcodec")


def test_nvdec_needs_a_gpu_and_no_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"data\.workers=0"):
        reading_of(Data(decoder="nvdec", workers=2))
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setitem(sys.modules, "torchcodec", type(module)("torchcodec"))
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", type(module)("torchcodec.decoders"))
    with pytest.raises(ValueError, match="no NVIDIA GPU"):
        reading_of(Data(decoder="nvdec", workers=0))
