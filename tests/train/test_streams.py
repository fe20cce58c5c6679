"""Runs on two streams of unequal size and shape: the same losses however a step is shared out, stopped or cut.

Tolerance against one process with one piece: 1e-6 relative, for sums are taken in a different order.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import toy_streams
from ranks import run_ranks
from safetensors.torch import load_file
from toy_run import Notes, ToySet, killer, log_lines, records
from toy_streams import ImageSet, streams_job

from tubelet.train.checkpoint.folder import MODEL, latest, saved
from tubelet.train.distributed.process_group import joined, place
from tubelet.train.distributed.shard import full_tensor
from tubelet.train.loop import fit
from tubelet.train.micro_batch import MicroBatch, StepPlan, parts
from tubelet.train.optim import Optimizer

TOLERANCE = 1e-6


@contextmanager
def noted(folder: Path) -> Iterator[None]:
    """Inside, each rank writes which clips of each step weighed something, and the gradients of the first step."""
    folder.mkdir(parents=True, exist_ok=True)
    split, step = StepPlan.split, Optimizer.step
    taken: list[dict[str, list[int]]] = []

    def note_clips(self: StepPlan, *inputs: Any) -> list[MicroBatch]:
        pieces = split(self, *inputs)
        found: dict[str, list[int]] = {}
        for piece in pieces:
            assert list(piece.batch.clips) == ["video", "image"], "every piece has every stream, in one order"
            for name, share in piece.shares.items():
                found.setdefault(name, []).extend(piece.batch.clips[name].index.tolist() if share > 0 else [])
        taken.append(found)
        (folder / f"clips-{place().rank}.json").write_text(json.dumps(taken))
        return pieces

    def note_gradients(self: Optimizer, rate: float) -> None:
        file = folder / "gradients.pt"
        if len(taken) == 1:
            found = {name: full_tensor(value.grad) for name, value in self.named.items() if value.grad is not None}
            if place().rank == 0:
                torch.save(found, file)
        step(self, rate)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StepPlan, "split", note_clips)
        patch.setattr(Optimizer, "step", note_gradients)
        yield


def one_process(out: Path, *changes: str, **options: Any) -> Path:
    with noted(out.parent / f"{out.name}-noted"):
        fit(streams_job(out, *changes, **options), Notes())
    return out


def two_ranks(out: Path, *changes: str, **options: Any) -> Path:
    def work(rank: int) -> None:
        with noted(out.parent / f"{out.name}-noted"):
            job = streams_job(out, *changes, **options)
            with joined(job.recipe.run, print):
                fit(job, Notes())
                held = {name: full_tensor(value.detach()) for name, value in job.method.state_dict().items()}
            torch.save(held, out.parent / f"{out.name}-{rank}.pt")

    ranks = run_ranks(2, work, out.parent / "said")
    assert [one.code for one in ranks] == [0, 0], "\n".join(one.text for one in ranks)
    return out


def clips_of(out: Path) -> list[dict[str, list[int]]]:
    """The clips of each step, of all ranks, sorted."""
    files = sorted((out.parent / f"{out.name}-noted").glob("clips-*.json"))
    by_rank = [json.loads(file.read_text()) for file in files]
    return [
        {name: sorted(index for step in steps for index in step[name]) for name in ("video", "image")}
        for steps in zip(*by_rank, strict=True)
    ]


def assert_close(one: Path, other: Path) -> None:
    assert clips_of(one) == clips_of(other)
    left, right = records(one), records(other)
    assert [record["step"] for record in left] == [record["step"] for record in right]
    for mine, yours in zip(left, right, strict=True):
        assert mine.keys() == yours.keys()
        for key in mine:
            assert yours[key] == pytest.approx(mine[key], rel=TOLERANCE), (mine["step"], key)
    first, second = (torch.load(out.parent / f"{out.name}-noted/gradients.pt") for out in (one, other))
    assert first.keys() == second.keys()
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=TOLERANCE, atol=TOLERANCE * float(value.abs().max()))


SIZES = [(4, 8), (3, 7)]
CHANGES = ("optim.lr=0.01", "schedule.epochs=2")


@pytest.mark.parametrize(("videos", "images"), SIZES)
def test_pieces_of_unequal_streams_give_the_loss_and_gradients_of_one(videos: int, images: int, tmp_path: Path) -> None:
    """With drop path: a clip's draws follow from its place in the whole batch. In 5 pieces some have no video."""
    changes = (*CHANGES, f"run.batch_size={videos}")
    one = one_process(tmp_path / "one", *changes, images=images)
    for pieces in (2, 3, 5):
        cut = one_process(tmp_path / f"{pieces}", *changes, f"run.accumulate={pieces}", images=images)
        assert_close(one, cut)
    [first, *_] = records(one)
    assert {"loss", "loss_video", "loss_image", "miss", "miss_image"} <= first.keys()
    assert first["loss"] == pytest.approx(first["loss_video"] + 0.5 * first["loss_image"], rel=1e-6)


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
@pytest.mark.parametrize(("videos", "images"), SIZES)
def test_ranks_with_unequal_streams_give_the_loss_and_gradients_of_one_process(
    videos: int, images: int, parallel: str, tmp_path: Path
) -> None:
    """Each of the two has so many videos and images; blocks are recomputed in backward, which makes no difference."""
    changes, options = (*CHANGES, f"run.batch_size={2 * videos}"), {"images": 2 * images}
    one = one_process(tmp_path / "one", *changes, **options)
    for pieces in (1, 2, 3) if parallel == "ddp" else (1, 3):
        how = (f"run.parallel={parallel}", f"run.accumulate={pieces}")
        many = two_ranks(tmp_path / f"{pieces}", *changes, *how, recomputes=pieces == 3, **options)
        assert_close(one, many)


