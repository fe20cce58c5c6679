"""A rename is pure and strict: every name is known, every promise is kept."""

import pytest
import torch

from tubelet.methods.autoencoder import MaskedAutoencoderSpec
from tubelet.methods.classifier import ClassifierSpec
from tubelet.models.decoder import DecoderSpec
from tubelet.models.vit import ViTSpec
from tubelet.targets.pixels import NormalisedPixels
from tubelet.types import ClipShape
from tubelet.weights.tensors.rename import from_official, rename, to_official
from tubelet.weights.videomae.names import CONVERTERS, FINETUNED, PRETRAINED, kind_of_official

CLIP = ClipShape(frames=4, size=16)


def test_rules_are_tried_in_order_on_the_whole_name() -> None:
    state = {"a.1.w": torch.ones(1), "b": torch.zeros(2)}
    renamed = rename(state, [(r"a\.(\d)\.w", r"x.\1.y"), ("b", "c")])
    assert list(renamed) == ["x.1.y", "c"]
    assert renamed["c"] is state["b"]


def test_an_unknown_name_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"file: no rule knows bb \(1 of 2 tensors\)"):
        rename({"b": torch.ones(1), "bb": torch.ones(1)}, [("b", "c")], source="file")


def test_what_is_dropped_must_occur() -> None:
    state = {"a": torch.ones(1), "head.w": torch.ones(1)}
    assert list(rename(state, [("a", "b")], drop=[r"head\..*"])) == ["b"]
    with pytest.raises(ValueError, match="nothing to drop matches 'tail'"):
        rename(state, [(".*", "b")], drop=["tail"])


def test_two_tensors_never_become_one() -> None:
    with pytest.raises(ValueError, match="two tensors get the same name"):
        rename({"a": torch.ones(1), "b": torch.ones(1)}, [("a|b", "c")])


def test_every_tensor_of_our_models_goes_out_and_comes_back() -> None:
    encoder = ViTSpec(width=8, depth=2, heads=2, patch=8, layer_scale=0.1)
    positioned = ViTSpec(width=8, depth=2, heads=2, patch=8, learnable_positions=True)
    decoder = DecoderSpec(width=8, depth=2, heads=2, layer_scale=0.1)
    models = [
        (MaskedAutoencoderSpec(encoder=encoder, decoder=decoder).build(CLIP, NormalisedPixels()), PRETRAINED),
        (ClassifierSpec(encoder=encoder).build(CLIP, 3), FINETUNED),
        (ClassifierSpec(encoder=positioned, pooling="first").build(CLIP, 3), FINETUNED),
    ]
    for model, pairs in models:
        state = model.state_dict()
        theirs = to_official(state, pairs)
        assert CONVERTERS[str(kind_of_official(theirs))] is pairs
        back = from_official(theirs, pairs)
        assert back.keys() == state.keys()
        assert all(torch.equal(back[name], state[name]) for name in state)


def test_their_names_are_the_published_ones() -> None:
    spec = MaskedAutoencoderSpec(
        encoder=ViTSpec(width=8, depth=12, heads=2, patch=8), decoder=DecoderSpec(width=8, depth=4, heads=2)
    )
    theirs = to_official(spec.build(CLIP, NormalisedPixels()).state_dict(), PRETRAINED)
    assert len(theirs) == 218  # tensors of the released ViT-B file
    assert {"mask_token", "encoder_to_decoder.weight", "decoder.head.bias", "encoder.norm.weight"} <= theirs.keys()
    assert "encoder.blocks.11.attn.q_bias" in theirs
    assert kind_of_official({"x": torch.ones(1)}) is None
