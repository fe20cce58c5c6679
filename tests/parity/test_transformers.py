"""The same numbers as transformers' VideoMAE, both ways, on random weights at the real size of ViT-S and a tiny one."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
import torch
from torch import Tensor, nn

os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers is loaded: nothing here may touch the network
transformers = pytest.importorskip("transformers", reason="transformers is not installed")

from tubelet.masks import Tube  # noqa: E402
from tubelet.methods.autoencoder import MaskedAutoencoder, MaskedAutoencoderSpec  # noqa: E402
from tubelet.methods.classifier import ClassifierSpec  # noqa: E402
from tubelet.models.decoder import DecoderSpec  # noqa: E402
from tubelet.models.vit import ViTSpec  # noqa: E402
from tubelet.nn.pixels import IMAGENET_MEAN, IMAGENET_STD  # noqa: E402
from tubelet.recipe import EncoderRun, FinetuneRecipe, PretrainRecipe  # noqa: E402
from tubelet.spec import replace  # noqa: E402
from tubelet.targets.pixels import NormalisedPixels, Pixels  # noqa: E402
from tubelet.types import Batch, Clips, ClipShape, Mask  # noqa: E402
from tubelet.weights.checkpoint import Checkpoint  # noqa: E402
from tubelet.weights.export.huggingface import to_huggingface  # noqa: E402
from tubelet.weights.read import read_model  # noqa: E402

TOLERANCE: Final = 1e-5
KEYS: Final = ("missing_keys", "unexpected_keys", "mismatched_keys")


@dataclass(frozen=True)
class Size:
    """A model, in transformers' words and in ours."""

    config: dict[str, int]
    clip: ClipShape
    encoder: ViTSpec
    decoder: DecoderSpec
    batch: int


TINY: Final = Size(
    {
        "image_size": 32,
        "num_frames": 4,
        "patch_size": 8,
        "hidden_size": 44,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 192,
        "decoder_hidden_size": 24,
        "decoder_num_hidden_layers": 2,
        "decoder_num_attention_heads": 3,
        "decoder_intermediate_size": 80,
    },
    ClipShape(frames=4, size=32),
    ViTSpec(width=44, depth=2, heads=4, patch=8, mlp_ratio=48 / 11, norm_eps=1e-4),
    DecoderSpec(width=24, depth=2, heads=3, mlp_ratio=10 / 3, norm_eps=1e-4, final_norm_eps=1e-5),
    batch=3,
)
SMALL: Final = Size(
    {
        "hidden_size": 384,
        "num_attention_heads": 6,
        "intermediate_size": 1536,
        "decoder_hidden_size": 192,
        "decoder_num_attention_heads": 3,
        "decoder_intermediate_size": 768,
    },
    ClipShape(),
    ViTSpec(width=384, depth=12, heads=6),
    DecoderSpec(width=192, depth=4, heads=3, final_norm_eps=1e-5),
    batch=1,
)
sizes = pytest.mark.parametrize("size", [TINY, SMALL], ids=["tiny", "ViT-S"])


def filled(module: nn.Module) -> nn.Module:
    """Every parameter random: a name that is lost, or put in another's place, then shows in the result."""
    rng = torch.Generator().manual_seed(0)
    for name, value in module.named_parameters():
        noise = torch.randn(value.shape, generator=rng)
        is_norm = "norm" in name and name.endswith("weight")
        fan_in = value[0].numel() if value.ndim > 1 else 1
        value.data = 1 + 0.2 * noise if is_norm else noise * (fan_in**-0.5 if value.ndim > 1 else 0.2)
    return module.eval()


def clips(size: Size) -> Tensor:
    shape = (size.batch, 3, size.clip.frames, size.clip.size, size.clip.size)
    return torch.from_numpy(np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8))


def pixel_values(video: Tensor) -> Tensor:
    """What transformers takes: normalised, frames before colours."""
    mean, std = torch.tensor(IMAGENET_MEAN).view(3, 1, 1, 1), torch.tensor(IMAGENET_STD).view(3, 1, 1, 1)
    return ((video / 255.0 - mean) / std).transpose(1, 2)


def hidden(size: Size) -> Mask:
    grid = size.clip.grid(size.encoder.cube)
    drawn = [Tube(ratio=0.75)(grid, np.random.default_rng(row)) for row in range(size.batch)]
    mask = torch.from_numpy(np.stack(drawn))
    return Mask(mask, mask)


def close(ours: Tensor, theirs: Tensor, tolerance: float = TOLERANCE) -> bool:
    return float((ours - theirs).abs().max() / theirs.abs().max()) <= tolerance


