"""HOG targets: by the formula, in numpy and loops; what turns them and what does not; what is refused."""

import math
from typing import Literal

import numpy as np
import pytest
import torch

from tubelet.methods.autoencoder import MaskedAutoencoderSpec
from tubelet.models.decoder import DecoderSpec
from tubelet.models.vit import ViTSpec
from tubelet.recipe import PretrainRecipe, override
from tubelet.targets import hog
from tubelet.targets.hog import Hog
from tubelet.types import ClipShape, Cube, Grid

CUBE = Cube(2, 8, 8)
ALL = torch.arange(8).expand(1, -1)
GRID = Grid(2, 2, 2)
OPTIONS = [
    Hog(),
    Hog(cell=4),
    Hog(cell=2, bins=12),
    Hog(bins=6, colours="grey"),
    Hog(cell=4, window=8),
    Hog(cell=4, window=4, norm="none"),
    Hog(norm="none"),
    Hog(cell=4, norm="block2"),
    Hog(cell=2, norm="block2_clipped"),
    Hog(frames="centre"),
    Hog(cell=4, frames="all"),
]


def noise(size: int = 16, frames: int = 4) -> torch.Tensor:
    chance = torch.Generator().manual_seed(0)  # always the same: a gradient near an edge of bins may go either way
    return torch.randint(0, 256, (1, 3, frames, size, size), dtype=torch.uint8, generator=chance)


