"""The tokenizer's file: tensors as they lie in a state dict, a checkpoint of BEVT, or the authors' pickled module."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from toy_dvae import authors_names, pickled_as_the_authors_do, toy_dvae, write_dvae

from tubelet.models.tokenizers.dvae import DvaeEncoder, DvaeSpec
from tubelet.weights.dalle import read_dvae

SPEC = DvaeSpec(width=8, groups=3, blocks=2, vocabulary=9)


def assert_same(found: DvaeEncoder, path: Path) -> None:
    expected = toy_dvae(SPEC).state_dict()
    assert found.spec == SPEC, path
    assert found.state_dict().keys() == expected.keys()
    assert all(value.equal(expected[name]) for name, value in found.state_dict().items())
    assert not found.training


def test_tensors_are_read_from_wherever_they_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = authors_names(toy_dvae(SPEC))
    decoder = {"decoder.blocks.input.w": torch.zeros(4, 9, 1, 1)}
    save_file(state, tmp_path / "plain.safetensors")
    save_file({**{f"encoder.{name}": value for name, value in state.items()}, **decoder}, tmp_path / "both.safetensors")
    bevt = {f"cls_head.vae_encoder.{name}": value for name, value in state.items()}
    torch.save({"state_dict": {"backbone.norm.weight": torch.ones(2), **bevt}}, tmp_path / "bevt.pth")
    pickled_as_the_authors_do(toy_dvae(SPEC), tmp_path / "encoder.pkl", monkeypatch)
    assert "dall_e" not in sys.modules
    for path in sorted(tmp_path.iterdir()):
        assert_same(read_dvae(path), path)
    assert "dall_e" not in sys.modules


class _Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("run",)


def test_nothing_in_a_file_is_executed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"state_dict": authors_names(toy_dvae(SPEC)), "more": _Evil()}, tmp_path / "evil.pkl")
    with pytest.raises(ValueError, match=r"to load it would call .*print") as error:
        read_dvae(tmp_path / "evil.pkl")
    assert "re-save the weights" in str(error.value)
    assert capsys.readouterr().out == ""


def test_what_is_no_encoder_is_refused_in_one_line(tmp_path: Path) -> None:
    state = authors_names(toy_dvae(SPEC))
    part = {name: value for name, value in state.items() if not name.startswith("blocks.output")}
    less = {name: value for name, value in state.items() if "group_2.block_1.res_path.conv_3.b" not in name}
    cases = {
        "the decoder of DALL-E's": {**state, "blocks.input.w": torch.zeros(4, 9, 1, 1)},
        "lacks blocks.output.conv.w": part,
        "lacks groups.2.1.convs.3.bias": less,
        "no rule knows blocks.more.w": {**state, "blocks.more.w": torch.zeros(1)},
        "no blocks.input.w in it, but a": {"a": torch.zeros(1)},
    }
    for said, tensors in cases.items():
        save_file(tensors, tmp_path / "wrong.safetensors")
        with pytest.raises(ValueError, match=said) as error:
            read_dvae(tmp_path / "wrong.safetensors")
        assert "\n" not in str(error.value)


def test_half_precision_is_taken_as_float32(tmp_path: Path) -> None:
    save_file({name: value.half() for name, value in authors_names(toy_dvae(SPEC)).items()}, tmp_path / "half")
    assert read_dvae(tmp_path / "half").stem.weight.dtype == torch.float32


def test_pictures_that_do_not_divide_are_refused(tmp_path: Path) -> None:
    write_dvae(SPEC, tmp_path / "dvae")
    with pytest.raises(ValueError, match="no multiple of 4"):
        read_dvae(tmp_path / "dvae")(torch.zeros(1, 3, 8, 6))
