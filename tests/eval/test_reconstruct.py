"""Reconstructions: seen cubes stay, colours of hidden ones come from seen ones, files open again."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, cast

import av
import numpy as np
import pytest
import torch
import typer
from PIL import Image
from safetensors.torch import save_file
from typer.testing import CliRunner

from tubelet.cli.reconstruct import reconstruct as command
from tubelet.eval.pictures import side_by_side, strip
from tubelet.eval.reconstruct import (
    AS_LINES,
    FROM_SEEN,
    FROM_TRUTH,
    Reconstruction,
    load_autoencoder,
    nearest_seen,
    reconstruct,
    reconstruct_clip,
)
from tubelet.masks import Tube
from tubelet.methods.autoencoder import MaskedAutoencoder, MaskedAutoencoderSpec
from tubelet.methods.classifier import ClassifierSpec
from tubelet.models.decoder import DecoderSpec
from tubelet.models.vit import ViTSpec
from tubelet.recipe import FinetuneRecipe, PretrainRecipe, write_recipe
from tubelet.spec import Spec
from tubelet.targets.hog import Hog
from tubelet.targets.kinds import Target
from tubelet.targets.pixels import NormalisedPixels, Pixels
from tubelet.types import ClipShape, Cube, Grid, Mask, Split

CLIP = ClipShape(frames=4, size=16)
SPEC = MaskedAutoencoderSpec(
    encoder=ViTSpec(width=24, depth=1, heads=2, patch=4), decoder=DecoderSpec(width=12, depth=1, heads=2)
)


def write_video(path: Path, *, frames: int = 20, size: int = 32) -> Path:
    rows, columns = np.mgrid[0:size, 0:size]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width = stream.height = size
        stream.pix_fmt = "yuv420p"
        for i in range(frames):
            picture = np.stack([rows * 7 + i, columns * 7, np.full_like(rows, 9 * i)], -1).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def write_run(out: Path) -> Path:
    recipe = PretrainRecipe(name="tiny", clip=CLIP, model=SPEC, mask=Tube(ratio=0.75))
    (out / "model").mkdir(parents=True)
    write_recipe(recipe, out / "model" / "recipe.yaml")
    method = SPEC.build(CLIP, recipe.target)
    save_file(method.state_dict(), out / "model" / "model.safetensors")
    return out


class Unknown(Spec):
    """A target that there is no picture for."""

    kind: Literal["unknown"] = "unknown"

    def rows(self, video: torch.Tensor, wanted: torch.Tensor, cube: Cube) -> torch.Tensor:
        return Pixels().rows(video, wanted, cube)

    def loss(self, prediction: torch.Tensor, target: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return (target.mean() - prediction.mean()).square() * weight.mean()


def tube_mask() -> Mask:
    hidden = torch.from_numpy(Tube(ratio=0.75)(Grid(2, 4, 4), np.random.default_rng(0)))[None]
    return Mask(hidden, hidden)


@pytest.fixture
def clip() -> torch.Tensor:
    return torch.randint(0, 256, (1, 3, 4, 16, 16), dtype=torch.uint8)


def method_of(target: Target) -> MaskedAutoencoder:
    return SPEC.build(CLIP, target).eval()


def pixels_hidden(mask: Mask) -> np.ndarray:
    """[T,H,W] bool: which pixels lie in hidden cubes."""
    hidden = mask.hidden[0].numpy()
    return hidden.repeat(2, 0).repeat(4, 1).repeat(4, 2)


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


def test_pictures_of_hog_have_a_row_for_the_truth(clip: torch.Tensor) -> None:
    found = reconstruct_clip(method_of(Hog(cell=4)), clip, tube_mask())
    assert strip(found, frames=3).shape == (20 + 4 * (128 + 4) + 20, 104 + 3 * (128 + 4), 3)
    assert side_by_side(found)[0].shape[1] == 4 * (128 + 4)


def test_a_target_that_cannot_be_drawn_is_refused(clip: torch.Tensor) -> None:
    method = method_of(Hog(cell=4))
    method.target = cast(Target, Unknown())
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


def test_pictures_have_three_rows_and_even_moving_frames(clip: torch.Tensor) -> None:
    found = reconstruct_clip(method_of(NormalisedPixels()), clip, tube_mask())
    still = strip(found, frames=3)
    assert still.shape == (20 + 3 * 116 + 20, 104 + 3 * 116, 3)
    moving = side_by_side(found)
    assert len(moving) == 4
    assert all(side % 2 == 0 for side in moving[0].shape[:2])


def test_command_writes_strip_video_and_gif(tmp_path: Path) -> None:
    run, video = write_run(tmp_path / "run"), write_video(tmp_path / "clip.mp4")
    names = {"-o": "out/strip.png", "--mp4": "side.mp4", "--gif": "side.gif"}
    options = [part for option, name in names.items() for part in (option, str(tmp_path / name))]
    app = typer.Typer()
    app.command()(command)
    done = CliRunner().invoke(app, [str(video), "--from", str(run), *options, "mask.ratio=0.5"])
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
    pictures: list[Reconstruction] = [reconstruct(video, saved, seed=seed) for seed in (1, 1, 2)]
    assert np.array_equal(pictures[0].reconstructed, pictures[1].reconstructed)
    assert not np.array_equal(pictures[0].masked, pictures[2].masked)


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
    app = typer.Typer()
    app.command()(command)
    done = CliRunner().invoke(app, ["none.mp4", "--from", "none", *options])
    assert isinstance(done.exception, ValueError)
    assert str(done.exception) == message


def test_clear_errors(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    saved = load_autoencoder(run)
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    with pytest.raises(ValueError, match=r"broken\.mp4"):
        reconstruct(broken, saved)
    with pytest.raises(ValueError, match="no such file or folder"):
        load_autoencoder(tmp_path / "none")
    (run / "model" / "recipe.yaml").unlink()
    with pytest.raises(ValueError, match="the number of heads is not in the file"):
        load_autoencoder(run)
    classifier = ClassifierSpec(encoder=SPEC.encoder)
    write_recipe(FinetuneRecipe(name="tiny", clip=CLIP, model=classifier), run / "model" / "recipe.yaml")
    with pytest.raises(ValueError, match="no decoder"):
        load_autoencoder(run)