def test_recomputed_blocks_draw_for_their_own_stream_again(tmp_path: Path) -> None:
    for name, recomputes in (("plain", False), ("again", True)):
        fit(streams_job(tmp_path / name, *CHANGES, "run.accumulate=2", recomputes=recomputes), Notes())
    assert log_lines(tmp_path / "plain") == log_lines(tmp_path / "again")


def test_parts_have_nearly_equally_many_clips_of_each_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batches: list[Any] = []

    def note(self: StepPlan, device_batch: Any, agreement: Any) -> list[MicroBatch]:
        batches.append(device_batch.batch)
        raise InterruptedError

    monkeypatch.setattr(StepPlan, "split", note)
    with pytest.raises(InterruptedError):
        fit(streams_job(tmp_path), Notes())
    [batch] = batches
    for pieces, videos, images in ((2, [2, 2], [4, 4]), (3, [1, 1, 2], [2, 3, 3]), (6, [1] * 4, [1, 1, 2, 1, 1, 2])):
        cut = parts(batch, pieces)
        assert [part.sizes["video"] for part in cut if "video" in part.sizes] == videos
        assert [part.sizes["image"] for part in cut] == images
        for name in ("video", "image"):
            index = torch.cat([part.clips[name].index for part in cut if name in part.sizes])
            assert index.equal(batch.clips[name].index)


def test_a_skipped_file_of_one_stream_does_not_disturb_the_other(tmp_path: Path) -> None:
    """The draws of the videos stay; a step's loss of the videos is what it is while weights are the same: in step 1."""
    fit(streams_job(tmp_path / "all", *CHANGES), Notes())
    bad = {"image": ImageSet(bad=tuple(range(0, 20, 2)))}
    notes = Notes()
    fit(streams_job(tmp_path / "some", *CHANGES, datasets=bad), notes)
    one, other = (records(tmp_path / name)[0] for name in ("all", "some"))
    assert one["loss_video"] == other["loss_video"]
    assert one["loss_image"] != other["loss_image"]
    rows = (tmp_path / "some/skipped.csv").read_text().splitlines()
    assert rows[0] == "path,reason,first_step,stream"
    assert len(rows) == 11
    assert all(row.startswith("images/") and row.endswith(",image") for row in rows[1:])
    assert any("skipped images/" in line and "(stream image, " in line for line in notes.lines)


@pytest.mark.parametrize("pieces", [1, 3])
def test_ranks_with_skipped_files_are_exact_too(pieces: int, tmp_path: Path) -> None:
    """Without drop path, as ranks draw for what could be read. In some steps a rank has no video, or none has any."""
    sets = {"video": ToySet(count=12, bad=(0, 1, 3, 5, 7, 9)), "image": ImageSet(bad=(2, 4, 11))}
    changes = (*CHANGES, "run.batch_size=2", "data.max_skipped=0.5", "schedule.epochs=3")
    options = {"datasets": sets, "drop_path": 0.0, "images": 6}
    one = one_process(tmp_path / "one", *changes, **options)
    many = two_ranks(tmp_path / "many", *changes, f"run.accumulate={pieces}", **options)
    assert_close(one, many)
    assert any("skipped" in record for record in records(one)), "a step without a video is no step"
    left, right = (sorted((out / "skipped.csv").read_text().splitlines()) for out in (one, many))
    assert left == right
    assert len(left) == 1 + 6 + 3


def test_too_many_bad_files_of_a_stream_name_its_field(tmp_path: Path) -> None:
    sets = {"image": ImageSet(bad=tuple(range(15)))}
    with pytest.raises(ValueError, match=r"of 20 videos cannot be read, more than streams\.image\.data\.max_skipped"):
        fit(streams_job(tmp_path, *CHANGES, datasets=sets), Notes())


def spoil(job: Any, stream: str, index: int) -> None:
    """The loss of this stream is not a number where the clip of this index is in the batch."""

    def act(module: Any, inputs: Any, output: Any) -> None:
        if index in inputs[0].clips[stream].index.tolist():
            output.losses[stream] = output.losses[stream] * float("nan")

    job.method.register_forward_hook(act)


