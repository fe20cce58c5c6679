"""What goes wrong in a run ends in one clear line, and never costs a good checkpoint."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import toy_run
from safetensors.torch import load_file
from toy_labelled import write_video
from toy_run import CLIP, Notes, ToySet, finetune_job, log_lines, pretrain_job, pretrain_recipe, records

from tubelet.disk.layout import AVERAGE_FILE, MODEL_FILE, OPTIMIZER_FILE, STATE_FILE
from tubelet.runs.pretrain import pretrain
from tubelet.train.checkpoint import folder as checkpoint
from tubelet.train.checkpoint.folder import saved
from tubelet.train.checkpoint.resume import prepare
from tubelet.train.loop import Job, fit
from tubelet.types import Batch, Output


def refused(job: Job) -> str:
    """The one line that a run ends with."""
    with pytest.raises(ValueError, match=r".") as error:
        fit(job, Notes())
    message = str(error.value)
    assert "\n" not in message
    return message


def names(out: Path) -> list[str]:
    return sorted(path.name for path in (out / "checkpoints").iterdir())


@contextlib.contextmanager
def file_system(folder: Path, kib: int) -> Iterator[Path]:
    """A small one of its own at the new `folder`, in memory; who may not mount skips the test."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", str(folder)]
    if os.name != "posix" or os.getuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


