"""What is promised of an encoder (`tubelet.models.base`) holds for each entry of `ENCODERS`."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tubelet.methods.autoencoder import MaskedAutoencoderSpec
from tubelet.methods.classifier import ClassifierSpec
from tubelet.models.base import Encoder, EncoderSpec
from tubelet.models.encoders import ENCODERS, blocks_of, encoder_for
from tubelet.train.optim import parameter_groups
from tubelet.types import ClipShape, Grid

CLIP = ClipShape(frames=4, size=32)


@pytest.fixture(params=ENCODERS)
def spec(request: pytest.FixtureRequest) -> EncoderSpec:
    return ENCODERS[request.param].tiny()


def built(spec: EncoderSpec, clip: ClipShape = CLIP, *, final_norm: bool = True, masked: bool = True) -> Encoder:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return spec.build(clip, final_norm=final_norm, masked=masked)


def video(clip: ClipShape = CLIP) -> Tensor:
    fixed = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (2, 3, clip.frames, clip.size, clip.size), dtype=torch.uint8, generator=fixed)


def hidden(grid: Grid) -> Tensor:
    """The first half of the tokens of each clip."""
    first = torch.arange(grid.tokens) < grid.tokens // 2
    return first.view(grid.t, grid.h, grid.w).expand(2, -1, -1, -1)


def test_a_recipe_reads_back_what_it_wrote(spec: EncoderSpec) -> None:
    model = ClassifierSpec(encoder=spec)
    assert ENCODERS[spec.kind] is type(spec)
    assert ClassifierSpec.model_validate_json(model.model_dump_json()) == model
    assert ClassifierSpec.model_validate({"encoder": spec.kind}).encoder == type(spec).model_validate({})
    assert {"width", "depth", "heads"} <= spec.facts().keys()


def test_it_has_the_grids_and_widths_that_its_spec_says(spec: EncoderSpec) -> None:
    encoder = built(spec)
    assert (encoder.grid, encoder.out_grid) == spec.grids(CLIP)
    assert encoder.out_grid == CLIP.grid(spec.cube)
    assert (encoder.out_width, encoder.out_heads) == (spec.out_width, spec.out_heads)
    assert spec.out_width % spec.out_heads == 0
    assert (encoder.spec, encoder.clip) == (spec, CLIP)
    assert encoder(video()).shape == (2, encoder.out_grid.tokens, spec.out_width)


def test_every_parameter_learns(spec: EncoderSpec) -> None:
    encoder = built(spec)
    for value in encoder.parameters():
        value.data += 0.05 * torch.randn_like(value)  # a branch may start with zeros
    encoder(video(), hidden=hidden(encoder.out_grid)).square().sum().backward()
    without = [name for name, value in encoder.named_parameters() if value.grad is None or not value.grad.any()]
    assert without == []


def test_nothing_is_seen_of_a_clip_that_is_hidden_whole(spec: EncoderSpec) -> None:
    encoder = built(spec).eval()
    everything = torch.ones_like(hidden(encoder.out_grid))
    dark = torch.zeros_like(video())
    assert torch.equal(encoder(video(), hidden=everything), encoder(dark, hidden=everything))
    assert not torch.equal(encoder(video()), encoder(dark))


def test_dropped_tokens_are_not_seen(spec: EncoderSpec) -> None:
    if not spec.can_drop:
        with pytest.raises(ValueError, match="drops hidden tokens"):
            MaskedAutoencoderSpec(encoder=spec)
        return
    encoder = built(spec, masked=False).eval()
    seen = torch.arange(encoder.out_grid.tokens).expand(2, -1)
    torch.testing.assert_close(encoder(video(), seen), encoder(video()))
    last = seen[:, encoder.out_grid.tokens // 2 :]
    assert encoder(video(), last).shape == (2, last.shape[1], spec.out_width)
    changed = video()
    changed[:, :, : CLIP.frames // 2] = 0
    assert torch.equal(encoder(changed, last), encoder(video(), last))


def test_a_class_token_is_there_where_the_spec_says_so(spec: EncoderSpec) -> None:
    encoder = built(spec, masked=False).eval()
    tokens, read = encoder.tokens_and_class(video())
    assert torch.equal(tokens, encoder(video()))
    assert (read is not None) == spec.has_class_token
    assert read is None or read.shape == (2, spec.out_width)
    if not spec.has_class_token:
        with pytest.raises(ValueError, match="needs an encoder with a class token"):
            ClassifierSpec(encoder=spec, pooling="class")
        return
    classifier = ClassifierSpec(encoder=spec, pooling="class").build(CLIP, 3)
    assert classifier(video()).shape == (2, 3)


def test_every_parameter_has_a_layer_and_blocks_rise(spec: EncoderSpec) -> None:
    encoder = built(spec)
    layers = {name: encoder.layer_of(name) for name, _ in encoder.named_parameters()}
    names = {id(value): name for name, value in encoder.named_parameters()}
    by_block = [{layers[names[id(value)]] for value in block.parameters()} for block in encoder.stack()]
    assert all(len(found) == 1 for found in by_block)
    numbers = [number for found in by_block for number in found]
    assert len(numbers) == spec.depth
    assert numbers == sorted(set(numbers))
    assert (numbers[0], numbers[-1]) == (1, encoder.layers - 1)
    assert {*layers.values(), encoder.layers} == set(range(encoder.layers + 1))
    assert encoder.not_decayed() <= layers.keys()
    assert blocks_of(torch.nn.Sequential(encoder)) == list(encoder.stack())


def test_layer_decay_gives_each_block_its_own_rate(spec: EncoderSpec) -> None:
    classifier = ClassifierSpec(encoder=spec).build(CLIP, 3)
    groups = parameter_groups(classifier, weight_decay=0.1, layer_decay=0.5, encoder=classifier.encoder)
    scales = {name: group.lr_scale for group in groups for name in group.names}
    assert scales["head.weight"] == 1.0
    assert sorted(set(scales.values())) == [0.5**power for power in range(classifier.encoder.layers, -1, -1)]
    assert len(scales) == len(list(classifier.parameters()))
    spared = {f"encoder.{name}" for name in classifier.encoder.not_decayed()}
    assert not spared & {name for group in groups if group.weight_decay for name in group.names}


def test_names_of_tensors_tell_which_parts_there_are(spec: EncoderSpec) -> None:
    for final_norm in (True, False):
        for masked in (True, False):
            encoder = built(spec, final_norm=final_norm, masked=masked)
            found = encoder_for(spec, CLIP, encoder.state_dict())
            found.load_state_dict(encoder.state_dict(), strict=True)
            assert isinstance(found.norm, torch.nn.Identity) != final_norm


@pytest.mark.parametrize("after", [ClipShape(frames=8, size=32), ClipShape(frames=4, size=64)])
def test_weights_fit_clips_of_a_different_size(spec: EncoderSpec, after: ClipShape) -> None:
    before = built(spec)
    state = before.state_dict()
    kept = {name: tensor.clone() for name, tensor in state.items()}
    stretched, bare, note = spec.stretched(state, CLIP, after)
    larger: Any = encoder_for(stretched, after, bare)
    larger.load_state_dict(bare, strict=True)
    assert larger(video(after)).isfinite().all()
    is_changed = stretched != spec or any(bare[name].shape != tensor.shape for name, tensor in kept.items())
    assert ("interpolated to" in note) == is_changed
    assert state.keys() == kept.keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in kept.items())
    same = spec.stretched(state, CLIP, CLIP)
    assert (same.spec, same.note) == (spec, "")


def test_a_clip_that_does_not_fit_is_refused(spec: EncoderSpec) -> None:
    with pytest.raises(ValueError, match=r"clip\.size 30"):
        spec.grids(ClipShape(frames=4, size=30))
    with pytest.raises(ValueError, match=r"the model takes clips of \[T,H,W\] \(4, 32, 32\), got"):
        built(spec)(video(ClipShape(frames=4, size=64)))
