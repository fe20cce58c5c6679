"""Several processes do what one does: the same samples in the same step, the same losses, checkpoints for any number.

Tolerance of a loss and a gradient norm against one process: 1e-6 relative, over 12 steps (measured: 2e-7). Sums over
ranks are taken in another order; everything else is equal. With an equal number of ranks runs are equal bit for bit.
"""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from ranks import Ended, run_ranks
from safetensors.torch import load_file
from toy_labelled import labelled_folder, toy_recipe, tubelet
from toy_run import Notes, ToySet, finetune_job, killer, log_lines, pretrain_job, records

from tubelet.data.dataset import Sample
from tubelet.recipe import override, to_yaml
from tubelet.train.checkpoint import folder as checkpoint
from tubelet.train.checkpoint.folder import MODEL, saved
from tubelet.train.distributed import heartbeat as pulse
from tubelet.train.distributed.process_group import joined, place
from tubelet.train.distributed.shard import full_tensor as together
from tubelet.train.job import Job
from tubelet.train.loop import fit
from tubelet.types import Batch, Output

BUILDERS = {"pretrain": pretrain_job, "finetune": finetune_job}
TOLERANCE = 1e-6
TORCH_WARNING = re.compile(r"\[rank\d\]:\[W|frame #|Exception raised from|<omitting|$")  # where rank 0 had the store
TWELVE = ("run.batch_size=6", "schedule.epochs=6")  # 14 videos: 2 steps an epoch


def full_tensor(kind: str, out: Path, *changes: str, **options: Any) -> Path:
    """One process."""
    fit(BUILDERS[kind](out, *TWELVE, *changes, **options), Notes())
    return out


def spread(kind: str, out: Path, *changes: str, world: int = 2, **options: Any) -> list[Ended]:
    """The same by several ranks, which write their final weights beside the run."""

    def work(rank: int) -> None:
        job = BUILDERS[kind](out, *TWELVE, *changes, **options)
        with joined(job.recipe.run, print):  # the ranks are together until the rows are, too
            fit(job, Notes())
            held = {name: together(value.detach()) for name, value in job.method.state_dict().items()}
        torch.save(held, out.parent / f"{out.name}-{rank}.pt")

    return run_ranks(world, work, out.parent / "said")


def all_ended(ranks: list[Ended], code: int = 0) -> None:
    assert [one.code for one in ranks] == [code] * len(ranks), "\n".join(one.text for one in ranks)


def measured(out: Path) -> list[float]:
    return [record["evaluation"]["accuracy"] for record in records(out) if "evaluation" in record]


def assert_close(one: Path, other: Path, *, within: float = TOLERANCE) -> None:
    left, right = records(one), records(other)
    assert [record["step"] for record in left] == [record["step"] for record in right]
    for mine, yours in zip(left, right, strict=True):
        assert mine.keys() == yours.keys()
        for key in mine.keys() - {"evaluation"}:
            assert yours[key] == pytest.approx(mine[key], rel=within), (mine["step"], key)


