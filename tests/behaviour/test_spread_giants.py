"""A model that no process could hold: ranks build it without numbers, take their rows, and never have all of it.

The shape is that of ViT-g (arXiv:2303.16727): cubes of 2 x 14 x 14, heads 88 wide, an MLP 48/11 as wide; depth and
width are shrunk.
"""

from __future__ import annotations

import json
import signal
from dataclasses import replace as with_changes
from pathlib import Path
from typing import Any

import pytest
import torch
from ranks import Ended, run_ranks
from safetensors.torch import load_file
from toy_labelled import labelled_folder, toy_recipe
from toy_run import Notes, killer, pretrain_job, records

from tubelet.methods.autoencoder import MaskedAutoencoderSpec
from tubelet.methods.classifier import ClassifierSpec
from tubelet.models.decoder import DecoderSpec
from tubelet.models.vit import ViTSpec
from tubelet.plan.measure.real_steps import forget_peak, resident_bytes
from tubelet.recipe import Data, FinetuneRecipe, PretrainRecipe
from tubelet.runs.finetune import finetune
from tubelet.runs.pretrain import pretrain
from tubelet.spec import replace
from tubelet.train.building import build_method, building, has_weights, shell_of, spreads
from tubelet.train.checkpoint import folder as checkpoint
from tubelet.train.checkpoint.folder import MODEL, saved
from tubelet.train.distributed.process_group import joined
from tubelet.train.distributed.shard import is_sharded, local_rows
from tubelet.train.fsdp_replica import FSDPReplica
from tubelet.train.optim import parameter_groups
from tubelet.train.replica import replica_of
from tubelet.types import ClipShape

CLIP = ClipShape(frames=4, size=28)
GIANT = ViTSpec(width=352, depth=2, heads=4, mlp_ratio=48 / 11, patch=14, drop_path=0.2)
RUN = replace(toy_recipe().run, batch_size=4)
SCHEDULE = replace(toy_recipe().schedule, epochs=4)
"""Four steps: seven videos are one step an epoch."""
MODEL_FILE = Path("model") / MODEL
TOLERANCE = 1e-6


def pretraining(videos: Path) -> PretrainRecipe:
    decoder = DecoderSpec(width=32, depth=2, heads=2, mlp_ratio=48 / 11, checkpointing=True)
    model = MaskedAutoencoderSpec(encoder=replace(GIANT, checkpointing=1), decoder=decoder)
    data = Data(videos=str(videos), workers=0)
    return PretrainRecipe(name="giant", clip=CLIP, model=model, data=data, run=RUN, schedule=SCHEDULE)


def finetuning(videos: Path, **changes: Any) -> FinetuneRecipe:
    data = replace(toy_recipe().data, train=str(videos), val=str(videos))
    model = ClassifierSpec(encoder=GIANT)
    return toy_recipe(clip=CLIP, model=model, ema=0.8, data=data, run=RUN, schedule=SCHEDULE, **changes)


def spread(recipe: Any) -> Any:
    return replace(recipe, run=replace(recipe.run, parallel="fsdp"))


def train(recipe: Any, out: Path, notes: Notes | None = None) -> None:
    run: Any = pretrain if isinstance(recipe, PretrainRecipe) else finetune
    run(recipe, out, Notes() if notes is None else notes)


def in_ranks(recipe: Any, out: Path, **options: Any) -> list[Ended]:
    return run_ranks(2, lambda rank: train(spread(recipe), out, Notes(**options)), out.parent / "said")


def all_ended(ranks: list[Ended], code: int = 0) -> None:
    assert [one.code for one in ranks] == [code] * len(ranks), "\n".join(one.text for one in ranks)


