"""What the pages tell a reader to type works: commands are run on small data with a tiny model, page by page.

A block ```bash is run, `tubelet` lines only, in order, in one folder per page. A block ```bash no-test REASON is
parsed only: command, options, recipe names and changes must exist. A block ```yaml FILE.yaml is written to that file.
```python blocks of a page are run between them, in one namespace, and test functions defined in them are called at the
end.
"""

from __future__ import annotations

import argparse
import contextlib
import inspect
import io
import re
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import typer.main
from image_files import write_image_set
from typer.core import TyperGroup

from tubelet.cli import main
from tubelet.data.synthetic.scenes import clip_of
from tubelet.data.synthetic.videos import write_video
from tubelet.methods.autoencoder import MaskedAutoencoderSpec
from tubelet.methods.classifier import ClassifierSpec
from tubelet.models.decoder import DecoderSpec
from tubelet.models.vit import ViTSpec
from tubelet.targets.pixels import NormalisedPixels
from tubelet.types import ClipShape
from tubelet.weights.export.huggingface import to_huggingface
from tubelet.weights.read import read_model
from tubelet.weights.tensors.rename import to_official
from tubelet.weights.videomae.names import FINETUNED, PRETRAINED

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
ENCODER = ("width=192", "depth=1", "heads=3", "patch=8", "tubelet=2")  # a published width, whose heads are known
SHORT = (
    *("clip.frames=4", "clip.size=16", "schedule.epochs=1", "schedule.warmup_epochs=0"),
    *("run.batch_size=4", "run.device=cpu", "run.precision=fp32", "run.threads=1", "data.workers=0"),
)
TINY = (*(f"model.encoder.{change}" for change in ENCODER), *SHORT)
TINY_MASKFEAT = (*SHORT, "clip.size=48")  # its encoder is small as it is, and a token stands for 16 x 16 pixels
TINY_DECODER = ("model.decoder.width=16", "model.decoder.depth=1", "model.decoder.heads=2")
TINY_STAGES = (*(f"all.{change}" for change in TINY), *(f"pretrain.{change}" for change in TINY_DECODER))
SHRINK = {"pretrain": (*TINY, *TINY_DECODER), "finetune": TINY, "run": TINY_STAGES}
PARSED_ONLY = {"demo"}  # has a test of its own
OTHER_PROGRAMS = (
    *("git ", "cd ", "python3 -m venv ", ". ", "pip install ", "make ", "tensorboard ", "torchrun "),
    *("python benchmarks/", "python scripts/"),
)
FENCE = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Block:
    language: str
    note: str
    text: str

    @property
    def is_run(self) -> bool:
        return not self.note.startswith("no-test")

    def commands(self) -> list[list[str]]:
        """Arguments of the `tubelet` commands; lines of other programs must be known ones."""
        lines = [line.strip() for line in self.text.replace("\\\n", " ").splitlines()]
        lines = [part.strip() for line in lines for part in line.split(" && ")]
        lines = [re.sub(r"^torchrun .*? -m tubelet ", "tubelet ", line) for line in lines]
        lines = [line for line in lines if line and not line.startswith("#")]
        unknown = [line for line in lines if not line.startswith(("tubelet ", *OTHER_PROGRAMS))]
        assert unknown == [], "neither tubelet nor a program that the pages may use"
        return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("tubelet ")]


def all_blocks(page: Path) -> list[Block]:
    return [Block(kind, note.strip(), text) for kind, note, text in FENCE.findall(page.read_text())]


def blocks(page: Path, language: str) -> list[Block]:
    return [block for block in all_blocks(page) if block.language == language]