@pytest.mark.parametrize("world", [1, 2])
@pytest.mark.parametrize("pieces", [1, 3])
def test_a_report_of_what_is_not_finite_names_the_files_of_each_stream(world: int, pieces: int, tmp_path: Path) -> None:
    out = tmp_path / "run"

    def work(rank: int) -> None:
        with noted(tmp_path / "run-noted"):
            job = streams_job(out, f"run.accumulate={pieces}")
            spoil(job, "image", 5)
            fit(job, Notes())

    if world == 1:
        with pytest.raises(ValueError, match="not finite") as caught:
            work(0)
        message = str(caught.value)
    else:
        first, second = run_ranks(world, work, tmp_path / "said")
        assert (first.code, second.code) == (2, 2)
        message = first.text
    report = json.loads((out / "nonfinite.json").read_text())
    step = clips_of(out)[-1]
    assert 5 in step["image"]
    assert report["files"].keys() == {"video", "image"}
    assert sorted(report["files"]["video"]) == sorted(f"videos/{index}.mp4" for index in step["video"])
    assert sorted(report["files"]["image"]) == sorted(f"images/{index}.jpg" for index in step["image"])
    assert re.search(r"files of the batch: video: videos/\d+\.mp4, .*; image: images/\d+\.jpg, .*", message)
    assert f"step {report['step']}: loss nan" in message


def run_program(out: Path, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, toy_streams.__file__, str(out), json.dumps({"job": "streams", **options})]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False
    )


def assert_same_run(one: Path, other: Path) -> None:
    assert log_lines(one) == log_lines(other)
    files = sorted(saved(one)[-1].glob("*.safetensors"))
    assert files
    for file in files:
        left, right = load_file(file), load_file(other / file.relative_to(one))
        assert left.keys() == right.keys()
        assert all(left[name].equal(right[name]) for name in left), file


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_run_on_two_streams_goes_on_bit_for_bit(number: int, tmp_path: Path) -> None:
    """Step 6 is in the middle of the second epoch of the videos, and after the third of the images."""
    changes = ["data.workers=1", "run.accumulate=2"]
    assert run_program(tmp_path / "whole", recipe=changes).returncode == 0
    killed = run_program(tmp_path / "parts", recipe=changes, kill={"step": 6, "signal": int(number)})
    assert killed.returncode == (143 if number == signal.SIGTERM else -signal.SIGKILL), killed.stderr
    assert saved(tmp_path / "parts")[-1].name == ("step-00000006" if number == signal.SIGTERM else "step-00000004")
    again = run_program(tmp_path / "parts", recipe=["data.workers=0", "run.accumulate=2"])
    assert again.returncode == 0, again.stderr
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_ranks_agree_on_buffers_that_are_state_and_checkpoints_hold_them(parallel: str, tmp_path: Path) -> None:
    """An average over clips becomes the mean over the ranks, a count that of rank 0; and it goes on after a stop."""
    out, changes = tmp_path / "run", (f"run.parallel={parallel}", *CHANGES)
    two_ranks(out, *changes)
    first, second = (torch.load(tmp_path / f"run-{rank}.pt") for rank in range(2))
    assert first["codebook"].abs().sum() > 0
    assert all(value.equal(second[name]) for name, value in first.items())
    assert int(first["updates"]) == 12, "6 steps, two streams"
    alone = streams_job(tmp_path / "alone", *CHANGES)
    fit(alone, Notes())
    assert_near(first["codebook"], alone.method.state_dict()["codebook"])
    if parallel == "ddp":
        last = latest(out)
        assert last is not None
        assert load_file(last / MODEL)["codebook"].equal(first["codebook"])

    def begin(rank: int) -> None:
        fit(streams_job(tmp_path / "parts", *changes), Notes(act=killer(3, signal.SIGTERM)))

    assert {one.code for one in run_ranks(2, begin, tmp_path / "said")} == {128 + signal.SIGTERM}
    two_ranks(tmp_path / "parts", *changes)
    again = torch.load(tmp_path / "parts-1.pt")
    assert all(value.equal(again[name]) for name, value in first.items())


def assert_near(one: torch.Tensor, other: torch.Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_buffers_that_no_checkpoint_holds_are_no_state(tmp_path: Path) -> None:
    job = streams_job(tmp_path)
    job.method.state_buffers = lambda: {"codebook", "code"}  # type: ignore[assignment]
    with pytest.raises(AssertionError, match="no buffers that checkpoints hold: code"):
        fit(job, Notes())


def test_a_method_must_give_a_loss_of_each_stream(tmp_path: Path) -> None:
    job = streams_job(tmp_path)

    def drop(module: Any, inputs: Any, output: Any) -> None:
        del output.losses["image"]

    job.method.register_forward_hook(drop)
    with pytest.raises(AssertionError, match="image"):
        fit(job, Notes())


def test_a_stream_in_which_nothing_counts_is_an_error(tmp_path: Path) -> None:
    job = streams_job(tmp_path)
    job.method.count = lambda batch: {"video": 4.0, "image": 0.0}  # type: ignore[assignment]
    with pytest.raises(ValueError, match="step 1: nothing of stream image in the batch enters the loss"):
        fit(job, Notes())
