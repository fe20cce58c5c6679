"""The authors' files in all their wrappings: recognised by keys, renamed strictly, and what is left out is named."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from released import CLIP, ENCODER, autoencoder, classifier, theirs
from torch import Tensor

from tubelet.models.vit import ViTSpec
from tubelet.nn.position import sinusoid
from tubelet.weights.official import Official, from_file

FILE = Path("weights.pth")
TOKENS = CLIP.grid(ENCODER.cube).tokens
Rename = Callable[[str], str]
WRAPPINGS: dict[str, Rename] = {
    "none": lambda name: name,
    "module": lambda name: f"module.{name}",
    "compiled": lambda name: f"_orig_mod.{name}",
    "compiled within": lambda name: name.replace("blocks.", "_orig_mod.blocks."),
    "model": lambda name: f"model.{name}",
    "backbone": lambda name: f"backbone.{name}",
    "all": lambda name: f"module._orig_mod.model.backbone.{name}",
    "twice": lambda name: f"module.module.{name}",
}


def same(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> bool:
    return found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in wanted)


def wrapped(state: dict[str, Tensor], wrap: Rename) -> dict[str, Tensor]:
    return {wrap(name): tensor for name, tensor in state.items()}


def read(state: dict[str, Tensor]) -> Official:
    return from_file(state, FILE)


def mistake(state: dict[str, Tensor]) -> str:
    with pytest.raises(ValueError, match=r"weights\.pth") as error:
        read(state)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("wrap", WRAPPINGS.values(), ids=WRAPPINGS.keys())
def test_every_wrapping_of_every_kind_is_only_a_rename(wrap: Rename) -> None:
    cosine = ViTSpec(width=8, depth=2, heads=2, patch=8, cosine_attention=True, layer_scale=0.1)
    models = [autoencoder(), autoencoder(cosine), classifier(), classifier(cosine, pooling="first")]
    for model in models:
        found = read(wrapped(theirs(model), wrap))
        assert same(found.state, dict(model.state_dict()))
        assert found.dropped == found.notes == ()


@pytest.mark.parametrize("wrap", WRAPPINGS.values(), ids=WRAPPINGS.keys())
def test_an_encoder_without_its_decoder_is_read(wrap: Rename) -> None:
    model = autoencoder()
    wanted = {name: tensor for name, tensor in model.state_dict().items() if name.startswith("encoder.")}
    encoder = {name: tensor for name, tensor in theirs(model).items() if name.startswith("encoder.")}
    assert same(read(wrapped(encoder, wrap)).state, wanted)
    bare = {name.removeprefix("encoder."): tensor for name, tensor in encoder.items()}
    assert same(read(wrapped(bare, wrap)).state, wanted)


def test_a_classifier_whose_names_all_begin_with_encoder_is_a_classifier() -> None:
    model = classifier()
    found = read({f"encoder.{name}": tensor for name, tensor in theirs(model).items()})
    assert found.kind == "finetuned"
    assert same(found.state, dict(model.state_dict()))


def test_a_head_beside_a_backbone_is_read() -> None:
    model = classifier()
    head = ("head.", "fc_norm.")
    state = {name if name.startswith(head) else f"backbone.{name}": tensor for name, tensor in theirs(model).items()}
    assert same(read(state).state, dict(model.state_dict()))


@pytest.mark.parametrize("number", [torch.float32, torch.float16, torch.bfloat16])
def test_a_fixed_table_that_was_saved_is_dropped_by_its_name_and_its_length_kept(number: torch.dtype) -> None:
    model = autoencoder()
    tables = {
        "encoder.pos_embed": sinusoid(TOKENS, ENCODER.width).to(number),
        "pos_embed": sinusoid(TOKENS, 6).to(number),
    }
    found = read({f"module.{name}": tensor for name, tensor in {**theirs(model), **tables}.items()})
    assert set(found.dropped) == {"module.encoder.pos_embed", "module.pos_embed"}
    assert len(found.notes) == 2
    assert found.tokens == TOKENS
    assert same(found.state, dict(model.state_dict()))
    found = read({**theirs(classifier()), "pos_embed": tables["encoder.pos_embed"]})
    assert (found.dropped, found.tokens) == (("pos_embed",), TOKENS)


def test_a_learnt_table_is_kept_where_the_model_has_one_and_refused_elsewhere() -> None:
    positioned = ViTSpec(width=8, depth=2, heads=2, patch=8, learnable_positions=True)
    assert "encoder.pos_embed" in read(theirs(classifier(positioned))).state
    line = mistake({**theirs(autoencoder()), "decoder.pos_embed": torch.randn(1, TOKENS, 6)})
    assert "decoder.pos_embed is a learnt position table" in line


def test_what_has_no_effect_is_dropped_with_a_reason() -> None:
    unused = {"encoder.head.weight": torch.ones(3, 8), "encoder.head.bias": torch.ones(3)}
    found = read({**theirs(autoencoder()), **unused})
    assert set(found.dropped) == unused.keys()
    assert "encoder.head.weight" in found.notes[0]
    norm = {"norm.weight": torch.ones(8), "norm.bias": torch.ones(8)}
    found = read({**theirs(classifier()), **norm})
    assert set(found.dropped) == norm.keys()
    assert "fc_norm" in found.notes[0]


def test_a_tensor_without_a_place_is_named() -> None:
    assert "no rule knows blocks.0.attn.extra" in mistake(
        {**theirs(classifier()), "blocks.0.attn.extra": torch.ones(1)}
    )
    assert "no rule knows fc_norm.weight" in mistake({**theirs(autoencoder()), "fc_norm.weight": torch.ones(8)})


def test_one_model_twice_in_a_file_is_refused() -> None:
    state = theirs(classifier())
    both = {**state, **{name.replace("blocks.", "_orig_mod.blocks."): tensor for name, tensor in state.items()}}
    assert "is there twice" in mistake(both)


OTHERS: dict[str, tuple[dict[str, tuple[int, ...]], str]] = {
    "DeiT": ({"cls_token": (1, 1, 8), "patch_embed.proj.weight": (8, 3, 16, 16)}, "an image ViT"),
    "MAE": ({"mask_token": (1, 1, 8), "patch_embed.proj.weight": (8, 3, 16, 16)}, "an image ViT"),
    "MAE encoder": ({"encoder.patch_embed.proj.weight": (8, 3, 16, 16)}, "an image ViT"),
    "transformers": ({"vit.embeddings.patch_embeddings.projection.weight": (8, 3, 16, 16)}, "an image ViT"),
    "torchvision": ({"class_token": (1, 1, 8), "conv_proj.weight": (8, 3, 16, 16)}, "an image ViT"),
    "CLIP": ({"visual.conv1.weight": (8, 3, 16, 16)}, "an image ViT"),
    "MAE-ST": ({"cls_token": (1, 1, 8), "patch_embed.proj.weight": (8, 3, 2, 16, 16)}, "a class token"),
    "TimeSformer": (
        {"model.blocks.0.temporal_attn.qkv.weight": (24, 8), "model.patch_embed.proj.weight": (8, 3, 16, 16)},
        "TimeSformer",
    ),
    "MViT": ({"patch_embed.proj.weight": (8, 3, 3, 7, 7), "blocks.0.attn.rel_pos_h": (7, 8)}, "MViT"),
    "Swin": (
        {"backbone.patch_embed.proj.weight": (8, 3, 2, 4, 4), "backbone.a.relative_position_bias_table": (7, 8)},
        "Swin",
    ),
    "a file of a Hugging Face folder": (
        {"videomae.embeddings.patch_embeddings.projection.weight": (8, 3, 2, 16, 16)},
        "give the folder, which needs its config.json",
    ),
    "ResNet": ({"conv1.weight": (8, 3, 7, 7), "fc.bias": (8,)}, "no encoder among its tensors (conv1.weight, fc.bias)"),
}  # fmt: skip


@pytest.mark.parametrize(("shapes", "said"), OTHERS.values(), ids=OTHERS.keys())
def test_other_models_are_told_by_what_they_are(shapes: dict[str, tuple[int, ...]], said: str) -> None:
    for prefix in ("", "module."):
        assert said in mistake({prefix + name: torch.ones(shape) for name, shape in shapes.items()})
