"""How fast a run goes, in clips, FLOPs and shares of what the device can: shown and drawn, never in the log."""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]
from toy_run import Notes, pretrain_job, records

from tubelet.plan.count.flops import count_flops
from tubelet.plan.count.peaks import throughput_scale_of
from tubelet.plan.count.step import plan_step
from tubelet.recipe import encoder_run
from tubelet.train.loop import fit
from tubelet.train.records.throughput import Throughput, ThroughputScale


@pytest.fixture
def seconds_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 0.0, 2.0])
    monkeypatch.setattr("tubelet.train.records.throughput.time.perf_counter", lambda: next(clock))


@pytest.mark.usefixtures("seconds_of_two")
@pytest.mark.parametrize(("devices", "teraflops", "mfu"), [(1, 8.0, 0.08), (4, 2.0, 0.02)])
def test_flops_and_mfu_are_of_one_device(devices: int, teraflops: float, mfu: float) -> None:
    pace = Throughput(ThroughputScale(clip_flops=5e11, devices=devices, peak=100e12))
    pace.begin()
    pace.count(32)
    speed = pace.look(steps_left=0, waited_seconds=0.0)
    assert speed.clips_per_second == 16
    assert speed.teraflops == teraflops
    assert speed.mfu == pytest.approx(mfu)


@pytest.mark.usefixtures("seconds_of_two")
def test_without_a_known_peak_there_is_no_mfu() -> None:
    pace = Throughput(ThroughputScale(clip_flops=1e12))
    pace.begin()
    pace.count(2)
    speed = pace.look(steps_left=0, waited_seconds=0.0)
    assert (speed.teraflops, speed.mfu) == (1.0, None)


def test_a_run_reports_flops_and_draws_them_but_does_not_log_them(tmp_path: Path) -> None:
    notes, job = Notes(), pretrain_job(tmp_path, "schedule.epochs=1")
    recipe = encoder_run(job.recipe, "toy")
    fit(dataclasses.replace(job, throughput_scale=partial(throughput_scale_of, recipe)), notes)
    each = count_flops(plan_step(recipe)).training
    for report in notes.reports:
        assert report.teraflops == pytest.approx(report.clips_per_second * each / 1e12)
        assert report.mfu is not None
        assert 0 < report.mfu < 1
    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    drawn = {name: board.Scalars(f"speed/{name}") for name in ("teraflops_per_device", "mfu")}
    assert [event.step for event in drawn["mfu"]] == [report.step for report in notes.reports]
    assert drawn["teraflops_per_device"][-1].value == pytest.approx(notes.reports[-1].teraflops)
    assert set(records(tmp_path)[0]) == {"step", "epoch", "loss", "lr", "grad_norm"}
