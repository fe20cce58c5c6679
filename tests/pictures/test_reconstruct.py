"""Reconstructions: seen cubes stay, colours of hidden ones come from seen ones, files open again."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import av
import numpy as np
import pytest
import torch
from PIL import Image
from toy_reconstruct import CLIP, SPEC, invoke, method_of, pixels_hidden, tube_mask, write_run, write_video

from tubelet.methods.classifier import ClassifierSpec
from tubelet.pictures.reconstruct import (
    AS_LINES,
    FROM_SEEN,
    FROM_TRUTH,
    Reconstruction,
    load_autoencoder,
    nearest_seen,
    reconstruct,
    reconstruct_clip,
)
from tubelet.recipe import FinetuneRecipe, write_recipe
from tubelet.targets.base import OwnTarget
from tubelet.targets.hog import Hog, Norm
from tubelet.targets.pixels import FramePixels, NormalisedPixels, Pixels
from tubelet.targets.unions import TargetSpec
from tubelet.types import Cube, Grid, Split


class Unknown(OwnTarget):
    """A target that there is no picture for."""

    kind: Literal["unknown"] = "unknown"

    def rows(self, video: torch.Tensor, wanted: torch.Tensor, cube: Cube) -> torch.Tensor:
        return Pixels().rows(video, wanted, cube)

    def loss(self, prediction: torch.Tensor, target: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return (target.mean() - prediction.mean()).square() * weight.mean()


@pytest.fixture
def clip() -> torch.Tensor:
    return torch.randint(0, 256, (1, 3, 4, 16, 16), dtype=torch.uint8)


def test_seen_cubes_stay_as_they_are_and_hidden_ones_are_grey_when_masked(clip: torch.Tensor) -> None:
    mask = tube_mask()
    found = reconstruct_clip(method_of(NormalisedPixels()), clip, mask)
    hidden = pixels_hidden(mask)
    assert np.array_equal(found.original, clip[0].permute(1, 2, 3, 0).numpy())
    assert np.array_equal(found.masked[~hidden], found.original[~hidden])
    assert np.array_equal(found.reconstructed[~hidden], found.original[~hidden])
    assert set(np.unique(found.masked[hidden]).tolist()) == {128}
    assert found.hidden_ratio == 0.75


def test_a_perfect_prediction_with_true_statistics_gives_the_video_back(
    clip: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = method_of(NormalisedPixels())

    def perfect(video: torch.Tensor, split: Split) -> torch.Tensor:
        return method.target.rows(video, split.wanted, SPEC.encoder.cube)

    monkeypatch.setattr(method, "predict", perfect)
    found = reconstruct_clip(method, clip, tube_mask(), true_statistics=True)
    assert np.array_equal(found.reconstructed, found.original)
    assert found.loss == 0.0
    assert found.note == FROM_TRUTH


def test_plain_pixels_need_no_statistics(clip: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    method = method_of(Pixels())

    def perfect(video: torch.Tensor, split: Split) -> torch.Tensor:
        return method.target.rows(video, split.wanted, SPEC.encoder.cube)

    monkeypatch.setattr(method, "predict", perfect)
    found = reconstruct_clip(method, clip, tube_mask())
    assert np.array_equal(found.reconstructed, found.original)


def test_a_perfect_prediction_of_hog_is_the_truth_where_cubes_are_hidden(
    clip: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    method, mask = method_of(Hog(cell=4)), tube_mask()

    def perfect(video: torch.Tensor, split: Split) -> torch.Tensor:
        return method.target.rows(video, split.wanted, SPEC.encoder.cube)

    worse = reconstruct_clip(method, clip, mask)
    monkeypatch.setattr(method, "predict", perfect)
    found = reconstruct_clip(method, clip, mask)
    assert found.truth is not None
    assert found.truth.shape == found.original.shape == found.masked.shape == (4, 64, 64, 3)
    assert np.array_equal(found.reconstructed, found.truth)
    assert (found.loss, found.note) == (0.0, AS_LINES)
    hidden = pixels_hidden(mask).repeat(4, 1).repeat(4, 2)
    assert worse.truth is not None
    assert np.array_equal(worse.reconstructed[~hidden], worse.truth[~hidden])
    assert not np.array_equal(worse.reconstructed[hidden], worse.truth[hidden])
    assert found.truth[hidden].mean() > 2 * found.truth[~hidden].mean() > 0
    assert np.array_equal(found.truth[0::2], found.truth[1::2])  # the first frame of a tubelet stands for both
    assert found.truth[0].any()


@pytest.mark.parametrize("true_statistics", [False, True])
def test_pixels_of_a_frame_are_drawn_beside_that_frame(
    clip: torch.Tensor, monkeypatch: pytest.MonkeyPatch, *, true_statistics: bool
) -> None:
    method, mask = method_of(FramePixels()), tube_mask()

    def perfect(video: torch.Tensor, split: Split) -> torch.Tensor:
        return method.target.rows(video, split.wanted, SPEC.encoder.cube)

    monkeypatch.setattr(method, "predict", perfect)
    found = reconstruct_clip(method, clip, mask, true_statistics=true_statistics)
    hidden = pixels_hidden(mask)[0::2]
    first = list(found.predicted_frames)
    assert first == [0, 2]
    assert np.array_equal(found.reconstructed[first], found.reconstructed[[1, 3]])
    assert np.array_equal(found.reconstructed[first][~hidden], found.original[first][~hidden])
    assert np.array_equal(found.reconstructed[first], found.original[first]) == true_statistics
    assert (found.loss, found.note) == (0.0, FROM_TRUTH if true_statistics else FROM_SEEN)


@pytest.mark.parametrize("frames", ["first", "centre", "all"])
def test_histograms_are_those_of_the_numbered_frames(
    clip: torch.Tensor, frames: Literal["first", "centre", "all"]
) -> None:
    """Frames without histograms may change, those with them must not."""
    target = Hog(cell=4, frames=frames)
    numbers = target.numbers(4, SPEC.encoder.cube)
    before = reconstruct_clip(method_of(target), clip, tube_mask()).truth
    for number in range(4):
        changed = clip.clone()
        changed[:, :, number] = 255 - changed[:, :, number].flip(-1)
        after = reconstruct_clip(method_of(target), changed, tube_mask()).truth
        assert before is not None
        assert after is not None
        assert np.array_equal(before, after) == (number not in numbers)


@pytest.mark.parametrize("norm", ["cell", "block2", "block2_clipped", "none"])
@pytest.mark.parametrize("bins", [9, 36])
def test_a_histogram_is_as_bright_whatever_the_clip(
    norm: Norm, bins: int, clip: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flat clip is black, and a small prediction is not blown up beside it."""
    method, mask = method_of(Hog(cell=2, norm=norm, bins=bins)), tube_mask()

    def small(video: torch.Tensor, split: Split) -> torch.Tensor:
        return torch.full((1, split.wanted.shape[1], method.target.width(SPEC.encoder.cube)), 0.02)

    monkeypatch.setattr(method, "predict", small)
    hidden = pixels_hidden(mask).repeat(8, 1).repeat(8, 2)
    flat = reconstruct_clip(method, torch.full_like(clip, 77), mask)
    busy = reconstruct_clip(method, clip, mask)
    assert flat.truth is not None
    assert not flat.truth.any()
    assert 0 < flat.reconstructed.max() < 30
    assert np.array_equal(flat.reconstructed[hidden], busy.reconstructed[hidden])
    assert busy.truth is not None
    assert busy.truth.max() > 100


