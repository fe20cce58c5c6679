"""Learning rates, weight decay and layer decay equal to those of the authors' code, value by value."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch

from golden import load_json
from tubelet.methods.autoencoder import MaskedAutoencoderSpec
from tubelet.methods.classifier import ClassifierSpec
from tubelet.models.decoder import DecoderSpec
from tubelet.models.vit import ViTSpec
from tubelet.recipe import Optim, Schedule
from tubelet.targets.pixels import NormalisedPixels
from tubelet.train.optim import ParameterGroup, parameter_groups
from tubelet.train.schedule import cosine, learning_rates
from tubelet.types import ClipShape
from tubelet.weights.tensors.rename import Pairs, from_official
from tubelet.weights.videomae.names import FINETUNED, PRETRAINED

CASES = ("case11_videomae_optim", "case11_videomaev2_optim")
CLIP = ClipShape(frames=4, size=16)
Settings = tuple[int | None, Any, float]  # layer, factor on the rate, weight decay


def warmup_steps(args: dict[str, Any]) -> int:
    """The authors' rule: a number of steps wins over epochs, where epochs are given too."""
    steps = int(args.get("warmup_steps", -1))
    return steps if steps > 0 else int(args.get("warmup_epochs", 0) * args["niter_per_ep"])


@pytest.mark.parametrize("case", CASES)
def test_every_value_of_every_schedule(case: str) -> None:
    rows = [row for row in load_json(case)["cosine_scheduler"]["rows"] if "values" in row]
    assert rows
    for row in rows:
        args = row["args"]
        ours = cosine(
            args["base_value"],
            args["final_value"],
            steps=args["epochs"] * args["niter_per_ep"],
            warmup_steps=warmup_steps(args),
            start=args.get("start_warmup_value", 0.0),
        )
        np.testing.assert_allclose(ours, row["values"], rtol=1e-12, atol=1e-18, err_msg=str(args))


def test_rates_of_a_run_scale_with_the_batch_over_256() -> None:
    optim, schedule = Optim(lr=1.5e-4), Schedule(epochs=8, warmup_epochs=2, min_lr=1e-5, start_lr=1e-6)
    ours = learning_rates(optim, schedule, batch_size=1024, steps_per_epoch=5)
    np.testing.assert_allclose(ours, cosine(6e-4, 4e-5, steps=40, warmup_steps=10, start=4e-6), rtol=1e-12)


def flat(groups: tuple[ParameterGroup, ...]) -> dict[str, Settings]:
    """Layer, factor and decay of every parameter."""
    return {name: (group.layer, group.lr_scale, group.weight_decay) for group in groups for name in group.names}


def expected(rows: list[dict[str, Any]]) -> dict[str, Settings]:
    return {row["parameter"]: (row["layer"], pytest.approx(row["lr_scale"]), row["weight_decay"]) for row in rows}


def by_our_names(rows: list[dict[str, Any]], pairs: Pairs) -> dict[str, Settings]:
    values = expected(rows)
    places = from_official({name: torch.tensor(place) for place, name in enumerate(values)}, pairs)
    return {name: list(values.values())[int(place)] for name, place in places.items()}


def depth_under(prefix: str, rows: list[dict[str, Any]]) -> int:
    numbers = [re.match(rf"{re.escape(prefix)}blocks\.(\d+)\.", row["parameter"]) for row in rows]
    return 1 + max(int(found.group(1)) for found in numbers if found)


@pytest.mark.parametrize("case", CASES)
def test_layer_decay_of_our_classifier(case: str) -> None:
    part = load_json(case)["layer_decay"]
    config = part["config"]
    has_positions = any(row["parameter"] == "pos_embed" for row in part["rows"])
    encoder = ViTSpec(
        width=8,
        depth=config["depth"],
        heads=2,
        patch=8,
        layer_scale=0.1 if any("gamma" in row["parameter"] for row in part["rows"]) else None,
        learnable_positions=has_positions,
        cosine_attention=any(row["parameter"].endswith("attn.scale") for row in part["rows"]),
    )
    pooling = "mean" if any(row["parameter"].startswith("fc_norm") for row in part["rows"]) else "first"
    classifier = ClassifierSpec(encoder=encoder, pooling=pooling).build(CLIP, 3)
    groups = parameter_groups(
        classifier,
        weight_decay=config["weight_decay"],
        layer_decay=config["layer_decay"],
        encoder=classifier.encoder,
    )
    assert flat(groups) == by_our_names(part["rows"], FINETUNED)


def test_weight_decay_of_our_masked_autoencoder() -> None:
    rows = load_json("case11_videomae_optim")["pretrain_groups"]["rows"]
    decayed = {row["weight_decay"] for row in rows} - {0.0}
    spec = MaskedAutoencoderSpec(
        encoder=ViTSpec(width=8, depth=depth_under("encoder.", rows), heads=2, patch=8),
        decoder=DecoderSpec(width=8, depth=depth_under("decoder.", rows), heads=2),
    )
    method = spec.build(CLIP, NormalisedPixels())
    ours = flat(parameter_groups(method, weight_decay=max(decayed)))
    assert ours == by_our_names(rows, PRETRAINED)
