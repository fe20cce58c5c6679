"""The released files of VideoMAE V2: names and shapes at full size without memory, small real files in every nesting.

Names and shapes are written out here from the authors' modules, not made by our own converter.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import pytest
import torch
from released import HINTS, autoencoder, classifier, clips, saved, theirs
from safetensors.torch import save_file
from torch import Tensor

from tubelet.methods.autoencoder import MaskedAutoencoderSpec
from tubelet.methods.classifier import ClassifierSpec
from tubelet.models.decoder import DecoderSpec
from tubelet.models.vit import ViTSpec
from tubelet.recipe import FinetuneRecipe, PretrainRecipe
from tubelet.recipes import RECIPES
from tubelet.targets.pixels import NormalisedPixels
from tubelet.types import ClipShape
from tubelet.video.sample import Span
from tubelet.weights.checkpoint import Undescribed
from tubelet.weights.read import Hints, read_model
from tubelet.weights.tensors.files import Content, OpenedWeights
from tubelet.weights.tensors.given import Given
from tubelet.weights.tensors.strict import check_fit
from tubelet.weights.videomae import files as videomae
from tubelet.weights.videomae.shapes import decoder_spec, encoder_spec, trained_clip

FILE = Path("vit_g_hybrid_pt_1200e.pth")
Shapes = dict[str, tuple[int, ...]]


def blocks(prefix: str, width: int, hidden: int, depth: int) -> Shapes:
    shapes: Shapes = {}
    for index in range(depth):
        block = f"{prefix}blocks.{index}."
        shapes |= {f"{block}norm{n}.{end}": (width,) for n in (1, 2) for end in ("weight", "bias")}
        shapes |= {f"{block}attn.q_bias": (width,), f"{block}attn.v_bias": (width,)}
        shapes |= {f"{block}attn.qkv.weight": (3 * width, width)}
        shapes |= {f"{block}attn.proj.weight": (width, width), f"{block}attn.proj.bias": (width,)}
        shapes |= {f"{block}mlp.fc1.weight": (hidden, width), f"{block}mlp.fc1.bias": (hidden,)}
        shapes |= {f"{block}mlp.fc2.weight": (width, hidden), f"{block}mlp.fc2.bias": (width,)}
    return shapes


def encoder_shapes(prefix: str, width: int, hidden: int, depth: int, patch: int) -> Shapes:
    embedding = {f"{prefix}patch_embed.proj.weight": (width, 3, 2, patch, patch)}
    return {**embedding, f"{prefix}patch_embed.proj.bias": (width,), **blocks(prefix, width, hidden, depth)}


def pretraining_shapes(width: int, hidden: int, depth: int, *, patch: int, narrow: int, narrow_hidden: int) -> Shapes:
    pixels = 3 * 2 * patch * patch
    shapes = encoder_shapes("encoder.", width, hidden, depth, patch)
    shapes |= {f"encoder.norm.{end}": (width,) for end in ("weight", "bias")}
    shapes |= {"mask_token": (1, 1, narrow), "encoder_to_decoder.weight": (narrow, width)}
    shapes |= blocks("decoder.", narrow, narrow_hidden, 4)
    shapes |= {f"decoder.norm.{end}": (narrow,) for end in ("weight", "bias")}
    return {**shapes, "decoder.head.weight": (pixels, narrow), "decoder.head.bias": (pixels,)}


def classifier_shapes(width: int, hidden: int, depth: int, *, patch: int, classes: int) -> Shapes:
    shapes = encoder_shapes("", width, hidden, depth, patch)
    shapes |= {"fc_norm.weight": (width,), "fc_norm.bias": (width,)}
    return {**shapes, "head.weight": (classes, width), "head.bias": (classes,)}


def on_meta(shapes: Shapes) -> dict[str, Tensor]:
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


def opened(shapes: Shapes) -> Undescribed:
    """As from a file with such tensors."""
    found = OpenedWeights(FILE)
    found.file, found.content = FILE, Content(on_meta(shapes))
    assert videomae.matches(found)
    return videomae.read(found)


def count(shapes: Shapes) -> float:
    return sum(math.prod(shape) for shape in shapes.values()) / 1e6


G_PRETRAIN = pretraining_shapes(1408, 6144, 40, patch=14, narrow=512, narrow_hidden=2234)
# width, hidden, blocks, patch, decoder width and hidden, parameters in millions as the authors' code counts them
PRETRAINED = {
    "b-hybrid-800": (pretraining_shapes(768, 3072, 12, patch=16, narrow=384, narrow_hidden=1536), 94.21),
    "l-hybrid-1200": (pretraining_shapes(1024, 4096, 24, patch=16, narrow=512, narrow_hidden=2048), 317.78),
    "h-hybrid-1200": (pretraining_shapes(1280, 5120, 32, patch=16, narrow=512, narrow_hidden=2048), 645.66),
    "g-hybrid-1200": (G_PRETRAIN, 1026.31),
}
FINETUNED = {
    "s-k710-distilled": (classifier_shapes(384, 1536, 12, patch=16, classes=710), None),
    "b-k710-distilled": (classifier_shapes(768, 3072, 12, patch=16, classes=710), None),
    "h-k400": (classifier_shapes(1280, 5120, 32, patch=16, classes=400), 632.12),
    "g-k400": (classifier_shapes(1408, 6144, 40, patch=14, classes=400), 1012.17),
    "g-k710": (classifier_shapes(1408, 6144, 40, patch=14, classes=710), None),
}


@pytest.mark.parametrize("run", PRETRAINED)
def test_a_pretraining_file_at_full_size_is_the_recipes_model(run: str) -> None:
    shapes, millions = PRETRAINED[run]
    assert count(shapes) == pytest.approx(millions, abs=0.006)
    recipe = RECIPES[f"videomae-v2-{run}-pretrain"]()
    assert isinstance(recipe, PretrainRecipe)
    official, notes = opened(shapes), list[str]()
    assert "pre-training" in official.format
    assert official.dropped == ()
    encoder = encoder_spec(official.state, Given(FILE), notes)
    decoder = decoder_spec(official.state, Given(FILE), notes)
    assert sum("heads are not in the file" in note for note in notes) == 2
    assert isinstance(recipe.model, MaskedAutoencoderSpec)
    mine, narrow = recipe.model.encoder, recipe.model.decoder
    assert (encoder.heads, encoder.cube, decoder.heads) == (mine.heads, mine.cube, narrow.heads)
    clip = trained_clip(official.state, Given(FILE), notes)
    assert clip == ClipShape()
    with torch.device("meta"):
        found = MaskedAutoencoderSpec(encoder=encoder, decoder=decoder).build(clip, NormalisedPixels())
        trained = recipe.model.build(recipe.clip, recipe.target)
    check_fit(official.state, found.state_dict(), FILE)
    check_fit(official.state, trained.state_dict(), FILE)


@pytest.mark.parametrize("run", FINETUNED)
def test_a_classifiers_file_at_full_size_is_the_recipes_model(run: str) -> None:
    shapes, millions = FINETUNED[run]
    assert millions is None or count(shapes) == pytest.approx(millions, abs=0.006)
    recipe = RECIPES[f"videomae-v2-{run}-finetune"]()
    assert isinstance(recipe, FinetuneRecipe)
    official = opened(shapes)
    assert official.dropped == ()
    encoder = encoder_spec(official.state, Given(FILE), [])
    assert encoder.heads == recipe.model.encoder.heads
    with torch.device("meta"):
        found = ClassifierSpec(encoder=encoder).build(ClipShape(), len(official.state["head.bias"]))
        trained = recipe.model.build(recipe.clip, len(official.state["head.bias"]))
    check_fit(official.state, found.state_dict(), FILE)
    check_fit(official.state, trained.state_dict(), FILE)


def test_one_hidden_unit_less_is_no_fit() -> None:
    """The paper's table gives the giant's decoder 2048 hidden units; the files have 2234."""
    by_the_paper = pretraining_shapes(1408, 6144, 40, patch=14, narrow=512, narrow_hidden=2048)
    recipe = RECIPES["videomae-v2-g-hybrid-1200-pretrain"]()
    assert isinstance(recipe, PretrainRecipe)
    with torch.device("meta"):
        trained = recipe.model.build(recipe.clip, recipe.target)
    with pytest.raises(ValueError, match=r"decoder\.blocks\.0\.mlp\.fc1"):
        check_fit(opened(by_the_paper).state, trained.state_dict(), FILE)


GIANT = ViTSpec(width=44, depth=3, heads=2, patch=14, mlp_ratio=48 / 11)
SMALL = ClipShape(frames=4, size=56)
SMALL_HINTS = Hints(heads=2, decoder_heads=2, frames=4, size=56)


def small_giant() -> dict[str, Tensor]:
    decoder = DecoderSpec(width=22, depth=2, heads=2, mlp_ratio=48 / 11)
    model = MaskedAutoencoderSpec(encoder=GIANT, decoder=decoder).build(SMALL, NormalisedPixels())
    return theirs(model)


@pytest.mark.parametrize("wrap", ["", "_orig_mod.", "module."])
def test_a_small_giant_pretraining_is_read_whole(tmp_path: Path, wrap: str) -> None:
    state = {wrap + name: tensor for name, tensor in small_giant().items()}
    found = read_model(saved({"model": state, "optimizer": {}, "scaler": {}}, tmp_path), SMALL_HINTS)
    assert found.format == "VideoMAE V2 pre-training"
    assert (found.dropped, found.notes) == ((), ())
    built = found.build_autoencoder()
    assert (built.encoder.spec.cube.height, len(built.encoder.stack()), len(built.decoder.stack())) == (14, 3, 2)
    widths = {n: len(t) for n, t in built.named_parameters() if n.endswith("blocks.0.mlp.fc1.bias")}
    assert widths == {"encoder.blocks.0.mlp.fc1.bias": 192, "decoder.blocks.0.mlp.fc1.bias": 96}
    assert built.decoder.head.out_features == 1176
    tokens = built.encoder(clips(1, SMALL))
    encoder = f"{wrap}encoder."
    bare = {name.removeprefix(encoder): tensor for name, tensor in state.items() if name.startswith(encoder)}
    again = read_model(saved({"module": bare}, tmp_path / "bare"), SMALL_HINTS)
    assert torch.equal(again.build_encoder()(clips(1, SMALL)), tokens)


@pytest.mark.parametrize("nesting", ["module", "model"])
def test_a_distilled_file_needs_no_hint(tmp_path: Path, nesting: str) -> None:
    """`vit_s_k710_dl_from_giant.pth`, two blocks of it: 16 x 224 x 224, 710 classes, heads by the width."""
    encoder = ViTSpec(width=384, depth=2, heads=6)
    model = ClassifierSpec(encoder=encoder).build(ClipShape(), 710).eval()
    found = read_model(saved({nesting: theirs(model)}, tmp_path, "vit_s_k710_dl_from_giant.pth"))
    assert isinstance(found.recipe, FinetuneRecipe)
    assert found.recipe.model.encoder == encoder
    assert (found.recipe.clip, found.recipe.classes) == (ClipShape(), 710)
    assert (found.recipe.data.sampler, found.recipe.views.clips, found.recipe.views.crops) == (Span(stride=4), 5, 3)
    assert "710 classes" in found.format
    assert any("taken as 6" in note for note in found.notes)
    features = torch.randn(1, 5, 384)
    built = found.build_classifier()
    assert torch.equal(built.head(built.pooled(features)), model.head(model.pooled(features)))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"decoder_mask_ratio": 0.5}, "VideoMAE V2 pre-training"),
        ({"mask_ratio": 0.9}, "VideoMAE pre-training"),
    ],
)
def test_options_tell_the_version_where_shapes_do_not(tmp_path: Path, options: dict[str, float], said: str) -> None:
    content = {"model": theirs(autoencoder()), "args": argparse.Namespace(**options)}
    assert read_model(saved(content, tmp_path), HINTS).format == said


def test_options_tell_the_version_of_a_classifier(tmp_path: Path) -> None:
    content = {"module": theirs(classifier()), "args": argparse.Namespace(head_drop_rate=0.0, sampling_rate=2)}
    found = read_model(saved(content, tmp_path), HINTS)
    assert found.format == "VideoMAE V2 classifier, 3 classes"
    assert isinstance(found.recipe, FinetuneRecipe)
    assert found.recipe.data.sampler == Span(stride=2)


def test_a_folder_with_code_of_its_own_is_read_without_its_code(tmp_path: Path) -> None:
    """`OpenGVLab/VideoMAEv2-Base`: a custom class around the classifier without its head."""
    model = classifier()
    state = {f"model.{name}": tensor for name, tensor in theirs(model).items() if not name.startswith("head.")}
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "VideoMAEv2_Base", "auto_map": {"AutoModel": "modeling_videomaev2.VideoMAEv2"}})
    )
    (tmp_path / "modeling_videomaev2.py").write_text("raise SystemExit('executed')\n")
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, tmp_path / "model.safetensors")
    for path in (tmp_path, tmp_path / "model.safetensors"):
        found = read_model(path, HINTS)
        assert not found.has_head
        assert torch.equal(found.build_encoder()(clips()), model.encoder(clips()))
