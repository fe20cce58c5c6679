"""The runs that `scripts/losses.py` records: commands of tubelet, small enough to take seconds on a processor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True)
class Run:
    """A command of tubelet without `--out`, its name, and the runs that must be there first.

    `parts` are the folders of its stages. `stopped`: it is stopped by SIGTERM, then by SIGKILL, and gone on with.
    """

    name: str
    words: tuple[str, ...]
    needs: tuple[str, ...] = ()
    ranks: int = 1
    stopped: bool = False
    parts: tuple[str, ...] = (".",)


QUICK: Final = (
    *("run.device=cpu", "run.precision=fp32", "run.threads=1", "run.log_every=1", "run.save_every=4"),
    *("run.batch_size=4", "schedule.epochs=2", "schedule.warmup_epochs=1", "data.workers=0", "optim.lr=0.1"),
)
VIT: Final = (
    *("clip.frames=4", "clip.size=32", "model.encoder.width=24", "model.encoder.depth=2", "model.encoder.heads=2"),
    *("model.encoder.patch=8", "model.encoder.drop_path=0.1"),
)
MVIT: Final = (
    *("clip.frames=4", "clip.size=64", "model.encoder.width=8", "model.encoder.depth=3", "model.encoder.heads=1"),
    *("model.encoder.stages=[{start: 1}, {start: 2}]", "model.encoder.drop_path=0.1"),
)
DECODER: Final = ("model.decoder.width=16", "model.decoder.depth=2", "model.decoder.heads=2")
PREDICTOR: Final = ("model={kind: masked_predictor, encoder: {kind: vit}}", *VIT)
AUTOENCODER: Final = (*VIT, *DECODER, "mask.ratio=0.75", "data.augment.flip=0.5")
MANY_TOKENS: Final = ("clip.frames=8", "clip.size=64", "model.encoder.patch=4", "mask.ratio=0.8")
"""More than 320, so that attention in bf16 is computed by the package itself."""
GIANT: Final = (
    *("model.encoder.layer_scale=0.1", "model.encoder.cosine_attention=true", "model.encoder.checkpointing=1"),
    *("model.encoder.learnable_positions=true", "model.decoder.checkpointing=true", "optim.clip_grad=0.02"),
)
VARIED: Final = "data.augment={crop: random_resized_crop, flip: 0.5, colour: {}, randaugment: {}, erase: {}}"
MIXED_CLIPS: Final = ("mixing.mixup=0.8", "mixing.cutmix=1.0", "mixing.probability=1.0", "mixing.smoothing=0.1")
TUNED: Final = (
    *(*VIT, *MIXED_CLIPS),
    *("optim.layer_decay=0.75", "ema=0.9", "model.dropout=0.1", "model.init_scale=1"),
)
SOURCES: Final = (
    "data.sources=[{videos: one.txt, weight: 2, sampler: {kind: strided, stride: 1}}, "
    "{videos: two.txt, segment_seconds: 0.4, augment: {crop: random_resized_crop, flip: 0.5}}, "
    "{videos: by-class, weight: 0.5}]"
)
FROM_VIDEOMAE: Final = ("target=features", "target.teacher=runs/videomae")
VIDEOS: Final = ("--data", "videos")
IMAGES: Final = ("--data", "images", "clip.frames=1", "model.encoder.tubelet=1")
LABELS: Final = ("--train", "by-class", "--val", "by-class")

TINY: Final = "videomae-ti-cpu-pretrain"
TINY_V2: Final = "videomae-v2-ti-cpu-pretrain"
MASKFEAT: Final = "maskfeat-ti-cpu-pretrain"
MASKFEAT_OF_IMAGES: Final = "maskfeat-b-in1k-1600-pretrain"
TUNE: Final = "videomae-ti-cpu-finetune"
TUNE_MASKFEAT: Final = "maskfeat-ti-cpu-finetune"


def _pretrain(name: str, recipe: str, *changes: str, data: tuple[str, ...] = VIDEOS, **more: Any) -> Run:
    return Run(name, ("pretrain", recipe, *QUICK, *changes, *data), **more)


def _finetune(name: str, recipe: str, *changes: str, start: str | None = None, **more: Any) -> Run:
    # torchrun takes --start for an option of its own, cut short
    where, needs = ((), ()) if start is None else ((f"start=runs/{start}",), (start,))
    return Run(name, ("finetune", recipe, *QUICK, *changes, *where, *LABELS), needs=needs, **more)


VIDEOMAE: Final = (
    _pretrain("videomae", TINY, *AUTOENCODER, "data.views=2", "run.accumulate=2"),
    _pretrain("videomae-random", TINY, *AUTOENCODER, "mask=random", "mask.ratio=0.8", "target=pixels", "--seed", "7"),
    _pretrain("videomae-frame", TINY, *AUTOENCODER, "mask=frame", "mask.ratio=0.5", "target=frame_pixels"),
    _pretrain("videomae-bf16", TINY, *AUTOENCODER, *MANY_TOKENS, "schedule.epochs=1", "run.precision=bf16"),
    _pretrain("videomae-again", TINY, *AUTOENCODER, "--start", "runs/videomae", needs=("videomae",)),
    _pretrain("v2-cell", TINY_V2, *AUTOENCODER),
    _pretrain("v2-decoded", TINY_V2, *AUTOENCODER, "loss_on=decoded", "decode.ratio=0.25"),
    _pretrain("v2-giant", TINY_V2, *AUTOENCODER, *GIANT, "decode=random"),
    _pretrain("images", TINY, *AUTOENCODER, VARIED, data=IMAGES),
    _pretrain("mixed", TINY, *AUTOENCODER, SOURCES, "data.workers=2", "data.cache=cache", data=()),
    _pretrain("stopped", TINY, *AUTOENCODER, "schedule.epochs=30", "data.workers=1", stopped=True),
)
FINE: Final = (*MVIT, "model.encoder.last_stage_stride=1", "mask=cube", "mask.cell=[1, 1, 1]")
BLOCKS: Final = ("target.norm=block2", "target.cell=4", "target.frames=all")
MASKFEATS: Final = (
    _pretrain("maskfeat-mvit", MASKFEAT, *FINE),
    _pretrain("maskfeat-mvit-bf16", MASKFEAT, *FINE, "run.accumulate=2", "run.precision=bf16"),
    _pretrain("maskfeat-vit", MASKFEAT, *PREDICTOR, "mask=cube", *BLOCKS),
    _pretrain("maskfeat-pixels", MASKFEAT, *PREDICTOR, "mask=tube", "target=normalised_pixels"),
    _pretrain("maskfeat-images", MASKFEAT_OF_IMAGES, *VIT, "run.accumulate=1", data=IMAGES),
)
FINETUNED: Final = (
    _finetune("finetune", TUNE, *TUNED, VARIED, start="videomae"),
    _finetune("finetune-scratch", TUNE, *VIT, "model.pooling=first", "data.views=2", "run.accumulate=2"),
    _finetune("finetune-mvit", TUNE_MASKFEAT, *MVIT, "optim.layer_decay=0.75", start="maskfeat-mvit"),
    Run("evaluate", ("evaluate", "runs/finetune", "by-class", "--clips", "2", "--crops", "3"), needs=("finetune",)),
)
SMALLER: Final = ("model.encoder.width=16", "model.init_scale=1", "distill.label_weight=0.5", "mixing.mixup=0.8")
TAUGHT: Final = (
    _pretrain("features", TINY, *AUTOENCODER, *FROM_VIDEOMAE, needs=("videomae",)),
    _pretrain("features-predictor", MASKFEAT, *PREDICTOR, "mask=random", *FROM_VIDEOMAE, needs=("videomae",)),
    _pretrain(
        "pseudo-labels",
        TINY,
        *AUTOENCODER,
        *("target=pseudo_labels", "target.teacher=runs/finetune"),
        needs=("finetune",),
    ),
    Run(
        "distill",
        ("finetune", TUNE, *QUICK, *VIT, *SMALLER, *LABELS, "--teacher", "runs/finetune"),
        needs=("finetune",),
    ),
)
SEVERAL: Final = (
    Run("stages", ("run", "stages.yaml"), parts=(".", "1-first", "2-post", "3-target")),
    _pretrain("ddp", MASKFEAT, *PREDICTOR, "mask=cube", "run.parallel=ddp", ranks=2),
    _pretrain("fsdp", TINY_V2, *AUTOENCODER, "run.parallel=fsdp", "data.workers=1", ranks=2),
    _finetune("fsdp-finetune", TUNE, *TUNED, "run.parallel=fsdp", start="videomae", ranks=2),
)
RUNS: Final = (*VIDEOMAE, *MASKFEATS, *FINETUNED, *TAUGHT, *SEVERAL)
"""In an order in which each comes after those that it needs."""

_STAGE: Final = ", ".join(f'"{change}"' for change in (*QUICK, *VIT))
_AUTOENCODER: Final = ", ".join(f'"{change}"' for change in (*DECODER, "mask.ratio=0.75"))
STAGES: Final = f"""
kind: progressive
name: stages
stages:
  - name: first
    recipe: {TINY}
    changes: [{_STAGE}, {_AUTOENCODER}, "data.sources=[{{videos: one.txt}}, {{videos: two.txt}}]"]
  - name: post
    recipe: {TUNE}
    changes: [{_STAGE}, "data.sources=[{{train: a.csv}}, {{train: b.csv}}]"]
  - name: target
    recipe: {TUNE}
    changes: [{_STAGE}, "data.train=target", "data.val=target", "start_head=same_classes"]
    evaluate: true
"""
"""What `stages.yaml` of the run `stages` holds."""