def assert_close(one: Path, other: Path) -> None:
    left, right = records(one), records(other)
    assert [record["step"] for record in left] == [record["step"] for record in right]
    for mine, yours in zip(left, right, strict=True):
        for key in mine.keys() | yours.keys():
            assert yours[key] == pytest.approx(mine[key], rel=TOLERANCE), (mine["step"], key)
    ours, theirs = load_file(one / MODEL_FILE), load_file(other / MODEL_FILE)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        torch.testing.assert_close(theirs[name], value, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven, an odd number: one rank validates more of them than the other."""
    folder = labelled_folder(tmp_path_factory.mktemp("videos") / "videos", each=4)
    next(folder.rglob("3.mp4")).unlink()
    return folder


@pytest.fixture(scope="module")
def started(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("started") / "one"
    train(pretraining(videos), out)
    return out


def test_two_ranks_pretrain_as_one_process(videos: Path, started: Path, tmp_path: Path) -> None:
    """Stopped after 3 of 4 steps, and gone on with: from rows that each rank reads."""
    recipe = replace(pretraining(videos), run=replace(RUN, save_every=2))
    all_ended(in_ranks(recipe, tmp_path / "many", act=killer(3, signal.SIGTERM)), 128 + signal.SIGTERM)
    assert checkpoint.is_sharded(saved(tmp_path / "many")[-1])
    all_ended(in_ranks(recipe, tmp_path / "many"))
    assert_close(started, tmp_path / "many")


def test_two_ranks_finetune_from_weights_as_one_process(videos: Path, started: Path, tmp_path: Path) -> None:
    """With an average of weights, which is validated after each epoch on the rows of the ranks: the same accuracies.

    A stop leaves an evaluation to the next start, where it comes before the first step.
    """
    recipe = finetuning(videos, start=str(started))
    train(recipe, tmp_path / "one")
    all_ended(in_ranks(recipe, tmp_path / "many", act=killer(2, signal.SIGTERM)), 128 + signal.SIGTERM)
    assert len([record for record in records(tmp_path / "many") if "evaluation" in record]) == 2
    all_ended(in_ranks(recipe, tmp_path / "many"))
    assert_close(tmp_path / "one", tmp_path / "many")
    accuracies = [[r["evaluation"] for r in records(tmp_path / run) if "evaluation" in r] for run in ("one", "many")]
    assert len(accuracies[0]) == 4
    assert accuracies[0] == accuracies[1]
    assert (tmp_path / "many" / "model" / "classes.txt").read_text() == "bright\ndark\n"


def test_three_ranks_go_on_from_a_checkpoint_of_one_process(videos: Path, tmp_path: Path) -> None:
    """Rows do not divide by three; the average and the optimiser are read by rows too."""
    recipe = replace(finetuning(videos), run=replace(RUN, batch_size=6))
    train(recipe, tmp_path / "one")
    notes = Notes(act=killer(2, signal.SIGTERM))
    alone = run_ranks(1, lambda rank: train(recipe, tmp_path / "many", notes), tmp_path / "said")
    all_ended(alone, 128 + signal.SIGTERM)
    assert not checkpoint.is_sharded(saved(tmp_path / "many")[-1])
    all_ended(run_ranks(3, lambda rank: train(spread(recipe), tmp_path / "many"), tmp_path / "said"))
    assert_close(tmp_path / "one", tmp_path / "many")


def test_weights_that_do_not_fit_stop_all_ranks(videos: Path, started: Path, tmp_path: Path) -> None:
    other = ClassifierSpec(encoder=replace(GIANT, width=176, heads=2))
    first, second = in_ranks(replace(finetuning(videos, start=str(started)), model=other), tmp_path / "many")
    assert (first.code, second.code) == (2, 2)
    assert "shape" in first.text
    assert "stopped with rank 0" in second.text


@pytest.mark.parametrize("goes_on", [False, True])
def test_only_the_first_rank_builds_weights_and_only_where_none_are_saved(goes_on: bool, tmp_path: Path) -> None:
    recipe = spread(pretraining(tmp_path))

    def build(rank: int) -> None:
        with building(recipe.run, goes_on=goes_on):
            method = build_method(recipe)
        print(json.dumps({"rank": rank, "holds": has_weights(method)}))

    said = [json.loads(one.text) for one in run_ranks(2, build, tmp_path / "said")]
    assert said == [{"rank": 0, "holds": not goes_on}, {"rank": 1, "holds": False}]
    with building(recipe.run, goes_on=goes_on):  # one process has it whole, whatever the recipe says
        assert has_weights(build_method(recipe))
    assert not spreads(recipe.run)


def test_no_rank_but_the_first_ever_has_the_weights_in_memory(tmp_path: Path) -> None:
    """Of 100 MB a rank that is not the first takes its half of them, no more than a single tensor beside."""
    big = MaskedAutoencoderSpec(encoder=replace(GIANT, width=704, heads=8, depth=3), decoder=DecoderSpec())
    recipe = spread(replace(pretraining(tmp_path), model=big))

    def build(rank: int) -> None:
        with joined(recipe.run, print):
            warm = replica_of(pretrain_job(tmp_path / "warm", "run.parallel=fsdp"), torch.device("cpu"))
            warm.begin()
            before = resident_bytes(peak=False)
            forget_peak()
            with building(recipe.run, goes_on=False):
                method = build_method(recipe)
            job = replace_method(pretrain_job(tmp_path / "run", "run.parallel=fsdp"), method)
            replica = replica_of(job, torch.device("cpu"))
            replica.begin()
            rows = [local_rows(value.detach()) for value in method.parameters()]
            facts = {
                "taken": resident_bytes(peak=True) - before,
                "rows": sum(value.nbytes for value in rows),
                "whole": sum(value.numel() * 4 for value in method.parameters()),
                "spread": all(is_sharded(value) for value in method.parameters()),
                "firsts": sum(float(value.sum()) for value in rows),
            }
            print(json.dumps(facts))

    ranks = run_ranks(2, build, tmp_path / "said")
    all_ended(ranks)
    first, second = (json.loads(one.text) for one in ranks)
    assert first["whole"] > 90e6
    assert first["spread"]
    assert second["rows"] == pytest.approx(second["whole"] / 2, rel=0.01)
    assert second["taken"] < 0.7 * second["whole"]
    assert first["taken"] > 0.65 * first["whole"]  # the measure sees a copy where there is one
    total = sum(float(value.detach().sum()) for value in build_method(recipe).parameters())
    assert first["firsts"] + second["firsts"] == pytest.approx(total, rel=1e-3)


def replace_method(job: Any, method: torch.nn.Module) -> Any:
    return with_changes(job, method=method, groups=parameter_groups(method, weight_decay=0.05))


def test_constants_are_right_in_every_rank(tmp_path: Path) -> None:
    recipe = spread(pretraining(tmp_path))

    def build(rank: int) -> None:
        with joined(recipe.run, print):
            with building(recipe.run, goes_on=True):
                method = build_method(recipe)
            job = replace_method(pretrain_job(tmp_path / "run", "run.parallel=fsdp"), method)
            FSDPReplica(job, torch.device("cpu"))
            torch.save(dict(method.named_buffers()), tmp_path / f"{rank}.pt")

    all_ended(run_ranks(2, build, tmp_path / "said"))
    right = dict(build_method(recipe).named_buffers())
    assert set(right) == {"encoder.pos_embed", "encoder.normalise.mean", "encoder.normalise.std", "decoder.pos_embed"}
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert found.keys() == right.keys()
        assert all(found[name].equal(value) for name, value in right.items())


def test_a_shell_has_all_but_numbers() -> None:
    method = build_method(pretraining(Path("none")))
    shell = shell_of(method)
    assert has_weights(method)
    assert not has_weights(shell)
    assert {n: v.shape for n, v in shell.named_parameters()} == {n: v.shape for n, v in method.named_parameters()}
