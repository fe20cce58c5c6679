"""Training and whatever shows or counts what it does score the same tokens, for every rule there is."""

from __future__ import annotations

import re
from copy import deepcopy
from itertools import product
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from toy_reconstruct import write_video

import tubelet
from tubelet.data.dataset import ClipDataset, ClipPlan, Sample, collate
from tubelet.inference import model as in_python
from tubelet.masks import DecodeRule, LossOn, MaskRule, MaskRules, RunningCell, Tube, draw_mask
from tubelet.methods.masked import MaskedMethod
from tubelet.methods.predictor import MaskedPredictorSpec
from tubelet.models.vit import ViTSpec
from tubelet.pictures import reconstruct as by_command
from tubelet.plan.count.step import plan_step
from tubelet.plan.measure.real_steps import made_up_job
from tubelet.recipe import Data, PretrainRecipe
from tubelet.rng import generator
from tubelet.runs.pretrain import plan_of
from tubelet.spec import kinds_of
from tubelet.types import Batch, Clips, ClipShape, Grid, Mask, Split
from tubelet.video.augment.augment import Augment, CentreCrop
from tubelet.video.lists.manifest import VideoRef
from tubelet.weights.checkpoint import Checkpoint

FRAMES, SIZE = 20, 32
CLIP = ClipShape(frames=8, size=32)
# A masked predictor, for it takes every mask rule.
SPEC = MaskedPredictorSpec(encoder=ViTSpec(width=12, depth=1, heads=2, patch=4))


RECIPES = [
    PretrainRecipe(
        name="toy",
        clip=CLIP,
        data=Data(augment=Augment(crop=CentreCrop())),
        model=SPEC,
        mask=mask(),
        decode=decode(),
        loss_on=loss_on,
    )
    for mask, decode, loss_on in product(kinds_of(MaskRule).values(), kinds_of(DecodeRule).values(), get_args(LossOn))
]


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("videos") / "one.mp4", frames=FRAMES, size=SIZE)


@pytest.fixture(scope="module")
def method() -> MaskedMethod:
    return SPEC.build(CLIP, RECIPES[0].target).eval()


def in_training(recipe: PretrainRecipe, method: MaskedMethod, video: Path) -> Split:
    """What training is fed with."""
    dataset = ClipDataset([VideoRef(video, None, "one")], plan_of(recipe, method))
    batch = collate([dataset[(0, 0)]]).batch
    assert batch is not None
    return batch.splits["video"]


def when_a_mask_is_drawn(plan: ClipPlan) -> np.random.Generator:
    """The generator of the first clip after frames and augmentations have been drawn."""
    rng = generator(plan.seed, 0, 0, 0)
    plan.sampler.train(FRAMES, plan.clip.frames, rng)
    plan.augment(np.zeros((plan.clip.frames, SIZE, SIZE, 3), dtype=np.uint8), plan.clip.size, rng)
    return rng


def loaded(recipe: PretrainRecipe, method: MaskedMethod) -> in_python.Model:
    imported = Checkpoint(Path("toy"), "toy", method.state_dict(), recipe)
    return in_python.Model(imported, device=torch.device("cpu"), precision=torch.float32)


def assert_same(first: Split, *others: Split) -> None:
    for other in others:
        assert torch.equal(first.wanted, other.wanted)
        assert torch.equal(first.weight, other.weight)
        assert first.hidden is not None
        assert other.hidden is not None
        assert torch.equal(first.hidden, other.hidden)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda one: f"{one.mask.kind}-{one.decode.kind}-{one.loss_on}")
