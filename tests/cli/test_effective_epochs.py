"""Repeated clips of a decoded video are counted where a run is described."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from typer.testing import CliRunner

from tubelet.cli.recipes import recipes
from tubelet.cli.terminal.watch import RichWatch
from tubelet.recipe import parse_recipe
from tubelet.train.records.watch import RunFacts

NAME = "videomae-s-small-pretrain"


def test_show_tells_effective_epochs_and_stays_a_recipe() -> None:
    plain = CliRunner().invoke(recipes, ["show", NAME, "schedule.epochs=50"])
    repeated = CliRunner().invoke(recipes, ["show", NAME, "schedule.epochs=50", "data.views=4"])
    assert "effective" not in plain.output
    assert repeated.output.startswith("# 50 epochs x 4 clips of each decoded video = 200 effective epochs\n")
    assert parse_recipe(repeated.output, "shown").data.views == 4


def test_the_list_tells_repeats() -> None:
    row = next(line for line in CliRunner().invoke(recipes, ["list"]).output.splitlines() if "demo-pretrain" in line)
    assert " x 2 " in row


def test_a_run_tells_effective_epochs_only_where_clips_are_repeated() -> None:
    facts = RunFacts(
        name="toy", out=Path("out"), first_step=1, total_steps=60, steps_per_epoch=3, videos=9, parameters=10,
        device="cpu", precision="float32",
    )  # fmt: skip
    for views, expected in ((1, False), (4, True)):
        text = io.StringIO()
        watch = RichWatch(Console(file=text, width=200))
        watch.start(replace(facts, views=views))
        watch.finish()
        assert ("20 x 4 effective epochs" in text.getvalue()) == expected
