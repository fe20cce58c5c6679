"""The same numbers as transformers' TimeSformer both ways, and its 2-D Swin inflated, on random weights."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

import pytest
import torch
from torch import Tensor, nn

os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers is loaded: nothing here may touch the network
transformers = pytest.importorskip("transformers", reason="transformers is not installed")

from safetensors.torch import load_file, save_file  # noqa: E402

from tubelet.methods.classifier import Classifier, ClassifierSpec  # noqa: E402
from tubelet.models.swin.layers import PatchEmbed  # noqa: E402
from tubelet.models.swin.model import Swin, SwinSpec, SwinStage  # noqa: E402
from tubelet.models.timesformer import AttentionKind, TimeSformer, TimeSformerSpec  # noqa: E402
from tubelet.spec import replace  # noqa: E402
from tubelet.types import ClipShape, Cube  # noqa: E402
from tubelet.weights.swin.inflate import (  # noqa: E402
    Inflation,
    from_authors_2d,
    from_huggingface_2d,
    image_embedding,
    inflated,
)
from tubelet.weights.swin.names import ENCODER  # noqa: E402
from tubelet.weights.tensors.rename import to_official  # noqa: E402
from tubelet.weights.timesformer.names import HUGGINGFACE, from_theirs, to_theirs  # noqa: E402

CLIP: Final = ClipShape(frames=3, size=32)
KINDS: Final[dict[AttentionKind, str]] = {
    "divided": "divided_space_time",
    "joint": "joint_space_time",
    "space": "space_only",
}
WEIGHTS: Final = "model.safetensors"
kinds = pytest.mark.parametrize("kind", KINDS)


def filled(module: nn.Module) -> Any:
    """Every parameter random: a name that is lost, or put in another's place, then shows in the result."""
    rng = torch.Generator().manual_seed(0)
    for name, value in module.named_parameters():
        noise = torch.randn(value.shape, generator=rng)
        is_norm = "norm" in name and name.endswith("weight")
        fan_in = value[0].numel() if value.ndim > 1 else 1
        value.data = 1 + 0.2 * noise if is_norm else noise * (fan_in**-0.5 if value.ndim > 1 else 0.2)
    return module.eval()


def close(ours: Tensor, theirs: Tensor, tolerance: float = 1e-5) -> bool:
    return float((ours - theirs).abs().max() / theirs.abs().max()) <= tolerance


# TimeSformer


def their_config(kind: AttentionKind) -> Any:
    return transformers.TimesformerConfig(
        image_size=32, num_frames=3, patch_size=8, hidden_size=36, num_hidden_layers=2, num_attention_heads=3,
        intermediate_size=108, attention_type=KINDS[kind], num_labels=5,
    )  # fmt: skip


def our_classifier(kind: AttentionKind) -> Classifier:
    encoder = TimeSformerSpec(width=36, depth=2, heads=3, patch=8, mlp_ratio=3.0, attention=kind)
    return ClassifierSpec(encoder=encoder, pooling="class").build(CLIP, 5)


