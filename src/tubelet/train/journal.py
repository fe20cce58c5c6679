"""All that a run tells: records in the log, skipped files, reports to who looks on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tubelet.data.dataset import Skipped
from tubelet.train.job import Job
from tubelet.train.records.log import LOG, RunLog, read_log
from tubelet.train.records.metric_buffer import MetricBuffer, StepRecord
from tubelet.train.records.skips import Skips
from tubelet.train.records.throughput import Throughput
from tubelet.train.records.watch import StepReport, Watch

_SHOWN_SKIPS: Final = 5
_NOT_METRICS: Final = frozenset({"step", "epoch", "loss", "lr", "skipped"})


class Journal:
    """Opens log.jsonl, TensorBoard and skipped.csv of a run that goes on after `step`."""

    def __init__(self, job: Job, watch: Watch, *, step: int, total: int) -> None:
        videos = {one.name: one.dataset.videos for one in job.streams}
        self._watch, self._total = watch, total
        self._skips = Skips(job.out, job.streams, step=step)
        self._metrics = MetricBuffer(job.out, name_of=lambda stream, index: str(videos[stream][index].where))
        self._throughput = Throughput(job.throughput_scale())
        self._log = RunLog(job.out, step=step)

    def note_skipped(self, skipped: Sequence[Skipped], step: int) -> None:
        """Write down files of the step that could not be read; ValueError where they are too many by now."""
        new = self._skips.note(skipped, step)
        for one in new[:_SHOWN_SKIPS]:
            self._watch.say(f"skipped {one.path}{self._skips.origin_of(one)}: {one.reason}")
        if len(new) > _SHOWN_SKIPS:
            self._watch.say(f"skipped {len(new) - _SHOWN_SKIPS} more, see {self._skips.path}")

    def add(self, taken: StepRecord, *, clips: int) -> None:
        """A step with an update; `clips` are those of the first stream."""
        self._metrics.add(taken)
        self._throughput.count(clips)

    def add_skipped(self, *, step: int, epoch: int, learning_rate: float, files: int) -> None:
        """A step without one: none of its files could be read."""
        self._metrics.add_skipped(step=step, epoch=epoch, learning_rate=learning_rate, files=files)
        self._throughput.count(0)

    def begin(self) -> None:
        """The clock starts: what came before was no training."""
        self._throughput.begin()

    def read(self, *, waited_seconds: float) -> None:
        """Look at the device, write the records since the last look, tell who looks on; ValueError if not finite."""
        records = self._metrics.read()
        for record in records:
            self._log.write_step(record)
        self._log.flush()
        if records:
            self._report(records[-1], waited_seconds)

    def _report(self, latest: Mapping[str, Any], waited_seconds: float) -> None:
        step = latest["step"]
        speed = self._throughput.look(steps_left=self._total - step, waited_seconds=waited_seconds)
        self._log.draw_speed(step, speed)
        self._watch.step(
            StepReport(
                step=step,
                total=self._total,
                epoch=latest["epoch"],
                loss=latest.get("loss"),
                learning_rate=latest["lr"],
                clips_per_second=speed.clips_per_second,
                waiting_ratio=speed.waiting_ratio,
                seconds_left=speed.seconds_left,
                teraflops=speed.teraflops,
                mfu=speed.mfu,
                metrics={name: value for name, value in latest.items() if name not in _NOT_METRICS},
            )
        )

    def evaluate(self, step: int, epoch: int, measure: Callable[[int], Mapping[str, float]]) -> None:
        """Measure after `epoch`, whose last step was `step`, unless the log says that it was done."""
        if epoch in self._log.evaluated:
            return
        metrics = measure(epoch)
        self._log.write_evaluation(step, epoch, metrics)
        values = ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
        self._watch.say(f"epoch {epoch + 1}: {values}")
        self._throughput.begin()

    def sync(self) -> None:
        """Be sure of the log before a checkpoint claims its step."""
        self._log.sync()

    def close(self) -> None:
        """Let go of the files."""
        self._log.close()


class SilentJournal:
    """Writes nothing. It measures after the same epochs as rank 0, for they share the videos."""

    def __init__(self, out: Path, *, step: int) -> None:
        records = [record for record in read_log(out / LOG) if record["step"] <= step]
        self._evaluated = {record["epoch"] for record in records if "evaluation" in record}

    def note_skipped(self, skipped: Sequence[Skipped], step: int) -> None:
        """Nothing: rank 0 counts those of all ranks."""

    def add(self, taken: StepRecord, *, clips: int) -> None:
        """Nothing."""

    def add_skipped(self, *, step: int, epoch: int, learning_rate: float, files: int) -> None:
        """Nothing."""

    def begin(self) -> None:
        """Nothing."""

    def read(self, *, waited_seconds: float) -> None:
        """Nothing: where the loss is not finite, rank 0 stops all."""

    def evaluate(self, step: int, epoch: int, measure: Callable[[int], Mapping[str, float]]) -> None:  # noqa: ARG002
        """Measure its part, unless the log says that it was done."""
        if epoch not in self._evaluated:
            measure(epoch)
            self._evaluated.add(epoch)

    def sync(self) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""
