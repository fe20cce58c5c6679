"""What a classifier made of a labelled set, as files: every video, every class, who was taken for whom."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tubelet.eval.confusion import confusion_png
from tubelet.eval.labels import Names
from tubelet.eval.metrics import class_rows, confusion, ranked
from tubelet.eval.scoring import Scored
from tubelet.eval.tables import Cell, write_classes, write_confusion, write_csv
from tubelet.names import one_line
from tubelet.video.manifest import VideoRef

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
