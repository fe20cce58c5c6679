"""`tubelet plan` prints what the plan says, as text or JSON."""

from __future__ import annotations

import json
from typing import Final

import pytest

from tubelet.cli import main
from tubelet.cli.plan import weighed

H100 = ["plan", "videomae-b-k400-800-pretrain", "--gpus", "8", "--device", "H100", "--videos", "240000"]


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    assert stop.value.code in (0, None)
    return capsys.readouterr().out


def test_text_has_all_that_was_asked(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, *H100, "--mfu", "0.4")
    for wanted in (
        "94.21 M (encoder 86.23 M, decoder 7.98 M)",
        "8 x 14 x 14 = 1,568; the encoder sees 160, the decoder predicts 1,408",
        "a clip in training 199.7 G",
        "8 x H100, 80 GB, 989.4 TFLOP/s in bf16 (data sheet), of which 40% assumed (--mfu)",
        "2,048 videos a step; 256 clips on each device in 32 pieces of 8",
        "ddp: ",
        "fsdp: ",
        "run.accumulate=1 is enough",
        "the decoder too (model.decoder.checkpointing=true)",
        "1 x H100: one clip in a piece",
        "the first process holds all weights, 0.38 GB",
        "93,600 steps, 117 an epoch",
        "device hours",
    ):
        assert wanted in text


def test_json_has_the_same_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    facts = json.loads(printed(capsys, *H100, "--json"))
    assert facts["parameters"]["total"] == 94_210_944
    assert (facts["tokens"]["seen"], facts["tokens"]["wanted"]) == (160, 1408)
    assert facts["flops"]["forward"] == sum(part["forward"] for part in facts["flops"]["parts"])
    assert facts["devices"]["assumed_mfu"] == 0.3
    assert [one["form"] for one in facts["memory"]] == ["ddp", "fsdp"]
    assert facts["peak_bytes"]["recomputed"] < facts["peak_bytes"]["kept"] == facts["memory"][0]["memory"]["peak"]
    assert facts["peak_bytes"]["recomputed_with_decoder"] < facts["peak_bytes"]["recomputed"]
    assert facts["fewest"]["count"] == 1
    assert facts["course"]["steps"] == 93_600
    assert facts["measured"] is None


def test_this_machine_is_measured_part_by_part(capsys: pytest.CaptureFixture[str]) -> None:
    tiny = ["model.encoder.width=32", "model.decoder.width=32", "run.batch_size=2", "run.threads=1", "clip.size=32"]
    text = printed(capsys, "plan", "videomae-ti-cpu-pretrain", *tiny, "--steps", "0")
    assert "1 x this processor with 1 thread" in text
    assert "measured matrix product" in text
    assert "head and loss" in text
    assert "how many videos?" in text


MVIT: Final = (
    "target=hog model=masked_predictor model.encoder.kind=mvit model.encoder.widen_in=mlp "
    "model.encoder.last_stage_stride=1 run.batch_size=8 run.accumulate=1"
)


def test_a_multiscale_encoder_is_planned_like_any_other(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["plan", "videomae-b-k400-800-pretrain", *MVIT.split(), "--device", "H100", "--videos", "2000"]
    text = printed(capsys, *arguments)
    for wanted in (
        "8 x 56 x 56 = 25,088; the encoder sees 25,088 and gives 8 x 14 x 14 = 1,568, with mask tokens",
        "it predicts 1,408",
        "encoder 36.",
        "one device: ",
        "recomputed (model.encoder.checkpointing=true)",
    ):
        assert wanted in text
    facts = json.loads(printed(capsys, *arguments, "--json"))
    assert facts["tokens"] == {"t": 8, "h": 56, "w": 56, "seen": 25_088, "out": 1568, "wanted": 1408}
    assert facts["flops"]["forward"] / 2e9 == pytest.approx(86.6, rel=0.005)


def test_an_image_is_planned_too(capsys: pytest.CaptureFixture[str]) -> None:
    changes = ["clip.frames=1", "model.encoder.tubelet=1", "run.accumulate=1"]
    text = printed(capsys, "plan", "videomae-b-k400-800-pretrain", *changes, "--device", "H100", "--videos", "2048")
    assert "1 frames of 224 x 224" not in text
    assert "an image of 224 x 224" in text
    assert "1 x 14 x 14 = 196; the encoder sees" in text


def test_a_mistake_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["plan", "videomae-b-k400-800-pretrain", "--device", "H100", "--gpus", "7"])
    assert stop.value.code == 2
    assert "not a multiple of the 7 devices" in capsys.readouterr().err.strip().splitlines()[-1]


def test_a_peak_that_was_not_seen_is_no_crash() -> None:
    assert (
        weighed(0, 10**6)
        == "of these steps is lost in that of Python, PyTorch and its kernels: too small to be measured"
    )
    assert weighed(2 * 10**9, 10**9) == "2 GB, estimate -50%"
