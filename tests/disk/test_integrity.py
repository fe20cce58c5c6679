"""Checksums find any change of a checkpoint, and name the file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tubelet.disk.layout import MODEL_FILE, STATE_FILE
from tubelet.train.checkpoint.folder import RunState, check, newest_whole, put_aside, save, saved


def made(out: Path, step: int = 4) -> Path:
    tensors = {"weight": torch.arange(12.0).view(3, 4)}
    facts = {"recipe": {"lr": 0.1, "name": "ü"}}
    return save(RunState(step, tensors, {"exp_avg/weight": torch.ones(3, 4)}, tensors, facts), out, keep=3)


def test_every_bit_of_every_file_counts(tmp_path: Path) -> None:
    folder = made(tmp_path)
    check(folder)
    for path in folder.iterdir():
        data = path.read_bytes()
        for place in range(0, len(data), max(1, len(data) // 40)):
            path.write_bytes(data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :])
            with pytest.raises(ValueError, match=path.name.replace(".", r"\.")):
                check(folder)
        path.write_bytes(data)
    check(folder)


def test_a_sum_that_was_taken_out_is_missed(tmp_path: Path) -> None:
    folder = made(tmp_path)
    state = json.loads((folder / STATE_FILE).read_text())
    for gone in ("files", "sha256", "recipe"):
        (folder / STATE_FILE).write_text(json.dumps({name: v for name, v in state.items() if name != gone}))
        with pytest.raises(ValueError, match="checksum"):
            check(folder)


def test_the_newest_whole_one_is_found_and_damaged_ones_are_put_aside(tmp_path: Path) -> None:
    assert newest_whole(tmp_path) == (None, {})
    folders = [made(tmp_path, step) for step in (4, 8, 12)]
    for folder in folders[1:]:
        (folder / MODEL_FILE).write_bytes(b"")
    whole, damaged = newest_whole(tmp_path)
    assert whole == folders[0]
    assert list(damaged) == [folders[2], folders[1]]
    assert all(str(folder / MODEL_FILE) in why for folder, why in damaged.items())
    for _ in range(2):  # a second damaged one of the same step takes the place of the first
        assert put_aside(folders[2]).name == "step-00000012.damaged"
        assert saved(tmp_path) == folders[:2]
        made(tmp_path, 12)
    assert saved(tmp_path)[-1] == folders[2]