TINY_DISK_KIB = 440


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for one checkpoint of the toy and a half."""
    with file_system(tmp_path / "disk", TINY_DISK_KIB) as folder:
        yield folder


@pytest.fixture
def read_only_videos(tmp_path: Path) -> Iterator[Path]:
    """Videos on a file system on which nothing can be written."""
    with file_system(tmp_path / "videos", 4096) as folder:
        for index in range(4):
            write_video(folder / f"{index}.mp4", 90, seed=index)
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
        yield folder


@pytest.mark.parametrize("workers", [0, 1])
def test_data_that_cannot_be_written_are_read(read_only_videos: Path, workers: int, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="Read-only"):
        (read_only_videos / "new").write_text("")
    changes = (f"data.videos={read_only_videos}", f"data.workers={workers}", "schedule.epochs=2")
    recipe = pretrain_recipe(*changes, f"data.cache={tmp_path / 'cache'}")
    assert (pretrain(recipe, tmp_path / "run", Notes()) / MODEL_FILE).is_file()
    assert len(records(tmp_path / "run")) == 2


def test_a_disk_that_is_really_full_costs_no_checkpoint(tiny_disk: Path, tmp_path: Path) -> None:
    fit(pretrain_job(tmp_path / "whole"), Notes())
    out = tiny_disk / "run"
    message = refused(pretrain_job(out))
    assert "no space left" in message
    assert "step-00000004 is whole" in message
    assert names(out) == ["step-00000004"]
    checkpoint.load(out / "checkpoints/step-00000004")
    shutil.copytree(out, tmp_path / "more_room")
    fit(pretrain_job(tmp_path / "more_room"), Notes())
    assert log_lines(tmp_path / "more_room") == log_lines(tmp_path / "whole")


def test_a_disk_that_fills_while_saving_costs_no_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = checkpoint.write_tensors

    def write(tensors: Any, path: Path) -> None:
        plain(tensors, path)
        if "step-00000008" in str(path) and path.name == OPTIMIZER_FILE:
            path.write_bytes(path.read_bytes()[:100])
            raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(checkpoint, "write_tensors", write)
    assert "step-00000004 is whole" in refused(pretrain_job(tmp_path, "run.keep=1"))
    assert names(tmp_path) == ["step-00000004"]
    monkeypatch.undo()
    fit(pretrain_job(tmp_path, "run.keep=1"), Notes())
    assert names(tmp_path) == ["step-00000009"]


def test_leftovers_of_a_killed_save_are_removed(tmp_path: Path) -> None:
    for name in ("checkpoints/.step-00000004.tmp", ".log.jsonl.tmp"):
        (tmp_path / name).mkdir(parents=True)
    fit(pretrain_job(tmp_path, "run.keep=2"), Notes())
    assert names(tmp_path) == ["step-00000008", "step-00000009"]
    assert not list(tmp_path.glob(".*"))


def spoil(path: Path, how: str) -> None:
    data = path.read_bytes()
    if how == "remove":
        path.unlink()
    elif how == "cut":
        path.write_bytes(data[: len(data) // 2])
    elif how == "garbage":
        path.write_bytes(b"\x80\x02garbage" * 99)
    else:  # a flipped bit in the middle: still a file that opens
        place = data.index(b'"lr"') + 7 if path.name == STATE_FILE else len(data) - 9
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])


@pytest.mark.parametrize("file", [MODEL_FILE, OPTIMIZER_FILE, AVERAGE_FILE, STATE_FILE])
@pytest.mark.parametrize("how", ["cut", "remove", "garbage", "flip"])
def test_a_run_goes_back_to_the_checkpoint_before_a_damaged_one(file: str, how: str, tmp_path: Path) -> None:
    changes = ("run.keep=3", "schedule.epochs=2", "run.save_every=2")
    fit(finetune_job(tmp_path / "whole", *changes), Notes())
    shutil.copytree(tmp_path / "whole", tmp_path / "run")
    damaged = saved(tmp_path / "run")[-1]
    spoil(damaged / file, how)
    notes = Notes()
    fit(finetune_job(tmp_path / "run", *changes), notes)
    [line] = [line for line in notes.lines if "DAMAGED" in line]
    assert str(damaged / file) in line
    assert "kept as step-00000006.damaged; going back to step-00000004" in line
    assert names(tmp_path / "run") == ["step-00000002", "step-00000004", "step-00000006", "step-00000006.damaged"]
    assert log_lines(tmp_path / "run") == log_lines(tmp_path / "whole")
    for name in (MODEL_FILE, OPTIMIZER_FILE, AVERAGE_FILE):
        ours, theirs = (load_file(saved(tmp_path / run)[-1] / name) for run in ("run", "whole"))
        assert all(value.equal(ours[key]) for key, value in theirs.items())


def test_where_no_checkpoint_is_whole_the_run_refuses_and_keeps_them(tmp_path: Path) -> None:
    fit(pretrain_job(tmp_path, "schedule.epochs=2"), Notes())
    for folder in saved(tmp_path):
        spoil(folder / MODEL_FILE, "flip")
    before = names(tmp_path)
    for _ in range(2):
        message = refused(pretrain_job(tmp_path, "schedule.epochs=2"))
        assert str(saved(tmp_path)[-1] / MODEL_FILE) in message
        assert "no older checkpoint is whole" in message
        assert "--fresh" in message
        assert names(tmp_path) == before


@pytest.mark.parametrize("how", ["whole", "cut"])
def test_checkpoints_from_before_there_were_checksums_still_load(how: str, tmp_path: Path) -> None:
    fit(pretrain_job(tmp_path / "whole"), Notes())
    with pytest.raises(KeyboardInterrupt):
        fit(pretrain_job(tmp_path / "run"), Notes(act=stop_hard_at(9)))
    for folder in saved(tmp_path / "run"):
        state = json.loads((folder / STATE_FILE).read_text())
        del state["files"], state["sha256"], state["recipe"]["run"]["parallel"]
        (folder / STATE_FILE).write_text(json.dumps(state))
    if how == "cut":
        spoil(saved(tmp_path / "run")[-1] / OPTIMIZER_FILE, how)
    notes = Notes()
    fit(pretrain_job(tmp_path / "run"), notes)
    assert any("DAMAGED" in line for line in notes.lines) == (how == "cut")
    assert log_lines(tmp_path / "run") == log_lines(tmp_path / "whole")


def test_a_damaged_checkpoint_of_another_recipe_is_left_alone(tmp_path: Path) -> None:
    fit(pretrain_job(tmp_path), Notes())
    spoil(saved(tmp_path)[-1] / MODEL_FILE, "flip")
    before = names(tmp_path)
    assert "another recipe" in refused(pretrain_job(tmp_path, "seed=5"))
    assert names(tmp_path) == before


def test_a_checkpoint_of_another_shape_names_the_tensor_and_both_shapes(tmp_path: Path) -> None:
    fit(pretrain_job(tmp_path), Notes())
    job, recipe = pretrain_job(tmp_path), pretrain_recipe("model.decoder.width=32")
    wider = recipe.model.build(CLIP, recipe.target)
    message = refused(replace(job, method=wider))
    assert MODEL_FILE in message
    assert "'decoder." in message
    assert "16], the model" in message
    assert "32]; was it made" in message


def test_weights_that_lack_or_add_a_tensor_are_refused(tmp_path: Path) -> None:
    module = torch.nn.Linear(2, 3)
    with pytest.raises(ValueError, match="has no tensor 'bias'"):
        checkpoint.fill(module, {"weight": torch.zeros(3, 2)}, where=tmp_path)
    with pytest.raises(ValueError, match="has 'extra'"):
        checkpoint.fill(module, {**module.state_dict(), "extra": torch.zeros(1)}, where=tmp_path)


@pytest.mark.parametrize("place", ["loss", "gradient"])
@pytest.mark.parametrize("log_every", [1, 3])
def test_a_loss_that_is_not_finite_stops_with_step_loss_and_files(place: str, log_every: int, tmp_path: Path) -> None:
    changes = (f"run.log_every={log_every}", "run.save_every=4")
    job = pretrain_job(tmp_path, *changes)
    method = job.method
    calls = 0

    def spoil(module: Any, inputs: tuple[Batch], output: Output) -> Output:
        nonlocal calls
        calls += 1
        if calls < 5:
            return output
        bad = output.loss * float("nan") if place == "loss" else output.loss + torch.sqrt(output.loss * 0)
        return Output({"video": bad}, output.metrics)

    method.register_forward_hook(spoil)
    message = refused(job)
    assert "step 5" in message
    assert "nan" in message or "inf" in message
    assert message.count(".mp4") == 4
    assert names(tmp_path) == ["step-00000004"]
    assert [record["step"] for record in records(tmp_path)] == [1, 2, 3, 4]


def test_bad_files_are_listed_once_and_survive_a_resume(tmp_path: Path) -> None:
    dataset = ToySet(bad=(1, 5))
    notes = Notes()
    fit(pretrain_job(tmp_path / "whole", dataset=dataset), notes)
    rows = (tmp_path / "whole/skipped.csv").read_text().splitlines()
    assert rows[0] == "path,reason,first_step"
    assert sorted(row.rsplit(",", 1)[0] for row in rows[1:]) == ["videos/1.mp4,is broken", "videos/5.mp4,is broken"]
    assert sum("is\nbroken" in line or "is broken" in line for line in notes.lines) == 2
    with pytest.raises(KeyboardInterrupt):
        fit(pretrain_job(tmp_path / "parts", dataset=dataset), Notes(act=stop_hard_at(6)))
    fit(pretrain_job(tmp_path / "parts", dataset=dataset), Notes())
    for file in ("skipped.csv", "log.jsonl"):
        assert (tmp_path / "parts" / file).read_text() == (tmp_path / "whole" / file).read_text()


def stop_hard_at(step: int) -> Any:
    def act(report: Any) -> None:
        if report.step == step:
            raise KeyboardInterrupt

    return act


def test_too_many_bad_files_stop_the_run_and_name_the_list_and_the_setting(tmp_path: Path) -> None:
    message = refused(pretrain_job(tmp_path, "data.max_skipped=0.1", dataset=ToySet(bad=(1, 5))))
    assert "2 of 14" in message
    assert "data.max_skipped=0.1" in message
    assert str(tmp_path / "skipped.csv") in message
    assert len((tmp_path / "skipped.csv").read_text().splitlines()) == 3


def test_a_step_without_a_good_file_is_logged_and_updates_nothing(tmp_path: Path) -> None:
    dataset = ToySet(count=3, bad=(0,))
    notes = Notes()
    job = pretrain_job(tmp_path, "run.batch_size=1", "data.max_skipped=0.5", dataset=dataset)
    fit(job, notes)
    skipped = [record for record in records(tmp_path) if "skipped" in record]
    assert len(records(tmp_path)) == 9
    assert len(skipped) == 3
    assert all("loss" not in record and record["skipped"] == 1 for record in skipped)
    assert sum(report.loss is None for report in notes.reports) == 3


def test_a_worker_that_dies_is_one_line(tmp_path: Path) -> None:
    message = refused(pretrain_job(tmp_path, "data.workers=1", dataset=ToySet(die_at=3)))
    assert "exited unexpectedly" in message or "exit code: 3" in message, message
    assert "data.workers" in message


def test_a_batch_larger_than_the_set_says_what_to_set(tmp_path: Path) -> None:
    message = refused(pretrain_job(tmp_path, "run.batch_size=64"))
    assert "run.batch_size=14" in message


def test_a_warm_up_longer_than_the_run_is_refused(tmp_path: Path) -> None:
    assert "schedule.warmup_epochs" in refused(pretrain_job(tmp_path, "schedule.warmup_epochs=4"))


def test_an_output_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    message = refused(pretrain_job(tmp_path / "file" / "run"))
    assert "cannot be written" in message
    assert "--out" in message


def test_two_processes_cannot_train_in_one_folder(tmp_path: Path) -> None:
    program = [sys.executable, toy_run.__file__, str(tmp_path), "{}"]

    def other(report: Any) -> None:
        if report.step == 5:
            done = subprocess.run(program, capture_output=True, text=True, check=False)
            assert "another process trains in this folder" in done.stderr

    fit(pretrain_job(tmp_path), Notes(act=other))
    assert len(records(tmp_path)) == 9
    assert not (tmp_path / ".lock").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a GPU")
def test_a_gpu_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    assert "run.device=cuda" in refused(pretrain_job(tmp_path, "run.device=cuda"))


def test_fresh_removes_the_work_of_a_run_and_nothing_else(tmp_path: Path) -> None:
    fit(finetune_job(tmp_path), Notes())
    (tmp_path / "notes.txt").write_text("mine")
    prepare(tmp_path, fresh=True)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_loading_never_executes_code() -> None:
    text = "".join(path.read_text() for path in Path(checkpoint.__file__).parent.glob("*.py"))
    assert "torch.load(" not in text
    assert "pickle" not in text