def test_a_reconstruction_scores_the_tokens_that_training_does(
    recipe: PretrainRecipe, method: MaskedMethod, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = in_training(recipe, method, video)
    rng = when_a_mask_is_drawn(plan_of(recipe, method))
    seen: list[tuple[Split, torch.Tensor]] = []

    def note(method: Any, clip: Any, mask: Mask, **_: Any) -> Any:
        seen.append((mask.split(), clip))
        raise InterruptedError

    monkeypatch.setattr(by_command, "generator", lambda *_: deepcopy(rng))
    monkeypatch.setattr(method, "decode", recipe.decode)
    for module in (by_command, in_python):
        monkeypatch.setattr(module, "reconstruct_clip", note)
    with pytest.raises(InterruptedError):
        by_command.reconstruct(video, by_command.SavedAutoencoder(method, recipe, Path("toy")))
    with pytest.raises(InterruptedError):
        loaded(recipe, method).reconstruct(
            torch.randint(0, 256, (3, CLIP.frames, CLIP.size, CLIP.size), dtype=torch.uint8)
        )
    assert len(seen) == 2
    for shown, clip in seen:
        assert_same(method.decode.choose_wanted(trained, clip, method.cube), shown)
    assert trained.hidden is not None
    unseen = trained.hidden.flatten(1).gather(1, trained.wanted).float()
    assert torch.equal(trained.weight, torch.ones_like(unseen) if recipe.loss_on == "decoded" else unseen)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda one: f"{one.mask.kind}-{one.decode.kind}-{one.loss_on}")
def test_plans_and_rehearsals_have_the_mask_of_training(recipe: PretrainRecipe, tmp_path: Path) -> None:
    grid = CLIP.grid(SPEC.encoder.cube)
    planned = draw_mask(recipe, grid, generator(recipe.seed))
    split = plan_step(recipe).split
    assert split is not None
    counts = split.seen.shape[1], split.wanted.shape[1]
    assert counts == (int((~planned.hidden).sum()), int(planned.decoded.sum()))
    sample = made_up_job(recipe, tmp_path, 1).dataset[(0, 1)]
    assert isinstance(sample, Sample)
    assert sample.masks is not None
    assert torch.equal(sample.masks, draw_mask(recipe, grid, generator(recipe.seed, 0, 1, 0)).stacked())


def test_a_reconstruction_has_the_loss_of_training_on_all_decoded_tokens(method: MaskedMethod) -> None:
    recipe = PretrainRecipe(
        name="toy", clip=CLIP, model=SPEC, mask=Tube(ratio=0.75), decode=RunningCell(), loss_on="decoded"
    )
    pixels = (3, CLIP.frames, CLIP.size, CLIP.size)
    clip = torch.from_numpy(generator(1).integers(0, 256, pixels, dtype=np.uint8))[None]
    mask = draw_mask(recipe, method.grid, generator(5))
    assert (int(mask.scored.sum()), int((mask.hidden & mask.decoded).sum())) == (128, 96)
    model = loaded(recipe, method)
    with torch.inference_mode():
        loss = float(method(Batch({"video": Clips(clip, torch.arange(1))}, {"video": mask.split()})).loss)
    assert model.reconstruct(clip, seed=5).loss == pytest.approx(loss, rel=1e-6)
    assert model.reconstruct(clip, mask=mask).loss == pytest.approx(loss, rel=1e-6)


def test_the_decode_rule_draws_after_the_mask_rule() -> None:
    grid, rng = Grid(4, 4, 4), generator(2)
    hidden = Tube(ratio=0.5)(grid, rng)
    decoded = RunningCell()(grid, hidden, rng)
    drawn = draw_mask(MaskRules(Tube(ratio=0.5), RunningCell()), grid, generator(2))
    assert np.array_equal(drawn.hidden[0], hidden)
    assert np.array_equal(drawn.decoded[0], decoded)
    assert np.array_equal(drawn.scored[0], hidden & decoded)
    stacked = drawn.stacked()
    assert torch.equal(Mask.unstacked(stacked).stacked(), stacked)


def test_masks_are_drawn_in_one_place() -> None:
    """A copy forgot `loss_on` once."""
    source = Path(tubelet.__file__).parent
    calls = re.compile(r"\.mask\(|\.decode\(\w*grid")
    assert [path.name for path in source.rglob("*.py") if calls.search(path.read_text())] == ["draw.py"]