@pytest.mark.parametrize("kind", BUILDERS)
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
@pytest.mark.parametrize("world", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_ranks_give_the_losses_of_one_process(kind: str, parallel: str, world: int, tmp_path: Path) -> None:
    """Drop path, dropout, Mixup, CutMix and the average of weights are on; every rank has 2 videos, 4 clips, a step."""
    size = (f"run.batch_size={2 * world}", f"schedule.epochs={2 * world}")
    dataset = TwoViews(labelled=kind == "finetune")
    full_tensor(kind, tmp_path / "one", *size, dataset=dataset)
    all_ended(spread(kind, tmp_path / "many", f"run.parallel={parallel}", *size, world=world, dataset=dataset))
    assert len([record for record in records(tmp_path / "one") if "loss" in record]) == 12
    assert_close(tmp_path / "one", tmp_path / "many")
    final = load_file(saved(tmp_path / "one")[-1] / MODEL)
    for rank in range(world):
        weights = torch.load(tmp_path / f"many-{rank}.pt", weights_only=True)
        assert weights.keys() == final.keys()
        for name, value in final.items():
            torch.testing.assert_close(weights[name], value, rtol=1e-4, atol=1e-5)


class TwoViews(ToySet):
    """Two clips of each video: the second one is its negative."""

    def __getitem__(self, key: tuple[int, int]) -> Any:
        one = super().__getitem__(key)
        assert isinstance(one, Sample)
        assert one.masks is not None
        return replace(one, video=torch.cat([one.video, 255 - one.video]), masks=one.masks.repeat(2, 1, 1, 1, 1))


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_pieces_of_ranks_are_exact_too(parallel: str, tmp_path: Path) -> None:
    """3 videos a rank in 2 pieces: unequal ones. Draws are those of one process without pieces, recomputed ones too."""
    full_tensor("finetune", tmp_path / "one", "mixing.probability=0")
    changes = ("run.accumulate=2", "mixing.probability=0", "model.encoder.checkpointing=true")
    all_ended(spread("finetune", tmp_path / "many", f"run.parallel={parallel}", *changes))
    assert_close(tmp_path / "one", tmp_path / "many")


class SomeUnscored(ToySet):
    """No token of the odd clips enters the loss, as where the mask hides time steps that the decoder leaves out."""

    def __getitem__(self, key: tuple[int, int]) -> Any:
        one = super().__getitem__(key)
        assert isinstance(one, Sample)
        assert one.masks is not None
        masks = one.masks.clone()
        masks[:, 1:] &= bool(one.index % 2 == 0)
        return replace(one, masks=masks)


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_a_clip_without_a_scored_token_weighs_nothing(parallel: str, tmp_path: Path) -> None:
    """Each clip is a piece of its own, in one process and in two."""
    changes = ("model.encoder.drop_path=0", "schedule.epochs=3")
    full_tensor("pretrain", tmp_path / "one", *changes, dataset=SomeUnscored())
    full_tensor("pretrain", tmp_path / "cut", *changes, "run.accumulate=6", dataset=SomeUnscored())
    assert_close(tmp_path / "one", tmp_path / "cut")
    how = (f"run.parallel={parallel}", "run.accumulate=3")
    all_ended(spread("pretrain", tmp_path / "many", *changes, *how, dataset=SomeUnscored()))
    assert_close(tmp_path / "one", tmp_path / "many")


@pytest.mark.parametrize(("parallel", "pieces"), [("ddp", 1), ("ddp", 3), ("fsdp", 3)])
def test_a_rank_without_a_readable_file_keeps_nobody_waiting(parallel: str, pieces: int, tmp_path: Path) -> None:
    """In some steps one rank has nothing, or less than others, in some none has anything."""
    dataset = ToySet(count=12, bad=(0, 1, 3, 5, 7, 9))
    changes = (f"run.batch_size={2 * pieces}", "schedule.epochs=6", "data.max_skipped=0.5", "model.encoder.drop_path=0")
    full_tensor("pretrain", tmp_path / "one", *changes, dataset=dataset)
    how = (f"run.parallel={parallel}", f"run.accumulate={pieces}")
    all_ended(spread("pretrain", tmp_path / "many", *changes, *how, dataset=dataset))
    assert_close(tmp_path / "one", tmp_path / "many")
    counts = [sorted((tmp_path / run / "skipped.csv").read_text().splitlines()) for run in ("one", "many")]
    assert counts[0] == counts[1]
    assert len(counts[0]) == 7


@pytest.mark.parametrize(
    ("before", "after", "world"),
    [
        *(("fsdp", "ddp", 1), ("fsdp", "fsdp", 3), ("ddp", "fsdp", 3)),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in (("ddp", "ddp", 1), ("fsdp", "ddp", 3))),
    ],
)
def test_a_checkpoint_of_two_goes_on_with_one_and_with_three(
    before: str, after: str, world: int, tmp_path: Path
) -> None:
    changes = ("mixing.probability=0", f"run.parallel={before}")
    full_tensor("finetune", tmp_path / "whole", "mixing.probability=0")

    def begin(rank: int) -> None:
        job = finetune_job(tmp_path / "parts", *TWELVE, *changes)
        fit(job, Notes(act=killer(5, signal.SIGTERM)))

    all_ended(run_ranks(2, begin, tmp_path / "said"), 128 + signal.SIGTERM)
    [step] = {int(folder.name[-8:]) for folder in saved(tmp_path / "parts")[-1:]}
    assert 5 <= step <= 7
    assert checkpoint.is_sharded(saved(tmp_path / "parts")[-1]) == (before == "fsdp")
    go_on = ("mixing.probability=0", f"run.parallel={after}")
    if world == 1:
        full_tensor("finetune", tmp_path / "parts", *go_on)
    else:
        all_ended(spread("finetune", tmp_path / "parts", *go_on, world=world))
    assert_close(tmp_path / "whole", tmp_path / "parts")
    assert len(records(tmp_path / "parts")) == 18


