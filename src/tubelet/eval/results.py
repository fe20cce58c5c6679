"""What a classifier made of a labelled set, as files: every video, every class, who was taken for whom."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from jaxtyping import Float, Int

from tubelet.data.class_names import Names
from tubelet.disk.tables import Cell, write_csv
from tubelet.disk.write import whole_file
from tubelet.eval.metrics import ClassRow, class_rows, confusion, ranked
from tubelet.eval.scoring import Scored
from tubelet.names import one_line
from tubelet.video.lists.manifest import VideoRef

BEST: Final = 5
"""Classes that a prediction lists, best first; and the k of top-k beside top-1."""


def write_results(out: Path, scored: Scored, videos: tuple[VideoRef, ...], *, names: Names, title: str) -> None:
    """Write predictions.csv, classes.csv, confusion.csv and confusion.png into the folder `out`."""
    counts = confusion(scored.labels, ranked(scored.scores, 1)[:, 0], len(names))
    header, rows = prediction_rows(scored, videos, names)
    write_csv(out / "predictions.csv", header, rows)
    write_classes(out / "classes.csv", class_rows(counts, names))
    write_confusion(out / "confusion.csv", counts, names)
    confusion_png(counts, names, out / "confusion.png", title=one_line(title))


def prediction_rows(scored: Scored, videos: tuple[VideoRef, ...], names: Names) -> tuple[list[str], list[list[Cell]]]:
    """One row per video of the manifest, in its order; a missing one has its reason and no prediction."""
    kept = min(BEST, len(names))
    header = ["path", "label", "label_name", "predicted", "predicted_name", "correct", "missing"]
    header += [f"{what}_{place}" for place in range(1, kept + 1) for what in ("class", "score")]
    best = ranked(scored.scores, kept)
    row_of = {int(place): row for row, place in enumerate(scored.index)}
    reasons = {bad.index: bad.reason for bad in scored.missing}
    rows: list[list[Cell]] = []
    for place, video in enumerate(videos):
        assert video.label is not None  # `relabelled` saw to it
        start: list[Cell] = [video.name, video.label, names[video.label]]
        if place in reasons:
            rows.append([*start, None, None, None, reasons[place], *[None] * (2 * kept)])
            continue
        row = row_of[place]
        first = int(best[row, 0])
        ends = [cell for label in best[row] for cell in (names[label], float(scored.scores[row, label]))]
        rows.append([*start, first, names[first], first == video.label, None, *ends])
    return header, rows


def write_classes(path: Path, rows: Sequence[ClassRow]) -> None:
    """The per-class table."""
    write_csv(path, ClassRow._fields, rows)


def write_confusion(path: Path, counts: Int[np.ndarray, "C C"], names: tuple[str, ...]) -> None:
    """Counts with the true classes down and the predicted ones across."""
    rows: list[list[Cell]] = [[name, *map(int, row)] for name, row in zip(names, counts, strict=True)]
    write_csv(path, ["true \\ predicted", *names], rows)


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
    with whole_file(path) as unfinished:
        # "Software" would put the library's version into the bytes, so equal results would give unequal files.
        figure.savefig(unfinished, format="png", bbox_inches="tight", metadata={"Software": None})


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
