"""Videos in tar files in WebDataset's layout: written here, read here at any place, read by `webdataset` as a stream.

A sample is `KEY.mp4` with `KEY.json` and, where its class has a number, `KEY.cls` beside it; a KEY has no dot. An index
of the tars of a folder, `shards.json`, tells where each video lies; it is made once, and anew for a tar whose size has
changed. With it shards are read in any order, so that the order of an epoch, and going on within it, are the same as
for a folder of files.
"""

from __future__ import annotations

import io
import json
import os
import re
import tarfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tubelet.disk.write import whole_file, write_text
from tubelet.video.read.byte_range import ByteRange

INDEX: Final = "shards.json"
FORMAT: Final = 1
_RANGE: Final = re.compile(r"\{(\d+)\.\.(\d+)\}")


@dataclass(frozen=True)
class ShardSample:
    """A file to be put in a shard, and what is known of it.

    Of `about`, `name`, `label` (a number) and `class` are understood when shards are read; the rest is for people.
    """

    file: Path
    about: Mapping[str, str | int | float | None]


@dataclass(frozen=True)
class Member:
    """A video in a shard. `name` identifies it, as a path in a list does."""

    key: str
    name: str
    offset: int
    size: int
    label: int | None
    class_name: str | None


def write_shards(folder: Path, name: str, samples: Sequence[ShardSample], *, shard_bytes: int) -> list[Path]:
    """Write `folder/NAME-000000.tar` and so on, and the index; a shard has `shard_bytes` at most, or one video.

    Videos stand in the order of `samples`; keys count them. Shards of this name from before are replaced or removed.
    Each file appears whole or not at all, and the same samples give the same bytes.
    """
    written = []
    for number, group in enumerate(_groups(samples, shard_bytes)):
        path = folder / f"{name}-{number:06d}.tar"
        _write_tar(path, group)
        written.append(path)
    for path in folder.glob(f"{name}-*.tar"):
        if path not in written and re.fullmatch(re.escape(name) + r"-\d{6,}\.tar", path.name):
            path.unlink()
    (folder / INDEX).unlink(missing_ok=True)  # a tar of the same size need not hold the same
    find_members(sorted(folder.glob("*.tar")), extensions={".mp4"})
    return written


def expand(pattern: str) -> list[str]:
    """The names that a pattern such as `train-{000000..000012}.tar` stands for; one name without braces."""
    match = _RANGE.search(pattern)
    if match is None:
        return [pattern]
    first, last = match.groups()
    numbers = [str(number).zfill(len(first)) for number in range(int(first), int(last) + 1)]
    before, after = pattern[: match.start()], pattern[match.end() :]
    return [before + number + rest for number in numbers for rest in expand(after)]


def find_members(tars: Sequence[Path], *, extensions: Collection[str]) -> list[tuple[Path, Member]]:
    """All videos of these tars, by key, each with a path that `open_video` takes (see `ByteRange`).

    Uses the indices beside the tars, and writes them where they are missing and the folder can be written. ValueError
    for a tar that is not there, damaged, or without videos.
    """
    found: list[tuple[Path, Member]] = []
    for folder in sorted({tar.parent for tar in tars}):
        known = _read_index(folder)
        fresh = False
        for tar in [tar for tar in tars if tar.parent == folder]:
            size = _size(tar)
            if tar.name not in known or known[tar.name][0] != size:
                known[tar.name], fresh = (size, _look_into(tar, size, extensions)), True
            found += [(ByteRange(tar, one.offset, one.size).path(), one) for one in known[tar.name][1]]
        if fresh:
            with suppress(OSError):  # a folder that cannot be written: the tars are looked into each time
                write_text(folder / INDEX, _index_text(known))
    return sorted(found, key=lambda item: item[1].key)


Index = dict[str, tuple[int, list[Member]]]
"""By name of a tar: its size and its videos."""


