"""Masks become index form without losing or adding a token."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tubelet.types import Batch, Clips, ClipShape, Cube, Grid, Mask, Split


@given(seed=st.integers(0, 2**16), t=st.integers(1, 4), h=st.integers(1, 4), w=st.integers(2, 5))
@settings(max_examples=30, deadline=None)
def test_split_keeps_every_token_in_raster_order(seed: int, t: int, h: int, w: int) -> None:
    rng = np.random.default_rng(seed)
    tokens = t * h * w
    seen_count = int(rng.integers(1, tokens))
    rows = [rng.permutation(np.arange(tokens) >= seen_count) for _ in range(3)]
    hidden = torch.from_numpy(np.stack(rows)).reshape(3, t, h, w)
    decoded = torch.from_numpy(rng.random((3, t, h, w)) < 0.5)
    decoded[:, 0, 0, 0] = True
    mask = Mask(hidden, decoded)
    split = mask.split()
    for row in range(3):
        assert split.seen[row].tolist() == torch.nonzero(~hidden[row].flatten()).flatten().tolist()
        wanted = torch.nonzero(decoded[row].flatten()).flatten()
        assert split.wanted[row, : len(wanted)].tolist() == wanted.tolist()
        scored = mask.scored[row].flatten()
        assert split.weight[row].sum() == scored.sum()
        assert split.weight[row, : len(wanted)].bool().tolist() == scored[wanted].tolist()


def test_unequal_seen_counts_leave_seen_empty_and_pad_what_is_wanted() -> None:
    hidden = torch.tensor([[True, False, False], [True, False, True]]).reshape(2, 1, 1, 3)
    split = Mask(hidden, hidden).split()
    assert split.seen.shape == (2, 0)
    assert split.wanted[:, 0].tolist() == [0, 0]
    assert split.wanted[1].tolist() == [0, 2]
    assert split.weight.tolist() == [[1.0, 0.0], [1.0, 1.0]]
    assert split.hidden is not None
    assert split.hidden.equal(hidden)


def test_a_part_of_a_split_has_the_same_rows_of_all_its_tensors() -> None:
    hidden = torch.tensor([[True, False], [False, True]]).reshape(2, 1, 1, 2)
    split = Mask(hidden, hidden).split()
    part = split.part(slice(1, 2)).to(torch.device("cpu"))
    assert [value.tolist() for value in part.tensors()] == [value[1:].tolist() for value in split.tensors()]
    assert len(part.tensors()) == 4
    bare = Split(split.seen, split.wanted, split.weight)
    assert bare.part(slice(0, 1)).hidden is None


def test_a_size_that_the_patch_does_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match=r"clip.size 30 is not a multiple of the patch 16"):
        ClipShape(frames=16, size=30).grid(Cube(2, 16, 16))
    with pytest.raises(ValueError, match=r"clip.frames 15"):
        ClipShape(frames=15, size=32).grid(Cube(2, 16, 16))
    assert ClipShape(frames=16, size=224).grid(Cube(2, 16, 16)) == Grid(8, 14, 14)
    assert Grid(8, 14, 14).tokens == 1568


def test_clips_are_bytes() -> None:
    with pytest.raises((ValueError, TypeError), match=r"uint8|UInt8"):  # the signature's check speaks first in tests
        Clips(torch.zeros(1, 3, 2, 4, 4), torch.zeros(1, dtype=torch.int64))


def test_a_part_of_a_batch_takes_the_same_rows_of_all_that_a_stream_has() -> None:
    video = torch.arange(4, dtype=torch.uint8).reshape(4, 1, 1, 1, 1)
    batch = Batch({"video": Clips(video, torch.arange(4))}, labels=torch.tensor([5, 6, 7, 8]))
    part = batch.part({"video": slice(1, 3)})
    assert part.sizes == {"video": 2}
    assert part.clips["video"].video.flatten().tolist() == [1, 2]
    assert part.labels is not None
    assert part.labels.tolist() == [6, 7]
