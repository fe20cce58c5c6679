"""The lists that `prepare` leaves: what to train on, where each file is from, and what was skipped."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tubelet.disk.tables import SKIPPED, Cell, read_csv, write_csv
from tubelet.disk.write import write_list, write_text
from tubelet.video.lists.manifest import Manifest
from tubelet.video.lists.shards import ShardSample, write_shards
from tubelet.video.prepare.collection import Collection
from tubelet.video.prepare.transcode import PreparedFile

SOURCES: Final = "sources.csv"
OWNERS: Final = ".lists.json"
_COLUMNS: Final = (
    "list", "path", "source", "start_seconds", "end_seconds", "label", "class", "frames", "width", "height", "bytes",
)  # fmt: skip


@dataclass(frozen=True)
class Made:
    """A prepared file with the source that it is from, and its label and class where the manifest has them."""

    part: PreparedFile
    source: Path
    label: int | None
    class_name: str | None


def list_name(manifest: Manifest, out: Path, name: str | None = None) -> str:
    """What the lists of a manifest are called after: `name`, else the list or the folder.

    ValueError where `out` has another list of this name.
    """
    source = manifest.source.resolve()
    name = name or (source.stem if source.is_file() else source.name)
    if f"{name}.csv" in (SOURCES, SKIPPED) or "/" in name:
        raise ValueError(f"{out}: {name}.csv cannot be the name of a list here; give another with --name")
    owners = _owners(out)
    owner = owners.setdefault(name, str(source))
    if owner != str(source) and Path(owner).exists():
        raise ValueError(f"{out}: has a {name}.csv from {owner}; give the list of {source} another name with --name")
    write_text(out / OWNERS, json.dumps({**owners, name: str(source)}))
    return name


def write_lists(collection: Collection, name: str, *, max_skipped: float) -> Path:
    """Write `NAME.csv`, and what is known of its files into `sources.csv` and `skipped.csv`, beside other lists.

    `NAME.csv` is what `read_manifest` takes: a prepared file a line, with its label if it has one. ValueError, and no
    such list, where a larger share than `max_skipped` was skipped.
    """
    path = collection.out / f"{name}.csv"
    path.unlink(missing_ok=True)
    _write_sources(collection, name)
    _write_skipped(collection, name)
    bad, total = len(collection.skipped), len(set(collection.names))
    if bad > max_skipped * total:
        raise ValueError(
            f"{bad} of {total} videos were skipped, more than --max-skipped {max_skipped:g} allows; the reasons are in "
            f"{collection.out / SKIPPED}. What is prepared is kept"
        )
    if bad == total:
        raise ValueError(f"all {total} videos were skipped; the reasons are in {collection.out / SKIPPED}")
    write_list(path, "".join(_line(one) for one in made(collection)))
    return path


def write_collection_shards(collection: Collection, name: str, *, shard_bytes: int) -> list[Path]:
    """Put the files of `NAME.csv` into shards beside it, in its order."""
    samples = [
        ShardSample(
            collection.out / one.part.path,
            {
                "name": one.part.path.as_posix(),
                "label": one.label,
                "class": one.class_name,
                "source": str(one.source),
                "start_seconds": one.part.start_seconds,
                "end_seconds": one.part.end_seconds,
            },
        )
        for one in made(collection)
    ]
    return write_shards(collection.out, name, samples, shard_bytes=shard_bytes)


def made(collection: Collection) -> list[Made]:
    """All prepared files: in the order of a list; of a folder, in the order of the prepared files."""
    manifest = collection.manifest
    classes = manifest.classes if _are_listable(manifest.classes) else None
    found = [
        Made(
            part=part,
            source=collection.done[key].source.path,
            label=video.label,
            class_name=None if classes is None or video.label is None else classes[video.label],
        )
        for video, key in zip(manifest.videos, collection.names, strict=True)
        if key in collection.done
        for part in collection.done[key].parts
    ]
    return sorted(found, key=lambda one: one.part.path.as_posix()) if manifest.source.is_dir() else found


def _line(one: Made) -> str:
    """A class stands after a tab, because names have spaces; a number after a space, as everybody writes it."""
    if one.label is None:
        return f"{one.part.path.as_posix()}\n"
    return f"{one.part.path.as_posix()}" + (f" {one.label}\n" if one.class_name is None else f"\t{one.class_name}\n")


def _are_listable(classes: tuple[str, ...] | None) -> bool:
    """Whether a list can hold the names of the classes: it reads a number as a label."""
    return classes is not None and not any(re.search(r"^\s*-?\d+\s*$|[\t\r\n]", name) for name in classes)


def _write_sources(collection: Collection, name: str) -> None:
    rows = [
        (name, one.part.path.as_posix(), str(one.source),
         f"{one.part.start_seconds:.6f}", f"{one.part.end_seconds:.6f}",
         "" if one.label is None else one.label, one.class_name or "",
         one.part.frames, one.part.width, one.part.height, one.part.bytes)
        for one in made(collection)
    ]  # fmt: skip
    _merge(collection.out / SOURCES, name, _COLUMNS, rows)


def _write_skipped(collection: Collection, name: str) -> None:
    rows = [(name, str(one.path), " ".join(one.reason.split())) for one in collection.skipped.values()]
    _merge(collection.out / SKIPPED, name, ("list", "path", "reason"), rows)


def _merge(path: Path, name: str, columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> None:
    """Replace the rows of this list, keep those of others."""
    others = [row for row in read_csv(path) if row.get("list") != name]
    write_csv(path, columns, [*([row.get(column, "") for column in columns] for row in others), *rows])


def _owners(out: Path) -> dict[str, str]:
    """Which source each list of the folder is from."""
    try:
        return dict(json.loads((out / OWNERS).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return {}
