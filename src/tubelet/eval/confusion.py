"""The confusion matrix as a picture that can be read with ten classes and with four hundred."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

import numpy as np
from jaxtyping import Float, Int

NUMBERED: Final = 25
"""Up to this many classes every cell shows its percentage."""
NAMED: Final = 120
"""Up to this many classes every one is named; above it every tenth is numbered."""
LONGEST_NAME: Final = 24


def confusion_png(counts: Int[np.ndarray, "C C"], names: tuple[str, ...], path: Path, *, title: str) -> None:
    """Draw rows (true classes) as percentages of their videos and write the PNG whole."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure

    classes = len(names)
    percent = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = float(np.clip(0.34 * classes if classes <= NUMBERED else 0.14 * classes, 4.0, 15.0))
    # Own figure and canvas: no window, no global figure list, safe in a worker.
    figure = Figure(figsize=(side + 1.6, side), dpi=130)
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    # Square-root shades: with many classes a mistake is a few percent and would be white on a linear scale.
    image = axes.imshow(percent, cmap="Blues", norm=PowerNorm(0.5, vmin=0, vmax=100), interpolation="nearest")
    figure.colorbar(
        image, ax=axes, fraction=0.04, pad=0.02, ticks=[0, 1, 5, 10, 25, 50, 100], label="% of the true class"
    )
    _label_axes(axes, names)
    if classes <= NUMBERED:
        _write_cells(axes, percent)
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    unfinished = path.with_name(f".{path.name}.part")
    # "Software" would put the library's version into the bytes, so equal results would give unequal files.
    figure.savefig(unfinished, format="png", bbox_inches="tight", metadata={"Software": None})
    os.replace(unfinished, path)


def _label_axes(axes: Any, names: tuple[str, ...]) -> None:
    classes = len(names)
    step = 1 if classes <= NAMED else 10
    places = list(range(0, classes, step))
    words = [_short(names[place]) if step == 1 else str(place) for place in places]
    size = 8 if classes <= NUMBERED else max(4.0, 8 - classes / 30) if step == 1 else 6
    axes.set_xticks(places, words, rotation=90, fontsize=size)
    axes.set_yticks(places, words, fontsize=size)


def _short(name: str) -> str:
    # A dollar sign would start a formula.
    name = name.replace("$", r"\$")
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"


def _write_cells(axes: Any, percent: Float[np.ndarray, "C C"]) -> None:
    for row, column in zip(*np.nonzero(percent >= 0.5), strict=True):
        value = percent[row, column]
        colour = "white" if value > 30 else "black"
        axes.text(column, row, f"{value:.0f}", ha="center", va="center", color=colour, fontsize=7)
