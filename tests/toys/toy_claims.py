"""What many tests of behaviour claim of a run: it goes on bit for bit, two ranks agree, a command ends as it should."""

from __future__ import annotations

import contextlib
import io
import signal
from pathlib import Path

import pytest
import torch
from ranks import run_ranks
from safetensors.torch import load_file
from toy_run import Notes, killer, log_lines, records

from tubelet.cli import main
from tubelet.methods.masked import MaskedMethod
from tubelet.recipe import PretrainRecipe
from tubelet.runs.pretrain import pretrain
from tubelet.train.checkpoint.folder import saved
from tubelet.train.distributed.signals import Interrupted
from tubelet.types import Batch


def say(*words: str, code: int = 0) -> str:
    """All that a command prints; it must end with this exit code."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out), pytest.raises(SystemExit) as stop:
        main(list(words))
    assert (stop.value.code or 0) == code, out.getvalue()
    return out.getvalue()


def assert_goes_on(recipe: PretrainRecipe, folder: Path, *, step: int, then: PretrainRecipe | None = None) -> None:
    """Stopped after a step and gone on with (as `then`), it is the run that never stopped: log and weights."""
    pretrain(recipe, folder / "whole", Notes())
    with pytest.raises(Interrupted):
        pretrain(recipe, folder / "parts", Notes(act=killer(step, signal.SIGINT)))
    pretrain(then or recipe, folder / "parts", Notes())
    assert log_lines(folder / "whole") == log_lines(folder / "parts")
    one, other = (load_file(saved(folder / run)[-1] / "model.safetensors") for run in ("whole", "parts"))
    assert one.keys() == other.keys()
    assert all(one[name].equal(other[name]) for name in one)


def assert_learns(method: MaskedMethod, batch: Batch, *, steps: int) -> None:
    """The loss on one batch falls below half."""
    optimiser = torch.optim.Adam(method.parameters(), lr=3e-3)
    first = float(method(batch).loss.detach())
    for _ in range(steps):
        optimiser.zero_grad()
        loss = method(batch).loss
        loss.backward()
        optimiser.step()
    assert float(loss.detach()) < 0.5 * first


def assert_bf16_is_near(method: MaskedMethod, batch: Batch) -> None:
    """Under autocast on the CPU, loss and gradients in float32."""
    plain = method(batch).loss
    with torch.autocast("cpu", torch.bfloat16):
        output = method(batch)
    assert output.loss.dtype == torch.float32
    output.loss.backward()
    assert float(output.loss.detach()) == pytest.approx(float(plain.detach()), rel=0.02)
    assert all(value.grad is not None and value.grad.dtype == torch.float32 for value in method.parameters())


def assert_two_ranks_agree(recipe: PretrainRecipe, folder: Path) -> list[float]:
    """Two ranks have the losses of one process, which are given back."""
    pretrain(recipe, folder / "one", Notes())

    def work(rank: int) -> None:
        del rank
        pretrain(recipe, folder / "two", Notes())

    ranks = run_ranks(2, work, folder / "said")
    assert [rank.code for rank in ranks] == [0, 0], "\n".join(rank.text for rank in ranks)
    one, two = ([float(record["loss"]) for record in records(folder / run)] for run in ("one", "two"))
    assert two == pytest.approx(one, rel=1e-6)
    return one