def test_a_stop_that_one_rank_is_told_stops_all_after_the_same_step(tmp_path: Path) -> None:
    all_ended(spread("finetune", tmp_path / "whole", "run.parallel=fsdp"))

    def begin(rank: int) -> None:
        job = finetune_job(tmp_path / "parts", *TWELVE, "run.parallel=fsdp")
        if rank == 1:
            kill_in_forward(job, signal.SIGUSR1, call=5)
        fit(job, Notes())

    ranks = run_ranks(2, begin, tmp_path / "said")
    all_ended(ranks, 128 + signal.SIGUSR1)
    assert len({one.text.strip() for one in ranks}) == 1
    assert "stopped by SIGUSR1 after step 6" in ranks[0].text
    all_ended(spread("finetune", tmp_path / "parts", "run.parallel=fsdp"))
    assert log_lines(tmp_path / "whole") == log_lines(tmp_path / "parts")
    assert_equal(*(checkpoint.load(saved(tmp_path / run)[-1]) for run in ("whole", "parts")))


def assert_equal(one: checkpoint.Checkpoint, other: checkpoint.Checkpoint) -> None:
    assert one.average
    assert other.average
    for mine, yours in ((one.model, other.model), (one.optimizer, other.optimizer), (one.average, other.average)):
        assert mine.keys() == yours.keys()
        assert all(value.equal(yours[name]) for name, value in mine.items())


