"""Images from the command line, as videos of one frame: pre-training to predictions, resuming, and what is refused."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from image_files import encoded, picture, write_image_set
from toy_claims import assert_goes_on, say
from toy_run import Notes, log_lines, pretrain_recipe
from video_files import write_video

from tubelet.methods.predictor import MaskedPredictorSpec
from tubelet.models.vit import ViTSpec
from tubelet.recipe import PretrainRecipe, override
from tubelet.runs.pretrain import pretrain
from tubelet.spec import replace
from tubelet.types import ClipShape

VIT = ViTSpec(width=24, depth=1, heads=2, patch=8, tubelet=1)
ENCODER = (*(f"model.encoder.{name}={getattr(VIT, name)}" for name in ("width", "depth", "heads", "patch", "tubelet")),)
SHAPE = ("clip.frames=1", "clip.size=32", "data.workers=0", "run.device=cpu", "run.precision=fp32", "run.threads=1")
SHORT = ("run.batch_size=4", "run.log_every=1", "schedule.epochs=1", "schedule.warmup_epochs=0")
TINY = (*ENCODER, *SHAPE, *SHORT)
DECODER = ("model.decoder.width=16", "model.decoder.depth=1", "model.decoder.heads=2")
EVERYTHING = (
    "data.augment={crop: random_resized_crop, flip: 0.5, colour: {}, randaugment: {}, erase: {probability: 1.0}}"
)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_image_set(tmp_path / "train", each=4)
    write_image_set(tmp_path / "val", each=2)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def predictor(videos: Path, *changes: str) -> PretrainRecipe:
    """MaskFeat's shape on images: 4 x 4 patches, of which the encoder sees mask tokens for hidden ones."""
    toy = replace(pretrain_recipe(), clip=ClipShape(frames=1, size=32), model=MaskedPredictorSpec(encoder=VIT))
    return override(toy, ["mask=block_tube", "mask.ratio=0.4", "target=hog", f"data.videos={videos}", *changes])


def test_every_command_takes_images(here: Path) -> None:
    say("pretrain", "videomae-ti-cpu-pretrain", "--data", "train", "--out", "pre", *TINY, *DECODER, EVERYTHING)
    assert len(log_lines(here / "pre")) == 2
    mixed = ("mixing.mixup=0.8", "mixing.cutmix=1.0", "data.views=2", "data.cache=cache", EVERYTHING)
    training = ("--train", "train", "--val", "val", "--start", "pre", "--out", "fine")
    said = say("finetune", "videomae-ti-cpu-finetune", *training, *TINY, *mixed)
    assert "8 labelled videos of 2 classes" in said
    assert "fresh: fc_norm.weight, fc_norm.bias, head.weight, head.bias" in said
    assert "top-1" in say("evaluate", "fine", "val", "--clips", "1", "--crops", "1")
    image = "val/n02102040/n02102040_10.JPEG"
    assert "n02102040" in say("predict", image, "--from", "fine", "--top", "2")
    say("embed", "val", "--from", "pre", "--out", "store.parquet", "--device", "cpu", "--window", "2")
    say("search", image, "--in", "store.parquet", "--device", "cpu", "--json", "found.json")
    best = json.loads((here / "found.json").read_text())["hits"][0]
    assert (best["name"], best["start_seconds"], best["end_seconds"]) == ("n02102040/n02102040_10.JPEG", 0.0, 0.0)
    assert "knn" in say("probe", "pre", "--train", "train", "--val", "val", "--device", "cpu", "--kind", "knn")
    say("reconstruct", image, "--from", "pre", "-o", "strip.png", "--mp4", "strip.mp4")
    assert (here / "strip.mp4").is_file()
    assert "8 files: 8 readable (8 frames), none broken" in say("check", "train", "--images", "--workers", "1")


@pytest.mark.parametrize("rule", ["block_tube", "random", "cube", "tube"])
def test_a_masked_predictor_of_hog_learns_from_images_and_can_be_tuned(rule: str, here: Path) -> None:
    pretrain(predictor(here / "train", f"mask={rule}", "mask.ratio=0.4"), here / "pre", Notes())
    losses = [json.loads(line)["loss"] for line in (here / "pre/log.jsonl").read_text().splitlines()]
    assert len(losses) == 6
    assert losses[-1] < losses[0]
    said = say("finetune", "videomae-ti-cpu-finetune", "--train", "train", "--start", "pre", "--out", "fine", *TINY)
    assert "5 of the file not used" in said


