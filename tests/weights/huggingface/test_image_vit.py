"""Image ViTs of Hugging Face to start from: the tokens of patches are those of transformers, refusals are one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

transformers = pytest.importorskip("transformers")

from tubelet.methods.classifier import ClassifierSpec  # noqa: E402
from tubelet.models.vit import ViTSpec  # noqa: E402
from tubelet.rng import step_rng  # noqa: E402
from tubelet.spec import replace  # noqa: E402
from tubelet.types import ClipShape  # noqa: E402
from tubelet.weights.read import read_model  # noqa: E402
from tubelet.weights.start import start_classifier  # noqa: E402

SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32, "patch_size": 8}
MEAN, STD = [0.5, 0.4, 0.3], [0.5, 0.25, 0.2]
KINDS: dict[str, Callable[[], Any]] = {
    "vit": lambda: transformers.ViTModel(transformers.ViTConfig(**SIZES, intermediate_size=40)),
    "vit classifier": lambda: transformers.ViTForImageClassification(
        transformers.ViTConfig(**SIZES, intermediate_size=40)
    ),
    "deit": lambda: transformers.DeiTModel(transformers.DeiTConfig(**SIZES, intermediate_size=40)),
    "mae": lambda: transformers.ViTMAEForPreTraining(
        transformers.ViTMAEConfig(**SIZES, intermediate_size=40, decoder_num_hidden_layers=1, decoder_hidden_size=16)
    ),
    "dinov2": lambda: transformers.Dinov2Model(transformers.Dinov2Config(**SIZES)),
    "registers": lambda: transformers.Dinov2WithRegistersModel(transformers.Dinov2WithRegistersConfig(**SIZES)),
}


def made(kind: str, folder: Path) -> Any:
    """A random model in eval mode, and its folder."""
    with step_rng(4, 0):
        model = KINDS[kind]().eval()
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_mean": MEAN, "image_std": STD}))
    return model


def pictures() -> Tensor:
    return torch.randint(256, (2, 3, 1, 32, 32), generator=torch.Generator().manual_seed(2), dtype=torch.uint8)


def patches_alone(model: Any, video: Tensor) -> Tensor:
    """What transformers gives for the patches where no other token is among them."""
    inner = model
    for name in ("vit", "dinov2"):
        inner = getattr(inner, name, inner)
    pixels = (video[:, :, 0].float() / 255 - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)
    embedded = inner.embeddings.patch_embeddings(pixels)
    table = inner.embeddings.position_embeddings
    tokens = embedded + table[:, table.shape[1] - embedded.shape[1] :]
    for layer in next(part for part in inner.modules() if isinstance(part, torch.nn.ModuleList)):
        out = layer(tokens)
        tokens = out[0] if isinstance(out, tuple) else out
    normed: Tensor = inner.layernorm(tokens)
    return normed


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_the_patches_have_the_features_that_transformers_gives_them(kind: str, tmp_path: Path) -> None:
    model = made(kind, tmp_path / "hf")
    found = read_model(tmp_path / "hf")
    assert found.recipe.clip == ClipShape(frames=1, size=32)
    encoder = found.build_encoder()
    torch.testing.assert_close(encoder(pictures()), patches_alone(model, pictures()), rtol=1e-4, atol=1e-5)
    assert all("key.bias" in n or "encoder.layer" not in n or n.startswith("decoder.") for n in found.dropped)
    assert "no place in our ViT" in found.notes[0]
    assert "put into the patch embedding" in found.notes[-1]


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_clips_start_from_them(kind: str, tmp_path: Path) -> None:
    made(kind, tmp_path / "hf")
    found = read_model(tmp_path / "hf")
    image = found.recipe.model.encoder
    assert isinstance(image, ViTSpec)
    with step_rng(2, 2):
        spec = ClassifierSpec(encoder=replace(image, tubelet=2), pooling="normed_mean")
        classifier = spec.build(ClipShape(frames=4, size=32), 3).eval()
    start_classifier(classifier, tmp_path / "hf", inflate="mean")
    steps = classifier.encoder(pictures().expand(-1, -1, 4, -1, -1).contiguous()).unflatten(1, (2, -1))
    wanted = found.build_encoder()(pictures())
    for step in steps.unbind(1):
        torch.testing.assert_close(step, wanted, rtol=1e-5, atol=1e-5)


def change(folder: Path, **fields: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"model_type": "clip"}, "clip has a norm in front of its blocks, which our ViT lacks"),
        ({"model_type": "dinov3_vit"}, "dinov3_vit has rotary positions"),
        ({"hidden_act": "quick_gelu"}, "hidden_act is 'quick_gelu'; tubelet builds 'gelu' only"),
        ({"use_swiglu_ffn": True}, "use_swiglu_ffn is True; tubelet builds False only"),
        ({"num_channels": 1}, "num_channels is 1; tubelet builds 3 only"),
        ({"hidden_size": "wide"}, "hidden_size: Input should be a valid integer"),
        ({"image_size": 64}, "the position table is [1, 17, 16]; config.json says 64 patches"),
        ({"num_attention_heads": 3}, "width 16 is not a multiple of heads 3"),
        ({"num_hidden_layers": 3}, "lacks blocks.2"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_does_not_fit_is_one_line(tmp_path: Path, fields: dict[str, object], said: str) -> None:
    made("vit", tmp_path / "hf")
    change(tmp_path / "hf", **fields)
    assert said in refused(tmp_path / "hf")


def test_a_folder_that_is_not_whole_is_one_line(tmp_path: Path) -> None:
    folder = tmp_path / "hf"
    made("vit", folder)
    state = load_file(folder / "model.safetensors")
    embedding = "embeddings.patch_embeddings.projection.weight"
    for broken, said in [
        ({**state, "embeddings.odd": torch.ones(1)}, "no rule knows embeddings.odd"),
        ({n: t for n, t in state.items() if n != embedding}, "the patch embedding is missing"),
        ({**state, embedding: torch.ones(16, 3, 2, 8, 8)}, "the patch embedding is [16, 3, 2, 8, 8], not"),
        ({n: t for n, t in state.items() if "position" not in n}, "the position table is missing"),
    ]:
        save_file(broken, folder / "model.safetensors")
        assert said in refused(folder)
    save_file(state, folder / "model.safetensors")
    (folder / "preprocessor_config.json").unlink()
    assert "lacks preprocessor_config.json" in refused(folder)


def refused(folder: Path) -> str:
    with pytest.raises(ValueError, match="hf") as error:
        read_model(folder)
    assert "\n" not in str(error.value)
    return str(error.value)