def logits_alike(ours: Classifier, theirs: Any) -> bool:
    """With attention in space alone transformers does not average the frames of a clip: its rows are of each frame."""
    pixels = torch.randn(2, 3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    encoder = ours.encoder
    assert isinstance(encoder, TimeSformer)
    video = encoder.normalise.inverse(pixels)
    if theirs.config.attention_type == "space_only":
        frames = video.transpose(1, 2).flatten(0, 1).unsqueeze(2)
        mine = ours.head(encoder.with_class(frames)[1])
    else:
        mine = ours(video)
    return close(mine, theirs(pixels.transpose(1, 2)).logits)


@kinds
@torch.inference_mode()
def test_their_timesformer_has_the_same_logits_here(kind: AttentionKind, tmp_path: Path) -> None:
    theirs = filled(transformers.TimesformerForVideoClassification(their_config(kind)))
    theirs.save_pretrained(tmp_path)
    ours = our_classifier(kind)
    ours.load_state_dict(from_theirs(load_file(tmp_path / WEIGHTS), HUGGINGFACE), strict=True)
    assert logits_alike(ours.eval(), theirs)


@kinds
@torch.inference_mode()
def test_our_timesformer_has_the_same_logits_there(kind: AttentionKind, tmp_path: Path) -> None:
    ours = filled(our_classifier(kind))
    their_config(kind).save_pretrained(tmp_path)
    flat = {name: value.contiguous() for name, value in to_theirs(ours.state_dict(), HUGGINGFACE).items()}
    save_file(flat, tmp_path / WEIGHTS, metadata={"format": "pt"})
    model, info = transformers.TimesformerForVideoClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
    assert logits_alike(ours, model.eval())


# 2-D Swin

SWIN: Final = SwinSpec(
    width=12, depth=5, heads=2, stages=(SwinStage(start=2), SwinStage(start=3)), window=(4, 3, 3), mlp_ratio=3.0
)


@pytest.fixture(scope="module")
def swin_2d() -> Any:
    config = transformers.SwinConfig(
        image_size=48, patch_size=4, embed_dim=12, depths=[2, 1, 2], num_heads=[2, 4, 8], window_size=3, mlp_ratio=3.0,
        drop_path_rate=0.0,
    )  # fmt: skip
    return filled(transformers.SwinModel(config))


@pytest.fixture(scope="module")
def on_disk(swin_2d: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    folder = tmp_path_factory.mktemp("swin")
    swin_2d.save_pretrained(folder)
    weights: dict[str, Tensor] = load_file(folder / WEIGHTS)
    return weights


@pytest.fixture(scope="module")
def image() -> Tensor:
    return torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(2))


def built(spec: SwinSpec, state: dict[str, Tensor], how: Inflation = "mean") -> Swin:
    encoder = Swin(spec, ClipShape(frames=8, size=48), final_norm=True)
    encoder.load_state_dict(inflated(state, spec, how=how), strict=True)
    return encoder.eval()


@torch.inference_mode()
def test_an_image_has_the_features_of_their_swin(swin_2d: Any, on_disk: dict[str, Tensor], image: Tensor) -> None:
    state = from_huggingface_2d(on_disk)
    encoder = built(SWIN, state)
    embed = PatchEmbed(SWIN.width, Cube(1, 4, 4), normed=True, norm_eps=SWIN.norm_eps)
    embed.load_state_dict(image_embedding(state), strict=True)
    stages = encoder.stage_tokens(encoder.normalise.inverse(image.unsqueeze(2)), embed=embed)
    found = swin_2d(image, output_hidden_states=True)
    assert close(encoder.norm(stages[-1]), found.last_hidden_state)


@pytest.mark.parametrize("window", [(4, 3, 3), (2, 3, 3), (8, 3, 3)], ids=str)
@pytest.mark.parametrize("how", ["mean", "centre"])
@torch.inference_mode()
def test_every_frame_of_a_still_clip_has_the_features_of_the_image(
    window: tuple[int, int, int], how: Inflation, swin_2d: Any, on_disk: dict[str, Tensor], image: Tensor
) -> None:
    encoder = built(replace(SWIN, window=window), from_huggingface_2d(on_disk), how)
    still = encoder.normalise.inverse(image.unsqueeze(2)).expand(-1, -1, 8, -1, -1)
    frames = encoder(still).unflatten(1, (4, -1))
    wanted = swin_2d(image).last_hidden_state
    assert all(close(frame, wanted) for frame in frames.unbind(1))


def test_the_authors_names_of_a_2d_swin_are_read_too(on_disk: dict[str, Tensor]) -> None:
    state = from_huggingface_2d(on_disk)
    theirs = to_official(state, ENCODER)
    theirs |= {"head.weight": torch.zeros(3, 48), "layers.0.blocks.1.attn_mask": torch.zeros(1)}
    theirs |= {"layers.0.blocks.1.attn.relative_position_index": torch.zeros(9, 9)}
    back = from_authors_2d(theirs)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) for name in back)


@torch.inference_mode()
def test_tables_are_stretched_to_windows_of_other_sides(on_disk: dict[str, Tensor]) -> None:
    state = from_huggingface_2d(on_disk)
    name = "stages.0.blocks.0.attention.table"
    wider = inflated(state, replace(SWIN, window=(4, 6, 6)))[name]
    assert len(wider) == 7 * 11 * 11
    assert torch.equal(wider[: 11 * 11], wider[-11 * 11 :])
    assert torch.equal(inflated(state, SWIN)[name][:25], state[name])
