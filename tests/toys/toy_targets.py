"""Tiny runs on targets of every kind, and an image model to ask."""

from __future__ import annotations

import json
from pathlib import Path

from toy_run import VIT, pretrain_recipe

from tubelet.methods.autoencoder import MaskedAutoencoderSpec
from tubelet.methods.predictor import MaskedPredictorSpec
from tubelet.models.decoder import DecoderSpec
from tubelet.recipe import PretrainRecipe, override
from tubelet.spec import replace

SHAPES = {
    "masked_autoencoder": MaskedAutoencoderSpec(encoder=VIT, decoder=DecoderSpec(width=16, depth=1, heads=2)),
    "masked_predictor": MaskedPredictorSpec(encoder=VIT),
}
KINDS = {"video": "features", "image": "features", "classes": "pseudo_labels", "ids": "tokens"}


def write_image_model(folder: Path) -> None:
    from transformers import Dinov2Config, Dinov2Model

    config = Dinov2Config(hidden_size=20, num_hidden_layers=1, num_attention_heads=2, patch_size=14, image_size=28)
    Dinov2Model(config).save_pretrained(folder)
    colours = {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.25]}
    (folder / "preprocessor_config.json").write_text(json.dumps(colours))


def toy(videos: Path, *changes: str, shape: str = "masked_predictor") -> PretrainRecipe:
    recipe = replace(pretrain_recipe(), model=SHAPES[shape])
    fixed = (f"data.videos={videos}", "data.sampler={kind: strided, stride: 1}", "run.batch_size=3")
    return override(recipe, [*fixed, "schedule.epochs=2", *changes])


def by(teacher: Path) -> tuple[str, str]:
    """The two changes that a recipe needs."""
    return f"target={KINDS[teacher.name]}", f"target.teacher={teacher}"
