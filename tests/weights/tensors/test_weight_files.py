"""Files are read, never run: what wants to run code is refused, and whatever is no checkpoint is one clear line."""

import argparse
import os
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tubelet.disk.tensors import write_tensors
from tubelet.weights.tensors.files import read_content, read_tensors

STATE = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(1)}


class Calls:
    """Unpickled, it calls a function: what a malicious checkpoint does."""

    def __init__(self, function: Callable[..., Any], *arguments: str) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, ...]]:
        return self.function, self.arguments


def refusal(path: Path) -> str:
    with pytest.raises(ValueError, match=str(path)) as error:
        read_tensors(path)
    assert "\n" not in str(error.value)
    return str(error.value)


FORMS: dict[str, Callable[[Any], Any]] = {
    "top": lambda evil: evil,
    "state": lambda evil: {**STATE, "x": evil},
    "nested": lambda evil: {"model": {**STATE, "x": evil}},
    "beside": lambda evil: {"model": STATE, "optimizer": [evil]},
    "args": lambda evil: {"model": STATE, "args": argparse.Namespace(lr=1.0, x=evil)},
    "deep": lambda evil: {"state_dict": {"module": {"x": evil}}},
}


@pytest.mark.parametrize("as_zip", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("function", ["system", "eval", "exec", "open", "getattr"])
def test_a_pickle_that_wants_to_run_code_is_refused_and_creates_nothing(
    tmp_path: Path, function: str, form: str, as_zip: bool
) -> None:
    made = tmp_path / "made"
    evil = {
        "system": Calls(os.system, f"touch {made}"),
        "eval": Calls(eval, f"open({str(made)!r}, 'w')"),
        "exec": Calls(exec, f"open({str(made)!r}, 'w')"),
        "open": Calls(open, str(made), "w"),
        "getattr": Calls(getattr, "x", "upper"),
    }[function]
    path = tmp_path / "weights.pth"
    torch.save(FORMS[form](evil), path, _use_new_zipfile_serialization=as_zip)
    line = refusal(path)
    assert "refused: to load it would call" in line
    assert function in line
    assert "torch.save({'model'" in line, "no word on how to convert it"
    assert not made.exists()


def test_the_malicious_pickles_of_these_tests_do_run_where_nothing_stops_them(tmp_path: Path) -> None:
    torch.save({"model": Calls(os.system, f"touch {tmp_path / 'made'}")}, tmp_path / "weights.pth")
    torch.load(tmp_path / "weights.pth", weights_only=False)
    assert (tmp_path / "made").exists()


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("ending", [".pth", ".bin", ".pyth", ".safetensors", ""])
def test_plain_pickles_of_any_protocol_and_ending_are_not_run(tmp_path: Path, protocol: int, ending: str) -> None:
    path = tmp_path / f"weights{ending}"
    path.write_bytes(pickle.dumps(Calls(os.system, f"touch {tmp_path / 'made'}"), protocol=protocol))
    refusal(path)
    assert not (tmp_path / "made").exists()


def test_a_pickled_network_is_refused_by_its_class(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "network.pth")
    assert "torch.nn.modules.linear.Linear" in refusal(tmp_path / "network.pth")


@pytest.mark.parametrize("as_zip", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("places", [[], ["model"], ["module"], ["state_dict"], ["state_dict", "model"]])
def test_tensors_are_found_however_they_are_nested(tmp_path: Path, places: list[str], as_zip: bool) -> None:
    content: dict[str, Any] = dict(STATE)
    for place in reversed(places):
        content = {"epoch": 3, place: content}
    torch.save(content, tmp_path / "weights.pth", _use_new_zipfile_serialization=as_zip)
    found = read_tensors(tmp_path / "weights.pth")
    assert found.keys() == STATE.keys()
    assert all(torch.equal(found[name], STATE[name]) for name in STATE)


def test_options_and_numbers_beside_the_weights_are_plain_data(tmp_path: Path) -> None:
    given = argparse.Namespace(model="vit_base_patch16_224", num_frames=16, betas=(0.9, 0.95), rate=np.float64(0.5))
    beside = {"accuracy": np.float64(0.5), "step": np.int64(3), "best": np.float32(1.0), "done": np.bool_(True)}
    torch.save({"module": STATE, "args": given, **beside}, tmp_path / "weights.pth")
    assert read_content(tmp_path / "weights.pth").options == vars(given)
    torch.save({"model": STATE, "args": {"num_frames": 8}}, tmp_path / "mapping.pth")
    assert read_content(tmp_path / "mapping.pth").options == {"num_frames": 8}


def test_parameters_come_as_plain_tensors(tmp_path: Path) -> None:
    torch.save({"model": {"a": torch.nn.Parameter(torch.ones(2))}}, tmp_path / "weights.pth")
    assert not read_tensors(tmp_path / "weights.pth")["a"].requires_grad


def whole(folder: Path, *, as_zip: bool) -> bytes:
    path = folder / "whole.pth"
    torch.save({"model": {"a": torch.ones(100)}}, path, _use_new_zipfile_serialization=as_zip)
    return path.read_bytes()


@pytest.mark.parametrize("as_zip", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("kept", [0.02, 0.1, 0.5, 0.8, 0.99])
def test_a_truncated_checkpoint_is_one_line(tmp_path: Path, kept: float, as_zip: bool) -> None:
    content = whole(tmp_path, as_zip=as_zip)
    (tmp_path / "cut.pth").write_bytes(content[: max(int(kept * len(content)), 3)])
    line = refusal(tmp_path / "cut.pth")
    assert "truncated" in line or "damaged" in line


@pytest.mark.parametrize("as_zip", [True, False], ids=["zip", "legacy"])
def test_damaged_bytes_are_one_line_or_other_numbers(tmp_path: Path, as_zip: bool) -> None:
    content, lines = whole(tmp_path, as_zip=as_zip), []
    for place in [*range(0, min(len(content), 1200), 7), *range(len(content) - 200, len(content), 3)]:
        (tmp_path / "damaged.pth").write_bytes(content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :])
        try:
            read_tensors(tmp_path / "damaged.pth")
        except ValueError as error:
            lines.append(str(error))
    assert lines
    assert not any("\n" in line for line in lines)


def no_checkpoints(folder: Path) -> dict[str, str]:
    """Files that end like checkpoints and are none, each with what must be said of it."""
    (folder / "text.pth").write_text("Not found: the file you asked for is not here.\n")
    (folder / "long.pth").write_text("Ω und so weiter. " * 200)
    (folder / "page.pth").write_text("<!DOCTYPE html><html>sign in first</html>")
    (folder / "pointer.bin").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n")
    (folder / "empty.pth").write_bytes(b"")
    (folder / "folder.pth").mkdir()
    (folder / "noise.pth").write_bytes(bytes(range(255, 0, -1)))
    (folder / "video.pth").write_bytes(b"\x00\x00\x00\x18ftypmp42" + bytes(100))
    with zipfile.ZipFile(folder / "zip.pth", "w") as archive:
        archive.writestr("notes.txt", "x")
    with tarfile.open(folder / "tar.pth", "w") as tar:
        tar.add(folder / "text.pth", "x")
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(folder / "program.pth"))
    torch.save([1, 2], folder / "list.pth")
    torch.save({"model": {"a": 1}}, folder / "numbers.pth")
    torch.save({}, folder / "nothing.pth")
    return {
        "text.pth": "a text file, not a checkpoint (it begins with 'Not found",
        "long.pth": "a text file, not a checkpoint",
        "page.pth": "a web page, not a checkpoint",
        "pointer.bin": "a pointer of Git LFS",
        "empty.pth": "empty (0 bytes)",
        "folder.pth": "a folder, not a file",
        "noise.pth": "neither a PyTorch checkpoint nor safetensors",
        "video.pth": "neither a PyTorch checkpoint nor safetensors",
        "zip.pth": "a zip archive but no PyTorch checkpoint (it holds notes.txt)",
        "tar.pth": "a tar archive",
        "program.pth": "a TorchScript program, which is code",
        "list.pth": "no tensors at the top or under 'model'",
        "numbers.pth": "at model it has 'a' (int)",
        "nothing.pth": "no tensors at the top",
        "missing.pth": "no such file",
    }


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_what_is_no_checkpoint_is_one_clear_line_each(tmp_path: Path) -> None:
    for name, said in no_checkpoints(tmp_path).items():
        assert said in refusal(tmp_path / name)


def test_weights_may_be_read_by_those_whom_the_umask_lets(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_tensors(STATE, tmp_path / "new.safetensors")
        write_tensors(STATE, tmp_path / "new.safetensors")  # again, over a file
    finally:
        os.umask(before)
    assert (tmp_path / "new.safetensors").stat().st_mode & 0o777 == 0o640
