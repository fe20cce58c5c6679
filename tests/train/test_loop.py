"""What the loop promises besides continuing: exact accumulation, records, averages, reports."""

from __future__ import annotations

import json
import math
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from toy_run import Notes, ToySet, finetune_job, killer, pretrain_job, records

from tubelet.data.dataset import collate
from tubelet.recipe import read_recipe
from tubelet.train.checkpoint.folder import latest, read_state, saved, weights
from tubelet.train.distributed.signals import Interrupted
from tubelet.train.loop import fit, parts
from tubelet.train.optim import Ema
from tubelet.train.records.throughput import Throughput


@pytest.mark.parametrize("pieces", [2, 3, 4, 9])
@pytest.mark.parametrize("bad", [(), (2, 3, 7)])
def test_accumulation_is_exact_with_ragged_pieces_too(pieces: int, bad: tuple[int, ...], tmp_path: Path) -> None:
    dataset = ToySet(bad=bad)
    for name, count in (("one", 1), ("many", pieces)):
        changes = (f"run.accumulate={count}", "model.encoder.drop_path=0", "run.batch_size=5", "optim.lr=0.01")
        fit(pretrain_job(tmp_path / name, *changes, dataset=dataset), Notes())
    one, many = records(tmp_path / "one"), records(tmp_path / "many")
    for key in ("loss", "grad_norm"):
        assert [record[key] for record in many] == pytest.approx([record[key] for record in one], rel=1e-4)


def test_pieces_cover_the_batch_and_none_is_empty(tmp_path: Path) -> None:
    dataset = ToySet()
    batch = collate([dataset[0, index] for index in range(7)]).batch
    assert batch is not None
    for pieces in (1, 2, 3, 7, 12):
        cut = parts(batch, pieces)
        sizes = [part.sizes["video"] for part in cut]
        assert torch.cat([part.clips["video"].index for part in cut]).equal(batch.clips["video"].index)
        assert max(sizes) - min(sizes) <= 1


def test_the_log_has_a_record_per_step_with_exact_numbers(tmp_path: Path) -> None:
    fit(finetune_job(tmp_path, "run.log_every=4"), Notes())
    log = records(tmp_path)
    steps = [record for record in log if "loss" in record]
    assert [record["step"] for record in steps] == list(range(1, 10))
    assert [record["epoch"] for record in steps] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert all({"lr", "grad_norm", "accuracy"} <= record.keys() for record in steps)
    assert all(float(torch.tensor(record["loss"], dtype=torch.float32)) == record["loss"] for record in steps)
    measured = [record for record in log if "evaluation" in record]
    assert [(record["step"], record["epoch"], record["evaluation"]["epoch_seen"]) for record in measured] == [
        (3, 0, 0.0),
        (6, 1, 1.0),
        (9, 2, 2.0),
    ]
    assert list((tmp_path / "tensorboard").glob("events*"))


def test_how_often_the_device_is_read_changes_no_record(tmp_path: Path) -> None:
    for every in (1, 2, 100):
        fit(pretrain_job(tmp_path / str(every), f"run.log_every={every}"), Notes())
    logs = {(tmp_path / str(every) / "log.jsonl").read_text() for every in (1, 2, 100)}
    assert len(logs) == 1


def test_reports_say_where_the_run_stands(tmp_path: Path) -> None:
    notes = Notes()
    fit(pretrain_job(tmp_path, "run.log_every=2"), notes)
    assert [report.step for report in notes.reports] == [2, 3, 4, 6, 8, 9]
    assert notes.facts[0].first_step == 1
    assert (notes.facts[0].total_steps, notes.facts[0].steps_per_epoch, notes.facts[0].videos) == (9, 3, 14)
    last = notes.reports[-1]
    assert last.seconds_left == 0
    assert last.loss == records(tmp_path)[-1]["loss"]
    assert all(0 <= report.waiting_ratio <= 1 and report.clips_per_second > 0 for report in notes.reports)
    assert notes.finished == 1


def test_clipping_limits_the_norm_and_logs_it_unclipped(tmp_path: Path) -> None:
    fit(pretrain_job(tmp_path / "free"), Notes())
    fit(pretrain_job(tmp_path / "clipped", "optim.clip_grad=0.01"), Notes())
    free, clipped = records(tmp_path / "free"), records(tmp_path / "clipped")
    assert free[0]["grad_norm"] == clipped[0]["grad_norm"] > 0.01


