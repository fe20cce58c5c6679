"""The whole way from frames to a clip."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tubelet.rng import generator
from tubelet.spec import replace
from tubelet.video.augment.augment import (
    Augment,
    CentreCrop,
    ColourJitter,
    RandAugment,
    RandomErasing,
    RandomResizedCrop,
)

FULL = Augment(
    crop=RandomResizedCrop(),
    flip=0.5,
    colour=ColourJitter(hue=0.1),
    randaugment=RandAugment(),
    erase=RandomErasing(probability=1.0),
)


def frames() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (4, 40, 56, 3), dtype=np.uint8)


@pytest.mark.parametrize("augment", [Augment(), Augment(crop=CentreCrop()), FULL], ids=["crop", "centre", "full"])
def test_clip_is_contiguous_bytes_and_follows_from_the_generator(augment: Augment) -> None:
    before = frames()
    clip = augment(before, 32, generator(1, 2))
    assert clip.shape == (3, 4, 32, 32)
    assert clip.dtype == torch.uint8
    assert clip.is_contiguous()
    assert torch.equal(clip, augment(frames(), 32, generator(1, 2)))
    assert (before == frames()).all()


def test_read_only_frames_are_fine() -> None:
    locked = frames()
    locked.setflags(write=False)
    assert torch.equal(FULL(locked, 32, generator(0)), FULL(frames(), 32, generator(0)))


def test_flip_mirrors_the_whole_clip() -> None:
    plain = Augment(crop=CentreCrop())
    there, mirrored = plain(frames(), 32, generator(0)), replace(plain, flip=1.0)(frames(), 32, generator(0))
    assert torch.equal(mirrored, there.flip(-1))
    share = sum(torch.equal(replace(plain, flip=0.3)(frames(), 32, generator(draw)), mirrored) for draw in range(200))
    assert 40 <= share <= 80


def test_erasing_hits_one_box_in_all_frames_with_noise_of_the_right_colour() -> None:
    clip = torch.zeros(6, 3, 64, 64, dtype=torch.uint8)
    out = RandomErasing(probability=1.0, area=(0.3, 0.33), ratio=(1.0, 1.0))(clip, generator(0))
    hit = (out > 0).any(1)
    rows, columns = hit.any(0).any(1).nonzero()[:, 0], hit.any(0).any(0).nonzero()[:, 0]
    box = out[..., rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    assert 0.28 < box.shape[-1] * box.shape[-2] / 64**2 < 0.35
    assert hit.sum() > 0.95 * 6 * box.shape[-1] * box.shape[-2]
    assert not torch.equal(box[0], box[1])
    torch.testing.assert_close(box.float().mean(dim=(0, 2, 3)), torch.tensor([123.7, 116.3, 103.5]), atol=4, rtol=0)
    torch.testing.assert_close(box.float().std(dim=(0, 2, 3)), torch.tensor([58.0, 57.0, 56.0]), atol=4, rtol=0)
    assert (clip == 0).all()


def test_erasing_has_its_probability() -> None:
    clip = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    hits = sum(bool((RandomErasing()(clip, generator(draw)) > 0).any()) for draw in range(400))
    assert 75 <= hits <= 125


def test_specs_read_back_from_plain_data() -> None:
    assert Augment.model_validate(FULL.model_dump(mode="json")) == FULL
    assert Augment.model_validate({"crop": "centre_crop"}).crop == CentreCrop()
    with pytest.raises(ValueError, match="greater"):
        RandAugment(magnitude=-1)