@pytest.mark.parametrize("target", [Hog(cell=4), Pixels()])
def test_true_statistics_of_a_target_without_any_are_refused(
    target: TargetSpec, clip: torch.Tensor, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="true_statistics gives colours to normalised pixels"):
        reconstruct_clip(method_of(target), clip, tube_mask(), true_statistics=True)
    run, video = write_run(tmp_path / "run", target), write_video(tmp_path / "clip.mp4")
    done = invoke(str(video), "--from", str(run), "-o", str(tmp_path / "strip.png"), "--true-statistics")
    assert str(done.exception) == (
        f"{run}: --true-statistics gives colours to normalised pixels, not to {target.kind}; leave it out"
    )
    assert not (tmp_path / "strip.png").exists()


def test_a_target_that_cannot_be_drawn_is_refused(clip: torch.Tensor) -> None:
    method = method_of(Hog(cell=4))
    method.target = Unknown()
    with pytest.raises(ValueError, match="draws pixels and hog, not the target unknown"):
        reconstruct_clip(method, clip, tube_mask())


def test_without_the_truth_hidden_pixels_do_not_matter(clip: torch.Tensor) -> None:
    mask, method = tube_mask(), method_of(NormalisedPixels())
    found = reconstruct_clip(method, clip, mask)
    hidden = torch.from_numpy(pixels_hidden(mask))
    changed = clip.clone()
    changed[:, :, hidden] = 255 - changed[:, :, hidden]
    assert np.array_equal(reconstruct_clip(method, changed, mask).reconstructed, found.reconstructed)
    assert found.note == FROM_SEEN


