"""Samplers stay inside the video for every length and cover what they claim (equality with the authors: parity)."""

from __future__ import annotations

import numpy as np
import pytest

from tubelet.rng import generator
from tubelet.video.sample import Sampler, Segments, Span, Strided, Uniform

SAMPLERS: list[Sampler] = [Strided(stride=1), Strided(stride=4), Span(stride=2), Span(stride=9), Segments(), Uniform()]


@pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
def test_indices_are_inside_the_video_and_in_order(sampler: Sampler) -> None:
    for total in [*range(1, 40), 64, 65, 300]:
        for frames in (1, 2, 8, 16):
            drawn = sampler.train(total, frames, generator(0, total, frames))
            assert drawn.shape == (frames,)
            for clips in (1, 2, 5):
                views = sampler.views(total, frames, clips)
                assert views.shape == (clips, frames)
                for indices in (drawn, *views):
                    assert indices.dtype == np.int64
                    assert 0 <= indices.min() <= indices.max() < total
                    assert (np.diff(indices) >= 0).all()


@pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
def test_same_draw_twice(sampler: Sampler) -> None:
    first, again, other = (sampler.train(200, 8, generator(0, 0, n)) for n in (1, 1, 2))
    assert first.tolist() == again.tolist()
    assert first.tolist() != other.tolist()


def test_one_test_clip_is_in_the_middle() -> None:
    for sampler in SAMPLERS:
        middle = sampler.views(301, 8, 1)[0].mean()
        assert abs(middle - 150) < 10, sampler


def test_strided_steps_by_its_stride() -> None:
    assert set(np.diff(Strided(stride=3).train(100, 8, generator(0)))) == {3}


def test_uniform_covers_the_whole_video() -> None:
    """Every frame of a video is drawn some time, the last one too, which `Segments` never reaches here."""
    draws = [Uniform().train(31, 16, generator(n)) for n in range(300)]
    assert {int(index) for indices in draws for index in indices} == set(range(31))
    assert max(Segments().train(31, 16, generator(n)).max() for n in range(300)) == 15
    assert Uniform().views(8, 16, 1)[0].tolist() == [n // 2 for n in range(16)]


def test_test_clips_of_uniform_interleave() -> None:
    assert Uniform().views(8, 4, 2).tolist() == [[0, 2, 4, 6], [1, 3, 5, 7]]