@pytest.mark.parametrize("rule", ["block_tube", "random"])
def test_stopping_and_going_on_changes_nothing(rule: str, here: Path) -> None:
    toy = predictor(here / "train", f"mask={rule}", "mask.ratio=0.5", EVERYTHING, "run.accumulate=2")
    assert_goes_on(toy, here, step=3)


def test_the_cache_and_other_processes_change_nothing(here: Path) -> None:
    plain, others = predictor(here / "train"), (f"data.cache={here / 'cache'}", "data.workers=2")
    pretrain(plain, here / "plain", Notes())
    for run in ("filling", "filled"):
        pretrain(override(plain, others), here / run, Notes())
        assert log_lines(here / run) == log_lines(here / "plain")
    assert len(list((here / "cache").rglob("*.npy"))) == 8


def test_a_broken_image_is_named_counted_and_capped(here: Path) -> None:
    (here / "train/n01440764/half.jpg").write_bytes(encoded(picture(0, (256, 256)), ".jpg")[:1500])
    notes = Notes()
    pretrain(predictor(here / "train", "schedule.epochs=2"), here / "run", notes)
    with (here / "run/skipped.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["path"].endswith("half.jpg")
    assert "truncated" in row["reason"]
    with pytest.raises(ValueError, match=r"half\.jpg|max_skipped"):
        pretrain(predictor(here / "train", "data.max_skipped=0"), here / "strict", Notes())


def test_what_lies_beside_images_is_said(here: Path) -> None:
    (here / "train/notes.txt").write_text("hello")
    write_video(here / "train/n01440764/a.mp4")
    notes = Notes()
    pretrain(predictor(here / "train"), here / "run", notes)
    assert any("passed by 1 file without the ending of an image: notes.txt" in line for line in notes.lines)
    assert any("8 images, and 1 video, such as n01440764/a.mp4" in line for line in notes.lines)
    assert notes.facts[0].videos == 9


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("pretrain", "videomae-ti-cpu-pretrain", "--data", "list.txt"), "list.txt, line 1: train/n01440764/n014"),
        (("finetune", "videomae-ti-cpu-finetune", "--train", "labelled.csv"), "an image, where videos are wanted"),
        (("finetune", "videomae-ti-cpu-finetune", "--train", "train"), "lies beside the class folders"),
        (("pretrain", "videomae-ti-cpu-pretrain", "--data", "loose"), "it holds 1 image: images are for recipes"),
        (("pretrain", "videomae-ti-cpu-pretrain", "--data", "texts", "clip.frames=1", "model.encoder.tubelet=1"),
         "texts: no images in this folder"),
        (("pretrain", "videomae-ti-cpu-pretrain", "--data", "train", "clip.frames=1"), "not a multiple of the tubelet"),
        (("pretrain", "maskfeat-ti-cpu-pretrain", "--data", "train", "clip.frames=1"),
         "change it, or model.encoder.patch_stride"),
        (("pretrain", "videomae-ti-cpu-pretrain", "--data", "train", "mask=frame", *TINY, *DECODER), "hides nothing"),
        (("prepare", "list.txt", "out"), "an image, where videos are wanted"),
        (("prepare", "loose", "out"), "no videos in this folder"),
        (("check", "list.txt"), "tubelet check --images"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(words: tuple[str, ...], why: str, here: Path) -> None:
    images = [path.relative_to(here).as_posix() for path in sorted((here / "train").rglob("*.JPEG"))]
    (here / "list.txt").write_text("".join(f"{path}\n" for path in images))
    (here / "labelled.csv").write_text("".join(f"{path},{place % 2}\n" for place, path in enumerate(images)))
    (here / "loose").mkdir()
    (here / "loose/photo.jpg").write_bytes((here / images[0]).read_bytes())
    (here / "texts").mkdir()
    (here / "texts/notes.txt").write_text("hello")
    out = () if words[0] in ("prepare", "check") else ("--out", "run")
    said = say(*words, *out, code=2)
    assert why in said
    assert len(said.strip().splitlines()) == 1
