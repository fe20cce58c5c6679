"""One self-contained HTML page about a comparison: pre-trained against scratch, with pictures inside it."""

from __future__ import annotations

import base64
import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from tubelet.disk.write import write_text
from tubelet.pictures.reconstruct import load_autoencoder, reconstruct
from tubelet.pictures.strips import strip
from tubelet.train.records.log import LOG, read_log
from tubelet.video.read.file import open_video

TEMPLATE: Final = "report.html.j2"
STRIP_FRAMES: Final = 8
COLOURS: Final = {"pre-trained": "#1b6ca8", "from scratch": "#c8553d", "chance": "#9a9a9a"}


@dataclass(frozen=True)
class Contender:
    """A fine-tuned run and the folder of its test (metrics.json, confusion.png, classes.csv)."""

    name: str
    run: Path
    evaluation: Path


@dataclass(frozen=True)
class Story:
    """What the page tells. `examples` are one video per class by its name, `held_out` videos to reconstruct.

    `facts` and `seconds` are rows (name, value), `commands` what to type to get the same.
    """

    title: str
    contenders: tuple[Contender, ...]
    pretrained: Path
    chance: float
    examples: tuple[tuple[str, Path], ...]
    held_out: tuple[Path, ...]
    facts: tuple[tuple[str, str], ...]
    seconds: tuple[tuple[str, float], ...]
    commands: tuple[str, ...]
    next_steps: tuple[str, ...]


def write_report(story: Story, path: Path) -> None:
    """Draw everything and write the page whole. ValueError where a part of the runs is missing."""
    from jinja2 import Environment

    results = [_result(contender) for contender in story.contenders]
    page = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(_template())
    gap = results[0]["top1"] - results[1]["top1"] if len(results) > 1 else None
    text = page.render(
        story=story,
        results=results,
        gap=gap,
        bars=_png(_bars(results, story.chance)),
        curves=_png(_curves(story)),
        classes=[(name, _inline(_picture(_class_strip(video)))) for name, video in story.examples],
        reconstructions=_reconstructions(story),
        total_seconds=sum(seconds for _, seconds in story.seconds),
    )
    write_text(path, text)


def read_metrics(evaluation: Path) -> dict[str, Any]:
    """metrics.json of an evaluation; ValueError where it is not there."""
    path = evaluation / "metrics.json"
    try:
        metrics: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: no result of an evaluation there: {error}") from error
    return metrics


def _template() -> str:
    return (files("tubelet.pictures") / TEMPLATE).read_text(encoding="utf-8")


def _result(contender: Contender) -> dict[str, Any]:
    metrics = read_metrics(contender.evaluation)
    with (contender.evaluation / "classes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {
        "name": contender.name,
        "top1": metrics["top1"],
        "low": metrics["top1_interval_95"][0],
        "high": metrics["top1_interval_95"][1],
        "videos": metrics["videos"],
        "views": metrics["clips"] * metrics["crops"],
        "classes": rows,
        "confusion": _inline((contender.evaluation / "confusion.png").read_bytes()),
        "colour": COLOURS.get(contender.name, "#555555"),
    }


def _reconstructions(story: Story) -> list[tuple[str, str]]:
    """Each held-out video twice: with colours that the model could know, and in the authors' way."""
    saved = load_autoencoder(story.pretrained)
    pairs = []
    for place, video in enumerate(story.held_out):
        found = [reconstruct(video, saved, seed=place, true_statistics=given) for given in (False, True)]
        honest, flattering = (_inline(_picture(strip(one, frames=STRIP_FRAMES))) for one in found)
        pairs.append((honest, flattering))
    return pairs


def _class_strip(video: Path, *, gap: int = 3, factor: int = 2) -> UInt8[np.ndarray, "H W 3"]:
    """Frames spread over a video, beside each other."""
    with open_video(video) as file:
        places = np.linspace(0, len(file) - 1, STRIP_FRAMES).round().astype(np.int64)
        frames = file.frames(places).repeat(factor, axis=1).repeat(factor, axis=2)
    padded = np.pad(frames, ((0, 0), (0, 0), (0, gap), (0, 0)), constant_values=255)
    joined: UInt8[np.ndarray, "H W 3"] = np.concatenate(list(padded), axis=1)
    return joined


def _bars(results: Sequence[dict[str, Any]], chance: float) -> Any:
    figure, axes = _figure(width=5.6, height=0.9 + 0.55 * (len(results) + 1))
    names = [*[result["name"] for result in results], "chance"]
    values = [*[100 * result["top1"] for result in results], 100 * chance]
    errors = [
        [*[100 * (result["top1"] - result["low"]) for result in results], 0.0],
        [*[100 * (result["high"] - result["top1"]) for result in results], 0.0],
    ]
    places = np.arange(len(names))[::-1]
    axes.barh(
        places, values, xerr=errors, color=[COLOURS.get(name, "#555555") for name in names], capsize=4, height=0.6
    )
    for place, value, over in zip(places, values, errors[1], strict=True):
        axes.text(value + over + 1.5, place, f"{value:.1f} %", va="center", fontsize=10)
    axes.set_yticks(places, names)
    axes.set_xlim(0, 112)
    axes.set_xlabel("top-1 accuracy on test videos, %")
    return figure


def _curves(story: Story) -> Any:
    figure, (left, right) = _figure(width=9.2, height=3.0, columns=2)
    _curve(left, story.pretrained, colour=COLOURS["pre-trained"], label="pre-training")
    left.set_title("pre-training: error of hidden cubes", fontsize=10)
    left.axhline(1.0, color="#9a9a9a", linewidth=0.8, linestyle=":")
    left.text(0, 1.003, "a model that knows nothing", fontsize=8, color="#777777")
    for contender in story.contenders:
        colour = COLOURS.get(contender.name, "#555555")
        _curve(right, contender.run, colour=colour, label=contender.name)
    right.set_title("training on the labelled videos: loss", fontsize=10)
    right.legend(frameon=False, fontsize=9)
    for axes in (left, right):
        axes.set_xlabel("step")
    return figure


def _curve(axes: Any, run: Path, *, colour: str, label: str) -> None:
    records = [record for record in read_log(run / LOG) if "loss" in record]
    steps = np.array([record["step"] for record in records])
    losses = np.array([record["loss"] for record in records])
    width = max(1, len(losses) // 60)
    smooth = np.convolve(losses, np.ones(width) / width, mode="valid")
    axes.plot(steps, losses, color=colour, alpha=0.2, linewidth=0.7)
    axes.plot(steps[width - 1 :], smooth, color=colour, linewidth=1.8, label=label)


def _figure(*, width: float, height: float, columns: int = 1) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=130, layout="tight")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, columns)
    for one in np.atleast_1d(axes):
        one.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _png(figure: Any) -> str:
    data = io.BytesIO()
    figure.savefig(data, format="png", metadata={"Software": None})
    return _inline(data.getvalue())


def _picture(pixels: UInt8[np.ndarray, "H W 3"]) -> bytes:
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, format="PNG", optimize=True)
    return data.getvalue()


def _inline(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")
