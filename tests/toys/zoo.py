"""The folder of odd and broken files that lies beside the project; its files may not be copied into it."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import Final

import pytest

_BESIDE: Final = Path(__file__).resolve().parents[3] / "shared/data"
ZOO: Final = Path(os.environ.get("TUBELET_DATA") or _BESIDE) / "zoo"

needs_zoo = pytest.mark.skipif(not ZOO.is_dir(), reason=f"no {ZOO}; set TUBELET_DATA to the folder that holds zoo/")


def rows() -> list[dict[str, str]]:
    if not ZOO.is_dir():
        return []
    with (ZOO / "manifest.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