def test_nearest_seen_prefers_the_neighbour() -> None:
    split = Split(torch.tensor([[0, 15]]), torch.tensor([[1, 14]]), torch.ones(1, 2))
    rows, weight = nearest_seen(split, Grid(1, 4, 4))
    assert rows[:, 0].tolist() == [0, 1]
    assert (weight[:, 0] > 0.9).all()
    torch.testing.assert_close(weight.sum(1), torch.ones(2))


def test_command_writes_strip_video_and_gif(tmp_path: Path) -> None:
    run, video = write_run(tmp_path / "run"), write_video(tmp_path / "clip.mp4")
    names = {"-o": "out/strip.png", "--mp4": "side.mp4", "--gif": "side.gif"}
    options = [part for option, name in names.items() for part in (option, str(tmp_path / name))]
    done = invoke(str(video), "--from", str(run), *options, "mask.ratio=0.5")
    assert done.exit_code == 0, done.output
    assert "50% of the cubes hidden" in done.output
    with Image.open(tmp_path / "out/strip.png") as picture:
        assert picture.format == "PNG"
    with Image.open(tmp_path / "side.gif") as picture:
        assert getattr(picture, "n_frames", 1) == 4
    with av.open(str(tmp_path / "side.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 12


def test_same_seed_same_mask(tmp_path: Path) -> None:
    saved, video = load_autoencoder(write_run(tmp_path / "run")), write_video(tmp_path / "clip.mp4")
    found: list[Reconstruction] = [reconstruct(video, saved, seed=seed) for seed in (1, 1, 2)]
    assert np.array_equal(found[0].reconstructed, found[1].reconstructed)
    assert not np.array_equal(found[0].masked, found[2].masked)


def test_an_unfinished_run_shows_its_newest_checkpoint(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    (run / "checkpoints").mkdir()
    (run / "model").rename(run / "checkpoints" / "step-00000005")
    (run / "checkpoints" / "step-00000005" / "recipe.yaml").rename(run / "recipe.yaml")
    assert load_autoencoder(run).weights == run / "checkpoints" / "step-00000005" / "model.safetensors"


@pytest.mark.parametrize(
    ("options", "message"),
    [(["-o", "strip.jpg"], "strip.jpg: this output is a .png file"), ([], "none.mp4: no such video file")],
)
def test_the_command_refuses_before_it_loads(options: list[str], message: str) -> None:
    done = invoke("none.mp4", "--from", "none", *options)
    assert isinstance(done.exception, ValueError)
    assert str(done.exception) == message


def test_clear_errors(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    saved = load_autoencoder(run)
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    with pytest.raises(ValueError, match=r"broken\.mp4"):
        reconstruct(broken, saved)
    (tmp_path / "a.png").touch()
    with pytest.raises(ValueError, match=r"a\.png: an image, where videos are wanted"):
        reconstruct(tmp_path / "a.png", saved)
    with pytest.raises(ValueError, match="no such file or folder"):
        load_autoencoder(tmp_path / "none")
    (run / "model" / "recipe.yaml").unlink()
    with pytest.raises(ValueError, match="the number of heads is not in the file"):
        load_autoencoder(run)
    classifier = ClassifierSpec(encoder=SPEC.encoder)
    write_recipe(FinetuneRecipe(name="tiny", clip=CLIP, model=classifier), run / "model" / "recipe.yaml")
    with pytest.raises(ValueError, match="no decoder"):
        load_autoencoder(run)