def _groups(samples: Sequence[ShardSample], shard_bytes: int) -> Iterator[list[tuple[int, ShardSample]]]:
    group: list[tuple[int, ShardSample]] = []
    total = 0
    for place, sample in enumerate(samples):
        size = sample.file.stat().st_size
        if group and total + size > shard_bytes:
            yield group
            group, total = [], 0
        group.append((place, sample))
        total += size
    if group:
        yield group


def _write_tar(path: Path, group: Sequence[tuple[int, ShardSample]]) -> None:
    with whole_file(path) as temporary, tarfile.open(temporary, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for place, sample in group:
            _add(tar, f"{place:09d}", sample)


def _add(tar: tarfile.TarFile, key: str, sample: ShardSample) -> None:
    beside = {"json": json.dumps(dict(sample.about))}
    if sample.about.get("label") is not None:
        beside["cls"] = str(sample.about["label"])
    with sample.file.open("rb") as file:
        entry = tarfile.TarInfo(f"{key}.mp4")
        entry.size = os.fstat(file.fileno()).st_size
        tar.addfile(entry, file)
    for extension, text in beside.items():
        entry = tarfile.TarInfo(f"{key}.{extension}")
        entry.size = len(text.encode())
        tar.addfile(entry, io.BytesIO(text.encode()))


def _size(tar: Path) -> int:
    try:
        return tar.stat().st_size
    except OSError as error:
        raise ValueError(f"{tar}: no such shard ({error.strerror})") from error


def _look_into(tar: Path, size: int, extensions: Collection[str]) -> list[Member]:
    samples: dict[str, dict[str, Any]] = {}
    try:
        with tarfile.open(tar, "r:") as archive:
            for entry in archive:
                folder, slash, base = entry.name.rpartition("/")
                stem, _, extension = base.partition(".")
                extension = extension.lower()
                facts = samples.setdefault(folder + slash + stem, {})
                if f".{extension}" in extensions and entry.isfile():
                    facts["video"] = (entry.offset_data, entry.size)
                elif extension in ("json", "cls") and (file := archive.extractfile(entry)) is not None:
                    facts[extension] = file.read()
    except (tarfile.TarError, OSError, EOFError) as error:
        raise ValueError(f"{tar}: not a tar file that can be read ({error})") from error
    members = [_member(tar, key, facts) for key, facts in samples.items() if "video" in facts]
    if not members:
        raise ValueError(f"{tar}: no videos in it (looked for {', '.join(sorted(extensions))})")
    if max(one.offset + one.size for one in members) > size:
        raise ValueError(f"{tar}: cut short")
    return members


def _member(tar: Path, key: str, facts: Mapping[str, Any]) -> Member:
    offset, size = facts["video"]
    try:
        about = json.loads(facts.get("json", b"{}"))
        label = int(facts["cls"]) if "cls" in facts else about.get("label")
        name, class_name = about.get("name") or f"{tar.name}/{key}", about.get("class")
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{tar}: {key}: its .json or .cls cannot be understood ({error})") from error
    if not isinstance(label, int | None) or not isinstance(class_name, str | None):
        raise ValueError(f"{tar}: {key}: label {label!r}, class {class_name!r}; expected a number and a name")
    return Member(key, str(name), offset, size, label, class_name)


def _read_index(folder: Path) -> Index:
    """What is known of a folder's tars; nothing where there is no index, or not one of ours."""
    try:
        fields = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        if fields["format"] != FORMAT:
            return {}
        return {
            name: (shard["bytes"], [Member(*row) for row in shard["members"]])
            for name, shard in fields["shards"].items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _index_text(known: Index) -> str:
    shards = {
        name: {
            "bytes": size,
            "members": [[one.key, one.name, one.offset, one.size, one.label, one.class_name] for one in members],
        }
        for name, (size, members) in sorted(known.items())
    }
    return json.dumps({"format": FORMAT, "shards": shards})