def their(kind: str, size: Size, **changes: Any) -> Any:
    config = transformers.VideoMAEConfig(**{**size.config, "layer_norm_eps": 1e-6, **changes})
    return filled(getattr(transformers, kind)(config))


@torch.inference_mode()
def their_loss(model: Any, size: Size) -> Tensor:
    mask = hidden(size).hidden.flatten(1)
    loss: Tensor = model(pixel_values(clips(size)), bool_masked_pos=mask).loss
    return loss


@torch.inference_mode()
def our_loss(model: MaskedAutoencoder, size: Size) -> Tensor:
    video = Clips(clips(size), torch.arange(size.batch))
    loss: Tensor = model(Batch({"video": video}, {"video": hidden(size).split()})).loss
    return loss


def loaded_whole(kind: str, folder: Path) -> Any:
    """Through `from_pretrained`, with nothing missing, nothing over, nothing of another shape."""
    model, info = getattr(transformers, kind).from_pretrained(folder, output_loading_info=True)
    assert not any(info[key] for key in KEYS), info
    return model.eval()


# In


@sizes
@pytest.mark.parametrize("normalised", [True, False], ids=["normalised", "plain"])
def test_their_masked_autoencoder_has_the_same_loss_here(size: Size, normalised: bool, tmp_path: Path) -> None:
    model = their("VideoMAEForPreTraining", size, use_mean_pooling=False, norm_pix_loss=normalised)
    model.save_pretrained(tmp_path)
    imported = read_model(tmp_path)
    assert isinstance(imported.recipe, PretrainRecipe)
    assert isinstance(imported.recipe.target, NormalisedPixels if normalised else Pixels)
    assert close(our_loss(imported.build_autoencoder(), size), their_loss(model, size))
    assert imported.dropped == imported.notes == ()


@sizes
@pytest.mark.parametrize("mean_pooling", [True, False], ids=["mean", "first"])
@torch.inference_mode()
def test_their_classifier_has_the_same_logits_here(size: Size, mean_pooling: bool, tmp_path: Path) -> None:
    names = {0: "wave", 1: "point", 2: "clap"}
    model = their("VideoMAEForVideoClassification", size, use_mean_pooling=mean_pooling, id2label=names)
    model.save_pretrained(tmp_path)
    imported = read_model(tmp_path)
    assert imported.names == ("wave", "point", "clap")
    assert close(imported.build_classifier()(clips(size)), model(pixel_values(clips(size))).logits)


@pytest.mark.parametrize("changes", [{"layer_norm_eps": 1e-2}, {"qv_bias": False}, {"tubelet_size": 4}], ids=str)
@torch.inference_mode()
def test_options_of_their_config_are_honoured(changes: dict[str, Any], tmp_path: Path) -> None:
    model = their("VideoMAEForVideoClassification", TINY, **changes)
    model.save_pretrained(tmp_path)
    ours = read_model(tmp_path).build_classifier()
    assert close(ours(clips(TINY)), model(pixel_values(clips(TINY))).logits)


@pytest.mark.parametrize("mean_pooling", [True, False], ids=["no norm", "norm"])
@torch.inference_mode()
def test_their_bare_model_gives_the_same_tokens_here(mean_pooling: bool, tmp_path: Path) -> None:
    model = their("VideoMAEModel", TINY, use_mean_pooling=mean_pooling)
    model.save_pretrained(tmp_path)
    imported = read_model(tmp_path)
    assert not imported.has_decoder
    ours = imported.build_encoder()(clips(TINY))
    assert close(ours, model(pixel_values(clips(TINY))).last_hidden_state)


@torch.inference_mode()
def test_the_encoder_of_a_mean_pooled_masked_autoencoder_is_kept_without_its_decoder(tmp_path: Path) -> None:
    model = their("VideoMAEForPreTraining", TINY, use_mean_pooling=True)
    model.save_pretrained(tmp_path)
    imported = read_model(tmp_path)
    assert not imported.has_decoder
    assert {"mask_token", "encoder_to_decoder.weight", "decoder.head.bias"} <= set(imported.dropped)
    assert "no norm between encoder and decoder" in imported.notes[0]
    theirs = model.videomae(pixel_values(clips(TINY))).last_hidden_state
    assert close(imported.build_encoder()(clips(TINY)), theirs)