def kill_in_forward(job: Job, number: int, *, call: int) -> None:
    """Send this process a signal in its so-many-th step."""
    calls = 0

    def act(module: Any, inputs: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == call:
            os.kill(os.getpid(), number)

    job.method.register_forward_pre_hook(act)


@pytest.mark.parametrize(("victim", "parallel"), [(0, "ddp"), (1, "fsdp")])
def test_when_a_rank_is_killed_the_others_say_so_and_a_restart_goes_on(
    victim: int, parallel: str, tmp_path: Path
) -> None:
    all_ended(spread("pretrain", tmp_path / "whole", f"run.parallel={parallel}"))

    def begin(rank: int) -> None:
        job = pretrain_job(tmp_path / "parts", *TWELVE, f"run.parallel={parallel}")
        if rank == victim:
            kill_in_forward(job, signal.SIGKILL, call=6)
        fit(job, Notes())

    ranks = run_ranks(2, begin, tmp_path / "said")
    assert ranks[victim].code == -signal.SIGKILL
    survivor = ranks[1 - victim]
    assert survivor.code == 2, survivor.text
    [line] = [line for line in survivor.text.splitlines() if not TORCH_WARNING.match(line)]
    assert line.startswith("RankLost: ")
    assert "of the 2 processes of this run is gone (" in line
    assert survivor.seconds < 20
    all_ended(spread("pretrain", tmp_path / "parts", f"run.parallel={parallel}"))
    assert log_lines(tmp_path / "whole") == log_lines(tmp_path / "parts")


def test_a_rank_that_falls_silent_ends_the_others_in_bounded_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is alive, so no connection tears: only its pulse is missing."""
    monkeypatch.setattr(pulse, "_GRACE_BEATS", 1)
    stopped = tmp_path / "stopped"

    def begin(rank: int) -> None:
        job = pretrain_job(tmp_path / "run", *TWELVE, "run.lost_after_seconds=3")
        if rank == 1:
            stopped.write_text(str(os.getpid()))
            kill_in_forward(job, signal.SIGSTOP, call=6)
        notes = Notes()
        notes.say = print  # type: ignore[assignment,method-assign]
        fit(job, notes)

    started = time.monotonic()
    ranks = run_ranks(2, begin, tmp_path / "said", last=0)
    assert ranks[0].code == pulse.LOST, ranks[0].text
    assert "rank 1: no sign of life for 3 s" in ranks[0].text
    assert ranks[0].seconds < 15
    assert time.monotonic() - started < 30


def spoil(call: int) -> Callable[[Any, Any, Output], Output]:
    calls = 0

    def act(module: Any, inputs: tuple[Batch], output: Output) -> Output:
        nonlocal calls
        calls += 1
        return Output({"video": output.loss * float("nan")}, output.metrics) if calls == call else output

    return act


def test_a_loss_that_is_not_finite_in_one_rank_stops_all(tmp_path: Path) -> None:
    def begin(rank: int) -> None:
        job = pretrain_job(tmp_path / "run", *TWELVE)
        if rank == 1:
            job.method.register_forward_hook(spoil(call=6))
        fit(job, Notes())

    first, second = run_ranks(2, begin, tmp_path / "said")
    assert (first.code, second.code) == (2, 2)
    assert "step 6: loss nan" in first.text
    assert first.text.count(".mp4") == 6
    assert "stopped with rank 0: step 6: loss nan" in second.text
    assert [folder.name for folder in saved(tmp_path / "run")] == ["step-00000004"]


def test_too_many_bad_files_over_all_ranks_stop_all(tmp_path: Path) -> None:
    changes = ("data.max_skipped=0.1",)
    first, second = spread("pretrain", tmp_path / "run", *changes, dataset=ToySet(bad=(1, 5)))
    assert (first.code, second.code) == (2, 2)
    assert "2 of 14 videos cannot be read" in first.text
    assert "stopped with rank 0" in second.text


def test_an_error_of_one_rank_is_told_by_the_others(tmp_path: Path) -> None:
    def begin(rank: int) -> None:
        job = pretrain_job(tmp_path / "run", *TWELVE)
        if rank == 1:
            job = replace(job, dataset=Broken(at=5))
        fit(job, Notes())

    first, second = run_ranks(2, begin, tmp_path / "said")
    assert (first.code, second.code) == (2, 2)
    assert "the disk of rank 1 is gone" in second.text
    assert "stopped with rank 1: the disk of rank 1 is gone" in first.text


class Broken(ToySet):
    """Gives an error instead of its so-many-th sample."""

    def __init__(self, *, at: int) -> None:
        super().__init__()
        object.__setattr__(self, "left", [at])

    def __getitem__(self, key: tuple[int, int]) -> Any:
        self.left[0] -= 1  # type: ignore[attr-defined]
        if self.left[0] == 0:  # type: ignore[attr-defined]
            raise ValueError("the disk of rank 1 is gone")
        return super().__getitem__(key)


def test_a_disk_that_fills_under_one_rank_costs_no_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = dcp.HuggingFaceStorageWriter  # type: ignore[attr-defined]
    plain = writer.write_data

    def write(self: Any, plan: Any, planner: Any) -> Any:
        if place().rank == 1 and "step-00000008" in str(self.path):
            raise OSError(errno.ENOSPC, "No space left on device", str(self.path))
        return plain(self, plan, planner)

    monkeypatch.setattr(writer, "write_data", write)
    ranks = spread("pretrain", tmp_path / "run", "run.parallel=fsdp")
    all_ended(ranks, 2)
    assert "no space left on the disk; the checkpoint step-00000004 is whole" in ranks[0].text
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-00000004"]
    monkeypatch.undo()
    all_ended(spread("pretrain", tmp_path / "run", "run.parallel=fsdp"))
    assert [path.name for path in saved(tmp_path / "run")] == ["step-00000008", "step-00000012"]


def test_a_damaged_sharded_checkpoint_falls_back(tmp_path: Path) -> None:
    all_ended(spread("finetune", tmp_path / "whole", "run.parallel=fsdp", "run.keep=3"))
    all_ended(spread("finetune", tmp_path / "run", "run.parallel=fsdp", "run.keep=3"))
    file = sorted((saved(tmp_path / "run")[-1] / "sharded").iterdir())[1]
    data = bytearray(file.read_bytes())
    data[-3] ^= 16
    file.write_bytes(data)

    def again(rank: int) -> None:
        notes = Notes()
        fit(finetune_job(tmp_path / "run", *TWELVE, "run.parallel=fsdp", "run.keep=3"), notes)
        print("\n".join(notes.lines))

    ranks = run_ranks(2, again, tmp_path / "said")
    all_ended(ranks)
    assert f"{file}: damaged" in ranks[0].text
    assert "going back to step-00000008" in ranks[0].text
    assert log_lines(tmp_path / "whole") == log_lines(tmp_path / "run")
    assert (tmp_path / "run/checkpoints/step-00000012.damaged").is_dir()


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_torchrun_stops_goes_on_and_gives_the_model_of_one_process(parallel: str, tmp_path: Path) -> None:
    """The command line on real files, as docs/distributed.md has it."""
    videos = labelled_folder(tmp_path / "videos", each=6)
    recipe = override(toy_recipe(), [f"data.train={videos}", f"data.val={videos}", "ema=0.9", "run.batch_size=4"])
    (tmp_path / "toy.yaml").write_text(to_yaml(override(recipe, ["schedule.epochs=30", "data.workers=1"])))
    one = tubelet(tmp_path, "finetune", "toy.yaml", "--out", "one")
    assert one.returncode == 0, one.stderr
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "tubelet"]
    command = [*torchrun, "finetune", "toy.yaml", "--out", "two", f"run.parallel={parallel}"]
    log = tmp_path / "two" / "log.jsonl"
    with (tmp_path / "said.txt").open("w") as said:
        begun = subprocess.Popen(command, cwd=tmp_path, stdout=said, stderr=said)
        while begun.poll() is None and (not log.is_file() or log.read_bytes().count(b"\n") < 20):
            time.sleep(0.05)
        begun.terminate()
        begun.wait(timeout=60)
    assert "stopped by SIGTERM after step" in (tmp_path / "said.txt").read_text()
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("model: two/model") == 1
    assert "2 x cpu" in done.stderr
    assert_close(tmp_path / "one", tmp_path / "two")
    accuracies = [
        [r["evaluation"]["accuracy"] for r in records(tmp_path / o) if "evaluation" in r] for o in ("one", "two")
    ]
    assert accuracies[0] == accuracies[1]
    ours, theirs = (load_file(tmp_path / run / "model" / MODEL) for run in ("two", "one"))
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("--ranks", "2", "--parallel", "fsdp")])
def test_a_soaked_run_ends_as_if_nothing_had_happened(options: tuple[str, ...]) -> None:
    """The whole of it is `python scripts/soak.py`: 100 kills."""
    script = Path(__file__).parents[2] / "scripts" / "soak.py"
    command = [sys.executable, str(script), "--kills", "5", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert '"kills": 5' in done.stdout


def test_a_batch_that_cannot_be_shared_out_is_refused(tmp_path: Path) -> None:
    ranks = spread("pretrain", tmp_path / "run", "run.batch_size=5")
    all_ended(ranks, 2)
    assert "run.batch_size 5 is not a multiple of the 2 processes" in ranks[0].text


def test_a_world_without_ranks_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="RANK and LOCAL_RANK"):
        place()
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("LOCAL_RANK", "0")
    with pytest.raises(ValueError, match="ranks count from 0"):
        place()
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert (place().rank, place().world) == (0, 1)
