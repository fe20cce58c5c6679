"""The file of embeddings: what goes in comes out, equal content gives equal bytes, other files are refused."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tubelet.inference.embed.store import ROWS_A_GROUP, Facts, Rows, locate, read_embeddings, read_facts, write_rows
from tubelet.inference.embed.windows import Windows
from tubelet.spec import replace
from tubelet.types import ClipShape
from tubelet.video.sample import Strided

FACTS = Facts(
    model="runs/pre",
    fingerprint="ab" * 32,
    recipe="toy",
    pooling="mean",
    width=3,
    clip=ClipShape(frames=4, size=16),
    sampler=Strided(stride=2),
    windows=Windows(seconds=2.0),
    precision="fp32",
    device="cpu",
    batch=16,
    unit=32,
    source="/videos/list.txt",
    root="/videos",
    videos=4,
    files="cd" * 32,
    plan="ef" * 32,
)


def rows(count: int = 5, *, width: int = 3, seed: int = 0) -> Rows:
    rng = np.random.default_rng(seed)
    return Rows(
        tuple(f"folder {number // 2}/v.mp4" for number in range(count)),
        np.arange(count, dtype=np.int32) % 2,
        rng.random(count),
        1 + rng.random(count),
        rng.standard_normal((count, width)).astype(np.float32),
    )


def part(whole: Rows, here: slice) -> Rows:
    columns = (whole.clips, whole.start_seconds, whole.end_seconds, whole.vectors)
    return Rows(whole.paths[here], *(column[here] for column in columns))


def written(path: Path, *parts: Rows, facts: Facts = FACTS) -> Path:
    write_rows(path, parts, facts.width, facts.model_dump(mode="json"))
    return path


@pytest.mark.parametrize("count", [0, 1, 5])
def test_what_is_written_is_read_back(tmp_path: Path, count: int) -> None:
    whole = rows(count)
    path = written(tmp_path / "e.parquet", whole)
    found = read_embeddings(path)
    assert found.paths == whole.paths
    for name in ("clips", "start_seconds", "end_seconds", "vectors"):
        assert np.array_equal(getattr(found, name), getattr(whole, name)), name
    assert found.facts == FACTS == read_facts(path)
    assert list(tmp_path.iterdir()) == [path]


def test_other_programs_see_plain_columns(tmp_path: Path) -> None:
    table = pq.read_table(written(tmp_path / "e.parquet", rows()))
    assert table.column_names == ["path", "clip", "start_seconds", "end_seconds", "vector"]
    assert [str(kind) for kind in table.schema.types[:4]] == ["string", "int32", "double", "double"]
    assert (table.schema.types[4].value_type, table.schema.types[4].list_size) == (pa.float32(), 3)
    assert table.column("vector")[4].as_py() == pytest.approx(rows().vectors[4].tolist())


def test_equal_rows_give_equal_bytes_however_they_are_cut(tmp_path: Path) -> None:
    facts = replace(FACTS, width=64)  # wide enough that a group has several pages
    whole = rows(2 * ROWS_A_GROUP + 7, width=64)
    once = written(tmp_path / "a.parquet", whole, facts=facts)
    cuts = [0, 1, 1, 900, 5555, ROWS_A_GROUP, ROWS_A_GROUP + 5, 2 * ROWS_A_GROUP - 1, len(whole)]
    pieces = [part(whole, slice(a, b)) for a, b in pairwise(cuts)]
    cut = written(tmp_path / "b.parquet", *pieces, facts=facts)
    assert once.read_bytes() == cut.read_bytes()
    assert np.array_equal(read_embeddings(cut).vectors, whole.vectors)
    assert pq.ParquetFile(cut).metadata.num_row_groups == 3
    other = written(tmp_path / "c.parquet", rows(2 * ROWS_A_GROUP + 7, width=64, seed=1), facts=facts)
    assert other.read_bytes() != once.read_bytes()


def test_a_file_that_cannot_be_finished_leaves_the_old_one(tmp_path: Path) -> None:
    path = written(tmp_path / "e.parquet", rows())
    before = path.read_bytes()

    def failing() -> object:
        yield rows()
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        write_rows(path, failing(), 3, {})  # type: ignore[arg-type]
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def refused(path: Path) -> str:
    with pytest.raises(ValueError) as error:  # noqa: PT011
        read_embeddings(path)
    line = str(error.value)
    assert line.startswith(f"{path}: ")
    assert "\n" not in line
    return line


def test_other_files_are_refused_in_one_line(tmp_path: Path) -> None:
    whole = written(tmp_path / "e.parquet", rows(300))
    content = whole.read_bytes()
    path = tmp_path / "x.parquet"
    assert "no such file; tubelet embed makes it" in refused(path)
    for wrong in (b"", b"path,clip\na.mp4,0\n" * 10, content[: len(content) // 2], content[:-3]):
        path.write_bytes(wrong)
        assert "cut short, or not a Parquet file of embeddings" in refused(path)
    damaged = bytearray(content)
    damaged[100:1500] = b"\xff" * 1400
    path.write_bytes(damaged)
    assert "cut short, or not a Parquet file of embeddings" in refused(path)
    pq.write_table(pa.table({"path": ["a"]}), path)
    assert "a Parquet file, but not one of tubelet embed" in refused(path)
    write_rows(path, [rows()], 3, {"version": 9})
    assert "not of version 1" in refused(path)
    write_rows(path, [rows()], 3, {**FACTS.model_dump(mode="json"), "colour": "red"})
    assert "unknown field 'colour'" in refused(path)
    write_rows(path, [rows(width=5)], 5, FACTS.model_dump(mode="json"))
    assert "its columns are not those of tubelet embed" in refused(path)


def test_a_name_without_its_ending_is_found_again(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.webm", "c.d.mp4"):
        (tmp_path / name).touch()
    assert locate(tmp_path, "a.mp4") == locate(tmp_path, "a") == tmp_path / "a.mp4"
    assert locate(tmp_path, "b") == tmp_path / "b.webm"
    assert locate(tmp_path, "c.d") == tmp_path / "c.d.mp4"
    assert locate(tmp_path, "gone.mp4") is None
    assert locate(Path("/elsewhere"), str(tmp_path / "a.mp4")) == tmp_path / "a.mp4"