def test_the_finder_sees_blocks_and_comments(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "a\n```bash\ntubelet check videos  # all\n```\n```bash no-test big\ntubelet demo \\\n  --out x\n```\n"
    )
    first, second = blocks(page, "bash")
    assert (first.is_run, first.commands()) == (True, [["check", "videos"]])
    assert (second.is_run, second.commands()) == (False, [["demo", "--out", "x"]])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_parse(page: Path) -> None:
    for block in blocks(page, "bash"):
        assert block.is_run or block.note.removeprefix("no-test").strip(), "no-test needs a reason"
        for words in block.commands():
            arguments, _ = redirection(words)
            parameters = parsed(arguments)
            if block.is_run or "exists only after" not in block.note:
                assert_recipe_fits(parameters)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_page_works(page: Path, reader: Path) -> None:
    names: dict[str, Any] = {"__name__": page.stem}
    for block in all_blocks(page):
        if block.is_run and block.language == "bash":
            for words in block.commands():
                if words[0] not in PARSED_ONLY:
                    run(words)
        if block.language == "yaml" and block.note.endswith(".yaml"):
            Path(block.note).write_text(block.text)
        if block.is_run and block.language == "python":
            exec(compile(block.text, str(page), "exec", dont_inherit=True), names)
    for name, value in list(names.items()):
        if name.startswith("test_") and inspect.isfunction(value):
            value()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text()):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        path, _, anchor = target.partition("#")
        linked = page.parent / path if path else page
        assert linked.exists(), f"{page.name} links to {target}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", linked.read_text(), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_name_no_machine(page: Path) -> None:
    assert not re.search(r"(?<![\w.])/(home|work|root|tmp|mnt)/", page.read_text())


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a reader has: videos, lists of them, class names, a folder with a sub-folder a class, published weights."""
    folder = tmp_path_factory.mktemp("material")
    (folder / "videos").mkdir()
    names = [f"clip{index:02d}.mp4" for index in range(8)]
    for index, name in enumerate(names):
        write_video(clip_of(0, index, frames=10, size=32), folder / "videos" / name, fps=10)
        by_class = folder / "by-class" / ("left", "right")[index % 2]
        by_class.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / "videos" / name, by_class / name)
    rows = [f"videos/{name} {index % 2}\n" for index, name in enumerate(names)]
    for part, chosen in {"train": rows, "val": rows[:3], "test": rows[2:6]}.items():
        (folder / f"{part}.csv").write_text("".join(chosen))
    (folder / "classes.txt").write_text("left\nright\n")
    for part, each in {"train": 4, "val": 2}.items():
        write_image_set(folder / "images" / part, each=each)
    write_published(folder)
    return folder


def write_published(folder: Path) -> None:
    """Files as the authors and Hugging Face give them, of the tiny size."""
    clip, encoder = ClipShape(frames=4, size=16), ViTSpec(width=192, depth=1, heads=3, patch=8)
    decoder = DecoderSpec(width=192, depth=1, heads=3)
    pretrained = MaskedAutoencoderSpec(encoder=encoder, decoder=decoder).build(clip, NormalisedPixels())
    finetuned = ClassifierSpec(encoder=encoder).build(clip, 2)
    options = argparse.Namespace(model="pretrain_videomae_base_patch16_224", num_frames=4, input_size=16)
    state = to_official(pretrained.state_dict(), PRETRAINED)
    torch.save({"model": state, "epoch": 1, "args": options}, folder / "videomae-base.pth")
    options = argparse.Namespace(model="vit_base_patch16_224", num_frames=4, input_size=16, nb_classes=2)
    state = to_official(finetuned.state_dict(), FINETUNED)
    torch.save({"module": state, "args": options}, folder / "videomae-base-finetuned.pth")
    for name in ("videomae-base", "videomae-base-finetuned"):
        to_huggingface(read_model(folder / f"{name}.pth"), folder / name)


@pytest.fixture
def reader(material: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the reader's own, with the material in it."""
    here = tmp_path / "here"
    shutil.copytree(material, here)
    monkeypatch.chdir(here)
    return here


def run(words: list[str]) -> None:
    """Run a command as the page has it, but small; `> FILE` is heeded."""
    arguments, target = redirection(words)
    out = io.StringIO()
    with contextlib.redirect_stdout(out), pytest.raises(SystemExit) as stop:
        main([*arguments, *small(arguments)])
    assert stop.value.code in (0, None), f"tubelet {shlex.join(words)}: exit code {stop.value.code}\n{out.getvalue()}"
    if target is not None:
        Path(target).write_text(out.getvalue())


def small(arguments: list[str]) -> list[str]:
    """Changes that make a command of the page a small one; a clip of one frame stays one."""
    changes = SHRINK.get(arguments[0], ())
    if arguments[0] in ("pretrain", "finetune") and arguments[1].startswith("maskfeat-ti-"):
        changes = TINY_MASKFEAT
    if "clip.frames=1" not in arguments:
        return list(changes)
    return [change for change in changes if not change.startswith(("clip.frames=", "model.encoder.tubelet="))]


def redirection(words: list[str]) -> tuple[list[str], str | None]:
    if ">" not in words:
        return words, None
    place = words.index(">")
    assert place == len(words) - 2, "one file after >"
    return words[:place], words[-1]


def parsed(arguments: list[str]) -> dict[str, Any]:
    """Parameters of a command line; fails where a command, an option or an argument does not exist."""
    from tubelet.cli.app import app

    command, rest = typer.main.get_command(app), list(arguments)
    while isinstance(command, TyperGroup):
        assert rest, "a command is missing"
        assert rest[0] in command.commands, f"no such command: tubelet {shlex.join(arguments)}"
        command = command.commands[rest.pop(0)]
    context = command.make_context(command.name, rest)
    return dict(context.params)


def assert_recipe_fits(parameters: dict[str, Any]) -> None:
    """The recipe exists, and takes the changes as they stand on the page."""
    from tubelet.recipe import change_stages
    from tubelet.recipes.load import load_any_recipe
    from tubelet.recipes.progressive import PROGRESSIVE

    name = parameters.get("recipe") or parameters.get("name")
    if name in PROGRESSIVE:
        change_stages(PROGRESSIVE[name](), list(parameters.get("changes") or ()))
    elif name is not None and not str(name).endswith(".yaml"):
        load_any_recipe(str(name), list(parameters.get("changes") or ()))
