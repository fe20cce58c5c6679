"""What the report of the demo tells besides the results."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import torch

from tubelet.data.synthetic.scenes import MOTIONS
from tubelet.data.synthetic.videos import SyntheticSet
from tubelet.doctor.machine import bf16_flags, cores
from tubelet.pictures.report import Contender, Story
from tubelet.recipes.demo import PRETRAINED, Demo
from tubelet.video.lists.manifest import Manifest, read_manifest

RECONSTRUCTED: Final = 4
NEXT_STEPS: Final = (
    "Another seed: tubelet demo --seed 1 --out demo1. Videos, weights, order and masks all change.",
    "Fewer labels: delete lines of data/train.csv and train again; pre-training helps the most where labels are few.",
    "Hide more or less: tubelet pretrain .../pretrained/recipe.yaml mask.ratio=0.75 --out more-hidden",
    "Your own videos: tubelet pretrain videomae-s-small-pretrain --data FOLDER --out runs/pretrained",
)


def story_of(
    demo: Demo, out: Path, data: SyntheticSet, *, contenders: tuple[Contender, ...], seconds: Mapping[str, float]
) -> Story:
    """The story of a finished demo in `out`. Examples are the first test video of each class."""
    test = read_manifest(data.test, labelled=True)
    held_out = tuple(video.path for video in test.videos[len(MOTIONS) : len(MOTIONS) + RECONSTRUCTED])
    return Story(
        title="Tubelet demo: what masked pre-training is good for",
        contenders=contenders,
        pretrained=out / PRETRAINED,
        chance=1 / len(MOTIONS),
        examples=_examples(test),
        held_out=held_out,
        facts=_facts(demo),
        seconds=tuple(seconds.items()),
        commands=_commands(demo, out, data, held_out[0]),
        next_steps=NEXT_STEPS,
    )


def _examples(test: Manifest) -> tuple[tuple[str, Path], ...]:
    names = list(MOTIONS)
    first: dict[str, Path] = {}
    for video in test.videos:
        assert video.label is not None
        first.setdefault(names[video.label], video.path)
    return tuple((name, first[name]) for name in names if name in first)


def _facts(demo: Demo) -> tuple[tuple[str, str], ...]:
    clip, encoder, videos = demo.pretrain.clip, demo.pretrain.model.encoder, demo.videos
    cube = encoder.cube
    clips = demo.pretrain.schedule.epochs * videos.unlabelled * demo.pretrain.data.views
    bf16 = ", ".join(bf16_flags()) or "no bf16 instructions"
    return (
        ("videos", f"{videos.unlabelled:,} unlabelled, {videos.train:,} labelled to train on, {videos.test:,} to test"),
        ("one video", f"H.264, {videos.frames} frames of {videos.size} x {videos.size} at {videos.fps} a second"),
        ("clip", f"{clip.frames} frames of {clip.size} x {clip.size}"),
        ("model", f"ViT, width {encoder.width}, {encoder.depth} layers, cubes {cube.frames} x {cube.height}²"),
        ("pre-training", f"{clips:,} clips, mask {demo.pretrain.mask!r}, loss on normalised pixels"),
        ("training on labels", f"{demo.finetune.schedule.epochs} epochs; the same for both but layer decay: "
         f"{demo.finetune.optim.layer_decay} from pre-trained weights, none from scratch"),
        ("seed", str(demo.seed)),
        ("machine", f"{_processor()}, {cores()} cores, {bf16}"),
        ("software", f"Python {platform.python_version()}, PyTorch {torch.__version__}"),
    )  # fmt: skip


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _commands(demo: Demo, out: Path, data: SyntheticSet, video: Path) -> tuple[str, ...]:
    return (
        f"tubelet demo --out {out} --seed {demo.seed}",
        "",
        "# its steps, into other folders",
        f"tubelet pretrain {out}/pretrained/recipe.yaml --out again/pretrained",
        f"tubelet finetune {out}/finetuned/recipe.yaml --start again/pretrained --out again/finetuned",
        f"tubelet finetune {out}/scratch/recipe.yaml --out again/scratch",
        f"tubelet evaluate again/finetuned {data.test}",
        f"tubelet evaluate again/scratch {data.test}",
        f"tubelet reconstruct {video} --from again/pretrained --out strip.png",
    )
