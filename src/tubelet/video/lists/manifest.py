"""Which videos there are, and what their labels are: from a folder tree, a list, or tar shards."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from tubelet.names import one_line
from tubelet.video.lists.list_file import read_list
from tubelet.video.lists.places import places_of
from tubelet.video.lists.shards import Member, expand, find_members
from tubelet.video.lists.tree import tree_of_images, tree_of_videos
from tubelet.video.read.frame_range import is_there
from tubelet.video.read.numbered import STILL_EXTENSIONS, is_still
from tubelet.video.read.part import VideoPart

# fmt: off
VIDEO_EXTENSIONS: Final = frozenset({
    ".mp4", ".m4v", ".mov", ".3gp", ".3g2", ".avi", ".mkv", ".webm", ".flv", ".f4v", ".wmv", ".asf",
    ".mpg", ".mpeg", ".mpe", ".m2v", ".ts", ".mts", ".m2ts", ".mxf", ".ogv", ".ogg", ".ivf", ".y4m",
    ".gif", ".apng", ".webp", ".h264", ".264", ".hevc", ".h265", ".265", ".vob", ".dv", ".rm", ".rmvb",
})
# fmt: on
IMAGE_RECIPES: Final = (
    "images are for recipes of one frame (clip.frames=1 model.encoder.tubelet=1), and for tubelet check --images"
)


@dataclass(frozen=True)
class VideoRef:
    """One video: where it lies, its class (None where unlabelled), and its identity.

    `name` is the path as listed, or relative to the folder; never the file name alone, which other folders may use too.
    `path` may lead into a shard (`tubelet.video.read.byte_range`), to a folder of images (`frame_range` there), or to
    an image (`image_file` there).
    `line` is its line in the list, from 1; None in a folder tree. `part` is the piece of the file that it is, None for
    the whole. `values` are numbers that a task without classes learns of it.
    """

    path: Path
    label: int | None
    name: str
    line: int | None = None
    part: VideoPart | None = None
    values: tuple[float, ...] | None = None

    @property
    def where(self) -> Path:
        """The path, and which piece of the file where it is one: for messages."""
        return self.path if self.part is None else self.path.with_name(f"{self.path.name}{self.part}")


@dataclass(frozen=True)
class Manifest:
    """Videos in order, names of the classes by label (None where labels are plain numbers), and where they are from.

    `notes` are lines for a person: what was found that may not be meant. Names of classes from folders and lists are
    `one_line`, for files hold one a line.
    """

    videos: tuple[VideoRef, ...]
    classes: tuple[str, ...] | None
    source: Path
    notes: tuple[str, ...] = ()

    def place(self, video: VideoRef) -> str:
        """Where the manifest names a video, for messages."""
        return f"{self.source}: {video.name}" if video.line is None else f"{self.source}, line {video.line}"


def read_manifest(
    source: Path, *, root: Path | None = None, labelled: bool, clip_frames: int | None = None
) -> Manifest:
    """Read a folder of videos, a list, tar shards, or a single video: a file or a folder of images.

    `clip_frames` is how many frames will be taken of each. With 1, images are videos of one frame: a folder is searched
    for image files, each of which counts, however they are numbered (`tree` in this room), and lists may name them.
    With more, or None, images alone are refused, as a clip of them would stand still.

    A folder is searched with all its sub-folders, in sorted order, for files with a video extension, and for folders
    of numbered images and nothing else to see (`video.read.numbered`), which are a video each; names that start with a
    dot are left out. With labels, the sub-folders of the first level are the classes, in sorted order.

    A list has one video a line: `path label` with a space, tab or comma between, as Kinetics, SSv2 and the authors'
    scripts write it; a first line `path,label` is skipped; the label is the LAST field, so that paths may hold spaces
    and commas; it is a number from 0, or a class name. Without labels a line is a path, and a label is ignored.
    JSON Lines (`.jsonl`) have {"path": ..., "label": ...}. UCF101 lists (`trainlist01.txt`) are known by the
    `classInd.txt` beside them. Paths start from `root`, else from the list's folder. A path without an extension gets
    `.mp4`, as the authors do (`.webm` where only that exists), or is a folder of images, of which VideoMAE V2's lines
    `folder start total` and `folder total label` take some (`tubelet.video.lists.places`).

    Shards are `train-000000.tar`, several as `train-{000000..000012}.tar`, or a folder that holds tars and no videos.

    ValueError in one line for: nothing there, no videos in it, a bad line (with its number), a missing label, images
    where videos are wanted.
    """
    source, images = Path(source), clip_frames == 1
    if root is not None and not Path(root).is_dir():
        raise ValueError(f"{root}: no such folder (root of the paths in {source})")
    if source.is_dir():
        tars = sorted(source.glob("*.tar"))
        if tars and not _has_files(source, images=images):
            return _read_shards(source, tars, labelled=labelled)
        return (_read_image_folder if images else _read_folder)(source, labelled=labelled)
    if source.suffix == ".tar":
        return _read_shards(source, [source.with_name(name) for name in expand(source.name)], labelled=labelled)
    if not source.exists():
        raise ValueError(f"{source}: no such file or folder")
    if source.suffix.lower() in VIDEO_EXTENSIONS or is_still(source):
        if not images:
            refuse_image(source, str(source))
        return _single_video(source, labelled=labelled)
    return _read_list(source, root=Path(root) if root else source.parent, labelled=labelled, images=images)


def check_labels(manifest: Manifest, classes: int) -> None:
    """ValueError that names file and line where a label is missing or outside 0..classes-1."""
    for video in manifest.videos:
        if video.label is None:
            raise ValueError(f"{manifest.place(video)}: no label")
        if not 0 <= video.label < classes:
            raise ValueError(
                f"{manifest.place(video)}: label {video.label} of {video.name} is outside 0..{classes - 1}"
                + ("; are the labels counted from 1?" if video.label == classes else "")
            )


def check_unique(manifest: Manifest) -> None:
    """ValueError where a video is listed twice: harmless in training, but a test would count it twice."""
    seen: dict[str, VideoRef] = {}
    for video in manifest.videos:
        first = seen.setdefault(video.name, video)
        if first is not video:
            raise ValueError(f"{manifest.place(video)}: {video.name} is already on line {first.line}")


def _read_folder(folder: Path, *, labelled: bool) -> Manifest:
    tree = tree_of_videos(folder, video_extensions=VIDEO_EXTENSIONS)
    if not tree.videos:
        kinds = ", ".join(sorted(VIDEO_EXTENSIONS))
        held = f"; it holds {_counted(tree.images, 'image')}: {IMAGE_RECIPES}" if tree.images else ""
        raise ValueError(
            f"{folder}: no videos in this folder (searched for {kinds}, and folders of numbered images){held}"
        )
    if tree.videos == (".",):
        return _single_video(folder if folder.name.strip(".") else folder.resolve(), labelled=labelled)
    note = f"{folder}: passed by {_counted(tree.images, 'image')}: {_some(tree.images)}"
    return replace(_of_tree(folder, tree.videos, labelled=labelled), notes=(note,) if tree.images else ())


def _read_image_folder(folder: Path, *, labelled: bool) -> Manifest:
    tree = tree_of_images(folder, video_extensions=VIDEO_EXTENSIONS)
    found = tuple(sorted((*tree.images, *tree.videos)))
    if not found:
        kinds = ", ".join(sorted(STILL_EXTENSIONS))
        raise ValueError(f"{folder}: no images in this folder (searched for {kinds}, and videos)")
    notes = []
    if tree.videos:
        notes.append(f"{folder}: {_counted(tree.images, 'image')}, and {_counted(tree.videos, 'video')}, "
                     f"such as {tree.videos[0]}, of which a frame counts as an image")  # fmt: skip
    if tree.others:
        notes.append(f"{folder}: passed by {_counted(tree.others, 'file')} without the ending of an image: "
                     + _some(tree.others))  # fmt: skip
    return replace(_of_tree(folder, found, labelled=labelled), notes=tuple(notes))


def _of_tree(folder: Path, found: tuple[str, ...], *, labelled: bool) -> Manifest:
    if not labelled:
        return Manifest(tuple(VideoRef(folder / name, None, name) for name in found), None, folder)
    loose = [folder / name for name in found if "/" not in name]
    if loose:
        where = f"{loose[0]}: lies beside the class folders; move it into the folder of its class"
        if loose[0].is_dir():
            where += f" (numbered images count as one video; where each is one of its own: {IMAGE_RECIPES})"
        raise ValueError(where)
    classes = tuple(sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")))
    label = {name: number for number, name in enumerate(classes)}
    videos = tuple(VideoRef(folder / name, label[name.split("/")[0]], name) for name in found)
    return Manifest(videos, _lines(classes), folder)


def _lines(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(one_line(name) for name in names)


def _counted(names: tuple[str, ...], what: str) -> str:
    return f"{len(names)} {what}" if len(names) == 1 else f"{len(names)} {what}s"


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _has_files(folder: Path, *, images: bool) -> bool:
    """Whether a folder holds files that are videos, or images where these count."""
    tree = (tree_of_images if images else tree_of_videos)(folder, video_extensions=VIDEO_EXTENSIONS)
    return bool(tree.images and images) or any((folder / name).is_file() for name in tree.videos)


def refuse_image(path: Path, where: str) -> None:
    """ValueError for a path that names an image and no video."""
    if is_still(path) and path.is_file():
        raise ValueError(f"{where}: an image, where videos are wanted; {IMAGE_RECIPES}")


def _single_video(path: Path, *, labelled: bool) -> Manifest:
    if labelled:
        raise ValueError(f"{path}: a single video has no label; give a list or a folder with a sub-folder per class")
    return Manifest((VideoRef(path, None, path.name),), None, path)


def _read_shards(source: Path, tars: list[Path], *, labelled: bool) -> Manifest:
    found = find_members(tars, extensions=VIDEO_EXTENSIONS)
    names = sorted({member.class_name for _, member in found if member.class_name is not None})
    number = {name: label for label, name in enumerate(names)}

    def label(member: Member) -> int | None:
        if not labelled:
            return None
        given = member.label if not names else number.get(member.class_name or "")
        if given is None or given < 0:
            raise ValueError(f"{source}: {member.name} has no label from 0 (KEY.cls) or class (KEY.json)")
        return given

    videos = tuple(VideoRef(path, label(member), member.name) for path, member in found)
    return Manifest(videos, _lines(names) if labelled and names else None, source)


def _read_list(source: Path, *, root: Path, labelled: bool, images: bool) -> Manifest:
    extensions = VIDEO_EXTENSIONS | STILL_EXTENSIONS if images else VIDEO_EXTENSIONS
    entries = read_list(source, labelled=labelled, extensions=extensions)
    if not entries:
        raise ValueError(f"{source}: no videos listed in it")
    names = sorted({entry.label for entry in entries if isinstance(entry.label, str)})
    number = {name: label for label, name in enumerate(names)}
    places = places_of(source, entries, root=root, labelled=labelled, extensions=extensions)
    videos = tuple(
        VideoRef(
            path=place.path,
            label=number[entry.label] if isinstance(entry.label, str) else entry.label,
            name=place.name,
            line=entry.line,
        )
        for entry, place in zip(entries, places, strict=True)
    )
    if not images:
        for video in videos:
            refuse_image(video.path, f"{source}, line {video.line}: {video.name}")
    classes = entries[0].classes or _lines(names) or None
    manifest = Manifest(videos, classes, source)
    _check_some_exist(manifest, root)
    return manifest


def _check_some_exist(manifest: Manifest, root: Path) -> None:
    """A wrong root should be said at once, not after every video was skipped."""
    first = manifest.videos[:100]
    if not any(is_there(video.path) for video in first):
        raise ValueError(
            f"{manifest.source}: none of the first {len(first)} videos exists, for example {first[0].path}; "
            f"set root to the folder that the paths start from (now {root})"
        )
