"""The file of embeddings: Parquet, one row per clip, with what is needed to repeat and to find it as metadata.

Columns: `path` (the video's name in its manifest, `writable`), `clip` (its number in the video), `start_seconds`,
`end_seconds`, `vector` (float32, all of one length). The metadata are JSON under the key `tubelet`, see `Facts`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float32, Float64, Int32
from pydantic import Field, ValidationError

from tubelet.disk.write import whole_file
from tubelet.inference.embed.windows import Windows
from tubelet.inference.pooling import PoolingName
from tubelet.names import restored, writable
from tubelet.spec import Spec, explain
from tubelet.types import ClipShape
from tubelet.video.read.frame_range import frame_range_of
from tubelet.video.sample import Sampler

KEY: Final = b"tubelet"
VERSION: Final = 1
ROWS_A_GROUP: Final = 8192


class Facts(Spec):
    """Metadata of a file of embeddings. Equal `plan`s mean equal rows: it is a digest of all that they depend on."""

    version: int = VERSION
    model: str = Field(description="file or folder that the model was loaded from")
    fingerprint: str = Field(description="SHA-256 of the model's tensors and shape")
    recipe: str = Field(description="name of the model's recipe")
    pooling: PoolingName = Field(description="how a clip's tokens became its vector")
    width: int = Field(ge=1, description="length of a vector")
    clip: ClipShape
    sampler: Sampler
    windows: Windows
    precision: Literal["fp32", "bf16"]
    device: str
    batch: int = Field(ge=1, description="clips in a pass")
    unit: int = Field(ge=1, description="videos embedded together; batches do not reach beyond")
    source: str = Field(description="folder or list of the videos")
    root: str = Field(description="folder that the paths start from")
    videos: int = Field(ge=0, description="videos of the source, unreadable ones too")
    files: str = Field(description="SHA-256 of the names, sizes and times of the videos")
    plan: str = ""

    @property
    def units(self) -> int:
        """How many units the videos make."""
        return -(-self.videos // self.unit)


@dataclass(frozen=True)
class Rows:
    """Clips and their vectors; `paths` are names in the manifest."""

    paths: tuple[str, ...]
    clips: Int32[np.ndarray, " M"]
    start_seconds: Float64[np.ndarray, " M"]
    end_seconds: Float64[np.ndarray, " M"]
    vectors: Float32[np.ndarray, "M D"]

    def __len__(self) -> int:
        return len(self.paths)


@dataclass(frozen=True)
class Embeddings(Rows):
    """What `read_embeddings` gives: the rows of a file, and its facts."""

    facts: Facts


def read_facts(path: Path) -> Facts:
    """The metadata alone. ValueError where the file is missing, cut short, or not one of embeddings."""
    with _opened(path) as file:
        return _facts(path, file)


def read_embeddings(path: Path) -> Embeddings:
    """All of a file. ValueError as for `read_facts`."""
    with _opened(path) as file:
        facts = _facts(path, file)
        if not _has_our_columns(file.schema_arrow, facts.width):
            names = ", ".join(file.schema_arrow.names)
            raise ValueError(f"{path}: its columns are not those of tubelet embed ({names})")
        total = file.metadata.num_rows
        paths: list[str] = []
        clips, vectors = np.empty(total, np.int32), np.empty((total, facts.width), np.float32)
        start, end = np.empty(total, np.float64), np.empty(total, np.float64)
        for batch in file.iter_batches(ROWS_A_GROUP):
            here = slice(len(paths), len(paths) + batch.num_rows)
            paths += batch.column("path").to_pylist()
            clips[here], start[here], end[here] = (batch.column(name).to_numpy() for name in _NUMBERS)
            vectors[here] = batch.column("vector").flatten().to_numpy().reshape(-1, facts.width)
    return Embeddings(tuple(paths), clips, start, end, vectors, facts)


def write_rows(path: Path, parts: Iterable[Rows], width: int, metadata: dict[str, Any]) -> int:
    """Write the parts one after the other, whole or not at all; returns the number of rows.

    Equal rows and metadata give equal bytes, however the rows are cut into parts.
    """
    described = schema(width).with_metadata({KEY: json.dumps(metadata, sort_keys=True)})
    total = 0
    with (
        whole_file(path) as temporary,
        pq.ParquetWriter(temporary, described, compression="snappy", use_dictionary=["path"]) as writer,
    ):
        for table in _groups((_table(rows, width) for rows in parts), width):
            writer.write_table(table, row_group_size=ROWS_A_GROUP)
            total += table.num_rows
    return total


def read_part(path: Path) -> Rows:
    """Rows of a file of `write_rows`."""
    with _opened(path) as file:
        table, width = file.read(), file.schema_arrow.field("vector").type.list_size
    clips, start, end = (table.column(name).to_numpy() for name in _NUMBERS)
    vectors = table.column("vector").combine_chunks().flatten().to_numpy().reshape(-1, width)
    return Rows(tuple(table.column("path").to_pylist()), clips, start, end, vectors)


def part_metadata(path: Path) -> dict[str, Any]:
    """Metadata of a file of `write_rows`."""
    with _opened(path) as file:
        metadata: dict[str, Any] = json.loads(file.schema_arrow.metadata[KEY])
    return metadata


def row_count(path: Path) -> int:
    """Rows in a file of `write_rows`."""
    with _opened(path) as file:
        return int(file.metadata.num_rows)


def locate(root: Path, name: str) -> Path | None:
    """The file of a video by its name in the manifest, which may lack its ending; None where it is gone."""
    for path in (root / name, root / restored(name)):
        for choice in (path, path.with_name(f"{path.name}.mp4"), path.with_name(f"{path.name}.webm")):
            if choice.is_file():
                return choice
        if frame_range_of(path) is not None:
            return path
    return None


def schema(width: int) -> pa.Schema:
    """The columns."""
    return pa.schema(
        [
            pa.field("path", pa.string()),
            pa.field("clip", pa.int32()),
            pa.field("start_seconds", pa.float64()),
            pa.field("end_seconds", pa.float64()),
            pa.field("vector", pa.list_(pa.float32(), width)),
        ]
    )


def _has_our_columns(found: pa.Schema, width: int) -> bool:
    """Names and types agree; what a list calls its items depends on who wrote it."""
    wanted = schema(width)
    if found.names != wanted.names or found.types[:-1] != wanted.types[:-1]:
        return False
    vector = found.field("vector").type
    return bool(pa.types.is_fixed_size_list(vector) and vector.list_size == width and vector.value_type == pa.float32())


_NUMBERS: Final = ("clip", "start_seconds", "end_seconds")


def _table(rows: Rows, width: int) -> pa.Table:
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(rows.vectors).ravel()), width)
    numbers = [pa.array(column) for column in (rows.clips, rows.start_seconds, rows.end_seconds)]
    columns = [pa.array([writable(name) for name in rows.paths], pa.string()), *numbers, vectors]
    return pa.Table.from_arrays(columns, schema=schema(width))


def _groups(tables: Iterable[pa.Table], width: int) -> Iterator[pa.Table]:
    """The same rows in tables of `ROWS_A_GROUP`, the last one shorter."""
    rest = schema(width).empty_table()
    for table in tables:
        rest = pa.concat_tables([rest, table])
        while rest.num_rows >= ROWS_A_GROUP:
            yield rest.slice(0, ROWS_A_GROUP).combine_chunks()
            rest = rest.slice(ROWS_A_GROUP)
    if rest.num_rows:
        yield rest.combine_chunks()


@contextmanager
def _opened(path: Path) -> Iterator[pq.ParquetFile]:
    if not path.is_file():
        raise ValueError(f"{path}: no such file; tubelet embed makes it")
    try:
        with pq.ParquetFile(path) as file:
            yield file
    except (pa.ArrowException, OSError) as error:
        reason = str(error).strip().split("\n")[0].rstrip(".")[:120]
        raise ValueError(f"{path}: cut short, or not a Parquet file of embeddings ({reason})") from error


def _facts(path: Path, file: pq.ParquetFile) -> Facts:
    metadata = file.schema_arrow.metadata or {}
    if KEY not in metadata:
        raise ValueError(f"{path}: a Parquet file, but not one of tubelet embed")
    try:
        fields = json.loads(metadata[KEY])
    except ValueError as error:
        raise ValueError(f"{path}: its metadata are damaged; run tubelet embed again") from error
    if not isinstance(fields, dict) or fields.get("version") != VERSION:
        raise ValueError(f"{path}: not of version {VERSION}, which this tubelet reads; run tubelet embed again")
    try:
        return Facts.model_validate(fields)
    except ValidationError as error:
        raise ValueError(f"{path}: metadata: {explain(error, Facts)}") from error