def votes_by_hand(plane: np.ndarray, spec: Hog) -> np.ndarray:
    """[H,W] to [bins, y, x], pixel by pixel in float64."""
    height, width = plane.shape
    padded = np.pad(plane.astype(np.float64), 1, mode="reflect")
    found = np.zeros((spec.bins, height // spec.cell, width // spec.cell))
    smooth = np.array([1, 2, 1])
    for row in range(height):
        for column in range(width):
            part = padded[row : row + 3, column : column + 3]
            across, down = float((part[:, 0] - part[:, 2]) @ smooth), float((part[0] - part[2]) @ smooth)
            angle = math.atan2(across, down) / math.pi * spec.bins
            vote = math.hypot(across, down)
            if spec.window is not None:
                vote *= bell(row % spec.window, spec.window) * bell(column % spec.window, spec.window)
            found[math.floor(angle) % spec.bins, row // spec.cell, column // spec.cell] += vote
    return found


def bell(place: int, window: int) -> float:
    values = [math.exp(-0.5 * ((i - (window - 1) / 2) / (window // 2)) ** 2) for i in range(window)]
    return values[place] / (sum(values) / window)


def unit(values: np.ndarray) -> np.ndarray:
    return values / max(float(np.sqrt((values**2).sum())), 1e-12)


def normalised_by_hand(votes: np.ndarray, spec: Hog) -> np.ndarray:
    if spec.norm == "none":
        return votes / spec.cell**2 / 255 / 0.225
    side = 1 if spec.norm == "cell" else 2
    out = np.zeros_like(votes)
    for y in range(0, votes.shape[1], side):
        for x in range(0, votes.shape[2], side):
            block = unit(votes[:, y : y + side, x : x + side])
            if spec.norm == "block2_clipped":
                block = unit(np.minimum(block, 0.2))
            out[:, y : y + side, x : x + side] = block
    return out


def rows_by_hand(video: torch.Tensor, spec: Hog) -> np.ndarray:
    """Rows of all tokens of one clip [C,T,H,W]."""
    pixels = video.numpy().astype(np.float64)
    if spec.colours == "grey":
        pixels = np.tensordot([0.299, 0.587, 0.114], pixels, 1)[None]
    tokens = []
    picked = {"first": [0], "centre": [1], "all": [0, 1]}[spec.frames]
    side = 8 // spec.cell
    for step in range(pixels.shape[1] // 2):
        maps = [
            [normalised_by_hand(votes_by_hand(plane[2 * step + frame], spec), spec) for plane in pixels]
            for frame in picked
        ]
        for y in range(pixels.shape[2] // 8):
            for x in range(pixels.shape[3] // 8):
                cells = np.array(maps)[..., y * side : (y + 1) * side, x * side : (x + 1) * side]
                tokens.append(cells.flatten())  # frame, colour, bin, cell row, cell column
    return np.array(tokens)


@pytest.mark.parametrize("spec", OPTIONS, ids=str)
def test_rows_are_the_formula(spec: Hog) -> None:
    video = noise()
    rows = spec.rows(video, ALL, CUBE)
    assert rows.shape == (1, 8, spec.width(CUBE))
    torch.testing.assert_close(rows[0].double(), torch.from_numpy(rows_by_hand(video[0], spec)), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("bins", [4, 6, 8, 9, 12, 18])
def test_gradients_along_the_axes_and_diagonals_are_where_their_angle_is(bins: int) -> None:
    """Whole fractions of a turn lie on the edges of bins, where rounding could move them."""
    for across, down, turns in [(0, 1, 0.0), (1, 1, 0.25), (1, 0, 0.5), (-1, 0, 0.5), (1, -1, 0.75), (0, -1, 0.0)]:
        picture = 128 + 3 * (across * torch.arange(24) + down * torch.arange(24)[:, None])
        video = picture.to(torch.uint8).expand(1, 3, 1, 24, 24)
        rows = Hog(bins=bins).rows(video, torch.tensor([[4]]), Cube(1, 8, 8)).view(3, bins)
        assert torch.equal(rows.argmax(1), torch.full((3,), int(turns * bins)))
        assert rows.max() == 1.0


def test_turning_the_picture_by_90_degrees_moves_the_bins_by_half() -> None:
    video, spec = noise(), Hog(bins=8, cell=4)
    maps = spec.maps(spec.rows(video, ALL, CUBE), GRID, CUBE)
    turned = spec.maps(spec.rows(video.rot90(1, (3, 4)), ALL, CUBE), GRID, CUBE)
    torch.testing.assert_close(turned, maps.roll(4, 3).rot90(1, (4, 5)), atol=1e-6, rtol=1e-6)


def test_a_ramp_that_is_turned_by_90_degrees_goes_from_bin_0_to_bin_4() -> None:
    down = (torch.arange(24) * 5).to(torch.uint8)[:, None].expand(1, 3, 1, 24, 24)
    middle = torch.tensor([[4]])
    found = [Hog().rows(video, middle, Cube(1, 8, 8)).view(3, 9) for video in (down, down.mT)]
    assert [int(part.argmax(1).unique()) for part in found] == [0, 4]


@pytest.mark.parametrize("spec", OPTIONS, ids=str)
@pytest.mark.parametrize("value", [0, 31, 255])
def test_one_colour_gives_zeros(spec: Hog, value: int) -> None:
    video = torch.full((1, 3, 4, 16, 16), value, dtype=torch.uint8)
    assert not spec.rows(video, ALL, CUBE).any()
    assert not spec.rows(video.float() * 0.123, ALL, CUBE).any()


@pytest.mark.parametrize("spec", [spec for spec in OPTIONS if spec.colours == "rgb"], ids=str)
def test_brightness_changes_nothing(spec: Hog) -> None:
    video = noise() // 2
    assert torch.equal(spec.rows(video + 100, ALL, CUBE), spec.rows(video, ALL, CUBE))


@pytest.mark.parametrize("spec", OPTIONS, ids=str)
def test_contrast_changes_nothing_but_where_there_is_no_norm(spec: Hog) -> None:
    video = noise() // 4
    factor = 3.0 if spec.norm == "none" else 1.0
    expected = factor * spec.rows(video, ALL, CUBE)
    torch.testing.assert_close(spec.rows(video * 3, ALL, CUBE), expected, atol=1e-6, rtol=1e-5)


def test_gradients_are_those_of_the_whole_frame() -> None:
    """Pixels next to a token count, those one further do not."""
    video, token = noise(), torch.tensor([[0]])
    before = Hog().rows(video, token, CUBE)
    for column, counts in [(8, True), (9, False)]:
        changed = video.clone()
        changed[0, :, 0, 4, column] ^= 128
        assert torch.equal(Hog().rows(changed, token, CUBE), before) != counts


def test_only_the_frames_of_the_spec_count() -> None:
    video = noise()
    second = video.clone()
    second[:, :, 1::2] = second[:, :, 1::2].flip(3)
    kept: dict[str, bool] = {}
    every: tuple[Literal["first", "centre", "all"], ...] = ("first", "centre", "all")
    for frames in every:
        spec = Hog(frames=frames)
        kept[frames] = torch.equal(spec.rows(second, ALL, CUBE), spec.rows(video, ALL, CUBE))
    assert kept == {"first": True, "centre": False, "all": False}


def test_taking_tokens_in_turns_changes_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    video, spec = noise(), Hog(cell=4, window=8)
    whole = spec.rows(video, ALL, CUBE)
    assert torch.equal(whole, spec.rows(video, ALL, CUBE))
    monkeypatch.setattr(hog, "CACHED_PIXELS", 3 * 64 * 3)  # three tokens at once
    assert torch.equal(spec.rows(video, ALL, CUBE), whole)
    assert spec.rows(video, ALL[:, :0], CUBE).shape == (1, 0, spec.width(CUBE))


def test_maps_put_cells_where_they_are_in_the_frame() -> None:
    spec, cube = Hog(cell=4, frames="all"), Cube(2, 8, 8)
    video = torch.zeros(1, 3, 4, 16, 16, dtype=torch.uint8)
    video[:, 1, 3, 9:11, 5:7] = 200  # green, last frame, third row of cells and second column
    maps = spec.maps(spec.rows(video, ALL, cube), GRID, cube)
    assert maps.shape == (1, 4, 3, 9, 4, 4)
    frame, colour, _, row, column = maps[0].nonzero().unbind(1)
    assert (set(frame.tolist()), set(colour.tolist())) == ({3}, {1})
    assert set(zip(row.tolist(), column.tolist(), strict=True)) == {(2, 1)}


# Against skimage


@pytest.mark.parametrize(
    ("norm", "cells", "theirs"), [("cell", 1, "L2"), ("block2", 2, "L2"), ("block2_clipped", 2, "L2-Hys")]
)
def test_hog_of_skimage_where_the_definitions_coincide(norm: hog.Norm, cells: int, theirs: str) -> None:
    """skimage takes central differences and angles from the other axis, and its blocks overlap.

    On a sum of rows and columns, Sobel gradients are 4 central differences, at the rim too.
    """
    from skimage.feature import hog as of_skimage

    size, cube, spec = 32, Cube(1, 16, 16), Hog(cell=4, norm=norm)
    picture = torch.randint(0, 128, (size, 1)) + torch.randint(0, 128, (1, size))
    rows = spec.rows(picture.byte().expand(1, 3, 1, size, size), torch.arange(4).unsqueeze(0), cube)
    ours = spec.maps(rows, Grid(1, 2, 2), cube)[0, 0, 0]  # of one colour [bins,y,x]
    blocks = of_skimage(
        picture.T.double().numpy(), orientations=9, pixels_per_cell=(4, 4), cells_per_block=(cells, cells),
        block_norm=theirs, feature_vector=False,
    )[::cells, ::cells]  # fmt: skip  # x, y, cells across, cells down, bins
    expected = torch.from_numpy(blocks).permute(4, 1, 3, 0, 2).flatten(3).flatten(1, 2)
    torch.testing.assert_close(ours.double(), expected, atol=1e-5, rtol=1e-5)


# As a part of a run


def test_a_masked_autoencoder_takes_it_by_one_override() -> None:
    recipe = override(PretrainRecipe(name="a"), ["target=hog", "target.bins=6"])
    assert recipe.target == Hog(bins=6)
    encoder = ViTSpec(width=24, depth=1, heads=2, patch=16)
    spec = MaskedAutoencoderSpec(encoder=encoder, decoder=DecoderSpec(width=12, depth=1, heads=2))
    method = spec.build(ClipShape(frames=4, size=32), recipe.target)
    assert method.decoder.head.out_features == 3 * 6 * 4


@pytest.mark.parametrize(
    ("spec", "patch", "message"),
    [
        (Hog(), 14, "target hog: cell 8 does not divide the patch 14; cells that do: 2, 7, 14"),
        (Hog(cell=3), 8, "target hog: cell 3 does not divide the patch 8; cells that do: 2, 4, 8"),
        (Hog(norm="block2"), 8, "target hog: norm block2 takes 2 x 2 cells, and a patch of 8 has 1 x 1"),
        (Hog(window=5), 16, "target hog: window 5 does not divide the patch 16"),
    ],
)  # fmt: skip
def test_what_does_not_fit_the_patch_is_refused_when_the_model_is_built(spec: Hog, patch: int, message: str) -> None:
    encoder = ViTSpec(width=24, depth=1, heads=2, patch=patch)
    with pytest.raises(ValueError, match="target hog") as refused:
        MaskedAutoencoderSpec(encoder=encoder).build(ClipShape(frames=2, size=112), spec)
    assert str(refused.value) == message


def test_videos_without_colours() -> None:
    video = noise()[:, :1]
    with pytest.raises(ValueError, match=r"colours=rgb takes 3 channels, the video has 1; set target\.colours=grey"):
        Hog().rows(video, ALL, CUBE)
    spec = Hog(colours="grey")
    torch.testing.assert_close(
        spec.rows(video, ALL, CUBE), spec.rows(video.expand(-1, 3, -1, -1, -1), ALL, CUBE), atol=1e-5, rtol=0
    )
    halves = video.expand(-1, 3, -1, -1, -1).bfloat16()  # luma is float32 all the same
    assert torch.equal(spec.rows(halves, ALL, CUBE), spec.rows(halves.float(), ALL, CUBE))
    with pytest.raises(ValueError, match="colours=grey takes 1 or 3 channels, the video has 2"):
        spec.rows(noise()[:, :2], ALL, CUBE)
