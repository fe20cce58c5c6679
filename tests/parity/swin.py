"""Video Swin and BEVT's backbone as ours, built from the metadata of a golden case."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from golden import Case
from tubelet.methods.classifier import Classifier, ClassifierSpec
from tubelet.models.swin.layers import PatchEmbed
from tubelet.models.swin.model import Swin, SwinSpec, SwinStage
from tubelet.nn.windows import WindowRule
from tubelet.types import ClipShape, Cube
from tubelet.weights.swin.names import (
    BEVT_ENCODER,
    BEVT_IMAGE_EMBEDDING,
    CLASSIFIER,
    with_frame_axis,
    without_fixed,
)
from tubelet.weights.tensors.rename import Pairs, from_official, to_official


def spec_of(backbone: dict[str, Any], rule: WindowRule) -> SwinSpec:
    """Every option of the settings has its field, or is asserted to be what our model always does."""
    assert backbone["qkv_bias"] is True
    assert backbone["drop_path_rate"] == 0.0
    tubelet, patch, across = backbone["patch_size"]
    assert patch == across
    first, *later = backbone["num_heads"]
    starts = [sum(backbone["depths"][: stage + 1]) for stage in range(len(later))]
    return SwinSpec(
        width=backbone["embed_dim"],
        depth=sum(backbone["depths"]),
        heads=first,
        stages=tuple(SwinStage(start=start, heads=heads) for start, heads in zip(starts, later, strict=True)),
        window=tuple(backbone["window_size"]),
        window_rule=rule,
        patch=patch,
        tubelet=tubelet,
        patch_norm=backbone["patch_norm"],
        mlp_ratio=backbone["mlp_ratio"],
    )


def whole_clip(spec: SwinSpec) -> ClipShape:
    """A clip that the model can be built for; its stages take videos of any size."""
    return ClipShape(frames=spec.tubelet, size=spec.cube.height)


def build_classifier(case: Case, rule: WindowRule) -> Classifier:
    """In eval mode, with the authors' weights."""
    spec = spec_of(case.meta["config"]["backbone"], rule)
    built = ClassifierSpec(encoder=spec, pooling="normed_mean").build(whole_clip(spec), case.meta["config"]["classes"])
    built.load_state_dict(from_official(without_fixed(case.weight), CLASSIFIER), strict=True)
    return built.eval()


def build_streams(case: Case) -> tuple[Swin, PatchEmbed]:
    """BEVT's shared encoder with its embedding of videos, and the embedding of images."""
    spec = spec_of(case.meta["config"]["backbone"], "released")
    config = case.meta["config"]
    clip = ClipShape(frames=config["frames"], size=config["size"])
    encoder = spec.assemble(clip, final_norm=True, masked=True)
    encoder.load_state_dict(from_official(only(without_fixed(case.weight), encoder), BEVT_ENCODER), strict=True)
    image = PatchEmbed(spec.width, Cube(1, spec.patch, spec.patch), normed=spec.patch_norm, norm_eps=spec.norm_eps)
    own = {name: value for name, value in case.weight.items() if name.startswith("backbone.patch_embed_2d.")}
    image.load_state_dict(with_frame_axis(from_official(own, BEVT_IMAGE_EMBEDDING)), strict=True)
    return encoder.eval(), image.eval()


def only(weights: dict[str, Tensor], encoder: Swin) -> dict[str, Tensor]:
    """Of BEVT's weights those of the shared encoder."""
    names = to_official(encoder.state_dict(), BEVT_ENCODER)
    return {name: weights[name] for name in names}


def gradients(module: nn.Module, pairs: Pairs) -> dict[str, Tensor]:
    """By the authors' names."""
    ours = {name: value.grad for name, value in module.named_parameters() if value.grad is not None}
    return to_official(ours, pairs)