@torch.inference_mode()
def test_weights_in_several_files_and_in_pickles_are_the_same(tmp_path: Path) -> None:
    model = their("VideoMAEForVideoClassification", TINY)
    model.save_pretrained(tmp_path / "one")
    model.save_pretrained(tmp_path / "shards", max_shard_size="40KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    (tmp_path / "pickle").mkdir()
    model.config.save_pretrained(tmp_path / "pickle")
    torch.save(model.state_dict(), tmp_path / "pickle" / "pytorch_model.bin")  # with the names in memory: query.bias
    states = [read_model(tmp_path / name).state for name in ("one", "shards", "pickle")]
    assert "encoder.blocks.1.attention.v_bias" in states[0]
    for other in states[1:]:
        assert other.keys() == states[0].keys()
        assert all(torch.equal(other[name], value) for name, value in states[0].items())


# Out


def trained(recipe: EncoderRun, module: nn.Module, **fields: Any) -> Checkpoint:
    return Checkpoint(Path("run"), "run", dict(filled(module).state_dict()), recipe, **fields)


def pretrained(size: Size, **changes: Any) -> Checkpoint:
    model = MaskedAutoencoderSpec(encoder=replace(size.encoder, **changes), decoder=replace(size.decoder, **changes))
    recipe = PretrainRecipe(name="run", clip=size.clip, model=model)
    return trained(recipe, model.build(size.clip, recipe.target))


def finetuned(size: Size, *, eps: float = 1e-5, **changes: Any) -> Checkpoint:
    model = ClassifierSpec.model_validate({"encoder": size.encoder, "norm_eps": eps, **changes})
    recipe = FinetuneRecipe(name="run", clip=size.clip, model=model, classes=3)
    return trained(recipe, model.build(size.clip, 3), names=("wave", "point", "clap"))


@sizes
def test_our_masked_autoencoder_has_the_same_loss_there(size: Size, tmp_path: Path) -> None:
    imported = pretrained(size)
    assert to_huggingface(imported, tmp_path / "out") == ()
    model = loaded_whole("VideoMAEForPreTraining", tmp_path / "out")
    assert close(their_loss(model, size), our_loss(imported.build_autoencoder(), size))


@sizes
@pytest.mark.parametrize("pooling", ["mean", "first"])
@torch.inference_mode()
def test_our_classifier_has_the_same_logits_there(size: Size, pooling: str, tmp_path: Path) -> None:
    imported = finetuned(size, pooling=pooling)
    assert to_huggingface(imported, tmp_path / "out") == ()
    model = loaded_whole("VideoMAEForVideoClassification", tmp_path / "out")
    assert model.config.id2label == {0: "wave", 1: "point", 2: "clap"}
    assert model.config.label2id == {"wave": 0, "point": 1, "clap": 2}
    assert close(model(pixel_values(clips(size))).logits, imported.build_classifier()(clips(size)))


@torch.inference_mode()
def test_our_encoder_alone_becomes_their_bare_model(tmp_path: Path) -> None:
    whole = pretrained(TINY)
    encoder = {name: value for name, value in whole.state.items() if name.startswith("encoder.")}
    imported = Checkpoint(whole.file, whole.format, encoder, whole.recipe)
    to_huggingface(imported, tmp_path / "out")
    model = loaded_whole("VideoMAEModel", tmp_path / "out")
    ours = imported.build_encoder()(clips(TINY))
    assert close(model(pixel_values(clips(TINY))).last_hidden_state, ours)


def test_layer_scale_is_multiplied_in(tmp_path: Path) -> None:
    imported = pretrained(TINY, layer_scale=0.1)
    notes = to_huggingface(imported, tmp_path / "out")
    assert notes == ("layer scale is multiplied into the last layer of each branch",)
    model = loaded_whole("VideoMAEForPreTraining", tmp_path / "out")
    assert close(their_loss(model, TINY), our_loss(imported.build_autoencoder(), TINY))


@torch.inference_mode()
def test_what_another_eps_does_is_measured_and_said(tmp_path: Path) -> None:
    imported = finetuned(TINY, eps=1e-2)
    (note,) = to_huggingface(imported, tmp_path / "out")
    ours, theirs = imported.build_classifier(), loaded_whole("VideoMAEForVideoClassification", tmp_path / "out")
    difference = ours(clips(TINY)) - theirs(pixel_values(clips(TINY))).logits
    relative = float(difference.abs().max() / ours(clips(TINY)).abs().max())
    said = float(note.split("differ by ")[1].split(" ")[0])
    assert relative > 1e-4, "the eps must matter in this test"
    assert said == pytest.approx(relative, rel=0.5)  # other clips of noise


@sizes
def test_out_and_in_again_is_the_same_model(size: Size, tmp_path: Path) -> None:
    imported = pretrained(size)
    to_huggingface(imported, tmp_path / "out")
    back = read_model(tmp_path / "out")
    assert back.recipe == replace(imported.recipe, name="out")
    assert_equal(back.state, imported.state)


def assert_equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    assert all(torch.equal(value, other[name]) for name, value in one.items())