def test_a_finished_run_has_all_its_parts(tmp_path: Path) -> None:
    job = finetune_job(tmp_path)
    assert fit(job, Notes()) == tmp_path / "checkpoints/step-00000009"
    assert read_recipe(tmp_path / "recipe.yaml") == job.recipe
    assert (tmp_path / "skipped.csv").read_text() == "path,reason,first_step\n"
    assert [folder.name for folder in saved(tmp_path)] == ["step-00000008", "step-00000009"]
    last = latest(tmp_path)
    assert last is not None
    assert read_state(last)["recipe"] == json.loads(job.recipe.model_dump_json())


@pytest.mark.parametrize("again", [False, True])
def test_a_job_holds_the_final_weights_also_of_a_run_that_was_done_before(again: bool, tmp_path: Path) -> None:
    job = finetune_job(tmp_path)
    fit(job, Notes())
    if again:
        job = finetune_job(tmp_path)
        fit(job, Notes())
    last = latest(tmp_path)
    assert last is not None
    assert job.ema is not None
    name = "classifier.head.weight"
    average, trained = load_file(last / "average.safetensors"), load_file(last / "model.safetensors")
    assert job.method.state_dict()[name].equal(trained[name])
    assert job.ema.average.state_dict()[name].equal(average[name])
    assert weights(last)[name].equal(average[name])
    assert not average[name].equal(trained[name])


def test_without_an_average_none_is_saved(tmp_path: Path) -> None:
    assert sorted(path.name for path in fit(finetune_job(tmp_path, "ema=null"), Notes()).iterdir()) == [
        "model.safetensors",
        "optimizer.safetensors",
        "state.json",
    ]


def test_an_average_follows_the_weights() -> None:
    module = nn.Linear(2, 2)
    ema = Ema(module, decay=0.9)
    before = ema.average.weight.clone()  # type: ignore[operator]
    with torch.no_grad():
        module.weight += 1
    ema.update(module)
    torch.testing.assert_close(ema.average.weight, before + 0.1)
    assert not ema.average.weight.requires_grad


def test_bf16_runs_and_says_so(tmp_path: Path) -> None:
    notes = Notes()
    fit(pretrain_job(tmp_path, "run.precision=bf16", "schedule.epochs=1"), notes)
    assert notes.facts[0].precision == "bfloat16"
    assert all(math.isfinite(record["loss"]) for record in records(tmp_path))


def test_a_batch_in_which_nothing_counts_is_an_error(tmp_path: Path) -> None:
    job = pretrain_job(tmp_path)
    job.method.count = lambda batch: {"video": 0.0}  # type: ignore[assignment]
    with pytest.raises(ValueError, match="nothing in the batch enters the loss"):
        fit(job, Notes())


def test_a_run_learns(tmp_path: Path) -> None:
    fit(finetune_job(tmp_path, "schedule.epochs=40", "optim.lr=0.2", "mixing.probability=0", "ema=null"), Notes())
    losses = [record["loss"] for record in records(tmp_path) if "loss" in record]
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])


def test_the_time_left_follows_the_time_per_step(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 0.0, 2.0, 2.0])
    monkeypatch.setattr("tubelet.train.records.throughput.time.perf_counter", lambda: next(clock))
    pace = Throughput()
    pace.begin()
    for _ in range(4):
        pace.count(8)
    speed = pace.look(steps_left=10, waited_seconds=0.5)
    assert (speed.clips_per_second, speed.waiting_ratio, speed.seconds_left) == (16.0, 0.25, 5.0)


def test_evaluation_that_a_stop_left_out_comes_first_after_it(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        fit(finetune_job(tmp_path), Notes(act=killer(3, signal.SIGTERM)))
    assert not [record for record in records(tmp_path) if "evaluation" in record]
    seen: list[int] = []

    def measure(epoch: int) -> dict[str, float]:
        seen.append(epoch)
        return {"one": 1.0}

    fit(replace(finetune_job(tmp_path), after_epoch=measure), Notes())
    assert seen == [0, 1, 2]
