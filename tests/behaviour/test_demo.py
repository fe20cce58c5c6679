"""`tubelet demo`, shrunk: all stages, the page, and going on after a stop."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from tubelet.cli.demo.demo import table
from tubelet.cli.demo.run import STAGES, run_demo
from tubelet.models.decoder import DecoderSpec
from tubelet.models.vit import ViTSpec
from tubelet.recipe import FinetuneRecipe, PretrainRecipe, override
from tubelet.recipes.demo import Demo, demo
from tubelet.spec import replace
from tubelet.train.records.watch import SilentWatch, StepReport
from tubelet.types import ClipShape

CHANGES = ["schedule.epochs=2", "schedule.warmup_epochs=1", "data.workers=0", "run.batch_size=4", "run.device=cpu"]
ENCODER = ViTSpec(width=24, depth=1, heads=2, patch=8, tubelet=2)


def shrunk(out: Path, *, seed: int = 0) -> Demo:
    whole = demo(out, seed=seed)
    clip = ClipShape(frames=8, size=16)

    def small(recipe: FinetuneRecipe) -> FinetuneRecipe:
        return replace(override(recipe, CHANGES), clip=clip, model=replace(recipe.model, encoder=ENCODER))

    model = replace(whole.pretrain.model, encoder=ENCODER, decoder=DecoderSpec(width=16, depth=1, heads=2))
    pretrain: PretrainRecipe = replace(override(whole.pretrain, CHANGES), clip=clip, model=model)
    videos = replace(whole.videos, unlabelled=8, train=8, val=8, test=16, frames=16, size=20)
    return Demo(seed, videos, pretrain, small(whole.finetune), small(whole.scratch))


class Stopper(SilentWatch):
    """Breaks the run the first time that it tells a step of the recipe `name`."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)

    def step(self, report: StepReport) -> None:
        if any("3/5" in line for line in self.lines):
            raise KeyboardInterrupt


def test_the_demo_runs_to_its_report_and_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    small = shrunk(out)
    with pytest.raises(KeyboardInterrupt):
        run_demo(small, out, Stopper())
    assert json.loads((out / STAGES).read_text())["done"] == ["make videos", "pre-train"]
    pretrained = (out / "pretrained" / "model" / "model.safetensors").stat().st_mtime_ns

    result = run_demo(small, out, SilentWatch())

    assert (out / "pretrained" / "model" / "model.safetensors").stat().st_mtime_ns == pretrained
    assert set(result.top1) == {"pre-trained", "from scratch"}
    for value, low, high in result.top1.values():
        assert 0 <= low <= value <= high <= 1
    page = result.report.read_text()
    assert page.count("data:image/png;base64,") >= 2 + 8 + 2 * 4 + 2
    assert "http" not in page.replace("http-equiv", "")  # nothing is fetched
    assert "pre-trained" in page
    assert "counter-clockwise" in page
    assert table(result)
    again = run_demo(small, out, SilentWatch())
    assert again.top1 == result.top1


def test_a_folder_with_another_seed_is_refused(tmp_path: Path) -> None:
    (tmp_path / STAGES).write_text(json.dumps({"seed": 0, "done": [], "seconds": {}}))
    with pytest.raises(ValueError, match="seed 0; choose another --out for seed 1"):
        run_demo(shrunk(tmp_path, seed=1), tmp_path, SilentWatch())


def test_the_command_is_there() -> None:
    from tubelet.cli.demo.demo import demo as command

    app = typer.Typer()
    app.command()(command)
    shown = CliRunner().invoke(app, ["--help"])
    assert shown.exit_code == 0
    assert "--seed" in shown.output
