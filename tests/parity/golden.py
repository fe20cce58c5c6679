"""Golden arrays, made by the authors' code: in TUBELET_GOLDEN, else `../shared/golden`, else the compact copy here."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

REPOSITORY: Final = Path(__file__).parents[2]
COMPACT: Final = REPOSITORY / "tests" / "golden"


@dataclass(frozen=True)
class Case:
    """One case: its metadata, the authors' weights by their names, inputs, outputs, gradient norms."""

    meta: dict[str, Any]
    weight: dict[str, Tensor]
    input: dict[str, Tensor]
    output: dict[str, Tensor]
    grad_norm: dict[str, Tensor]

    def tolerance(self, output: str) -> dict[str, float]:
        """What the metadata allows; outputs without an entry (tables, totals) get the floor of the others."""
        given: dict[str, float] = self.meta["tolerance_per_output"].get(output, {"atol": 1e-5, "rtol": 1e-4})
        return given


def folder_for(name: str) -> Path:
    """The folder that has this file. A folder named by TUBELET_GOLDEN is the only one looked at."""
    named = os.environ.get("TUBELET_GOLDEN")
    if named and not Path(named).is_dir():
        pytest.fail(f"TUBELET_GOLDEN={named} is no folder")
    folders = [Path(named)] if named else [REPOSITORY.parent / "shared" / "golden", COMPACT]
    for folder in folders:
        if (folder / name).is_file():
            return folder
    pytest.skip(f"no golden file {name} in {', '.join(map(str, folders))}")


def load_case(stem: str) -> Case:
    """A `.safetensors` case."""
    name = f"{stem}.safetensors"
    parts: dict[str, dict[str, Tensor]] = {"weight": {}, "input": {}, "output": {}, "grad_norm": {}}
    with safe_open(folder_for(name) / name, "pt") as file:
        meta = json.loads(file.metadata()["golden"])
        for key in file.keys():  # noqa: SIM118 - not a mapping
            part, rest = key.split("/", 1)
            parts[part][rest] = file.get_tensor(key)
    return Case(meta, **parts)


def load_json(stem: str) -> Any:
    """A `.json` case: index lists, schedules, statistics."""
    name = f"{stem}.json"
    return json.loads((folder_for(name) / name).read_text())


def assert_output(case: Case, name: str, ours: Tensor) -> None:
    """Within the tolerance that the metadata states for this output."""
    allowed = case.tolerance(name)
    expected = case.output[name].reshape(ours.shape)
    torch.testing.assert_close(
        ours.detach(), expected, atol=allowed["atol"], rtol=allowed["rtol"], msg=lambda text: f"{name}: {text}"
    )


def assert_grad_norms(case: Case, gradients: dict[str, Tensor]) -> None:
    """Each listed norm and the total, rtol 1e-3; `gradients` by the authors' names."""
    norms = {name: gradient.norm() for name, gradient in gradients.items()}
    expected = {name: norm[0] for name, norm in case.grad_norm.items()}
    norms["total"] = torch.stack(list(norms.values())).norm()
    expected["total"] = case.output["grad_norm_total"][0]
    ours = {name: norms[name] for name in expected}
    torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-7)
