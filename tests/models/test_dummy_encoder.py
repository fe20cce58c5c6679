"""A third encoder costs one file and one line in `ENCODERS`; then it works in every command.

This file is the file, and the fixture `third` the line. The encoder has what neither ViT nor MViT has: blocks called
`stages.{i}.blocks.{j}`, a class token beside dropped tokens, and a table of positions that is never decayed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import pytest
import torch
from jaxtyping import Bool, Float, Int, Num
from safetensors.torch import load_file
from torch import Tensor, nn
from toy_claims import assert_goes_on, assert_two_ranks_agree, say
from toy_labelled import labelled_folder
from toy_run import finetune_recipe, pretrain_recipe

import tubelet
from tubelet.disk.tensors import State
from tubelet.methods.autoencoder import MaskedAutoencoderSpec
from tubelet.methods.classifier import Classifier, ClassifierSpec
from tubelet.methods.predictor import MaskedPredictorSpec
from tubelet.models.base import Encoder, EncoderSpec, Grids, Stretched
from tubelet.models.decoder import DecoderSpec
from tubelet.models.encoders import ENCODERS
from tubelet.nn.attention import Attention
from tubelet.nn.block import Block
from tubelet.nn.init import xavier_
from tubelet.nn.patch import CubeEmbed
from tubelet.nn.pixels import Normalise, all_cubes, take_cubes
from tubelet.nn.position import learnt, stretch, take_rows
from tubelet.recipe import FinetuneRecipe, PretrainRecipe, override, write_recipe
from tubelet.spec import replace
from tubelet.train.optim import parameter_groups
from tubelet.train.records.throughput import ThroughputScale
from tubelet.types import ClipShape, Cube


class StagedSpec(EncoderSpec):
    """Two stages of plain blocks."""

    kind: Literal["staged"] = "staged"
    width: int = 16
    depth: int = 4
    heads: int = 2
    checkpointing: bool = False

    @property
    def cube(self) -> Cube:
        return Cube(2, 8, 8)

    @property
    def out_width(self) -> int:
        return self.width

    @property
    def out_heads(self) -> int:
        return self.heads

    @property
    def has_class_token(self) -> bool:
        return True

    @property
    def can_drop(self) -> bool:
        return True

    def grids(self, clip: ClipShape) -> Grids:
        return Grids(clip.grid(self.cube), clip.grid(self.cube))

    def assemble(self, clip: ClipShape, *, final_norm: bool, masked: bool = False) -> Staged:
        return Staged(self, clip, final_norm=final_norm, masked=masked)

    @classmethod
    def tiny(cls) -> StagedSpec:
        return cls()

    def stretched(self, state: State, before: ClipShape | None, after: ClipShape) -> Stretched:
        if before is None or before == after:
            return Stretched(self, state, "")
        table = stretch(state["table"], before.grid(self.cube), after.grid(self.cube))
        note = f"positions learnt for {before.words()} are interpolated to {after.words()}"
        return Stretched(self, {**state, "table": table}, note)


class Staged(Encoder):
    """Names: `patch_embed`, `table`, `class_token`, `mask_token`, `stages.{i}.blocks.{j}`, `norm`."""

    spec: StagedSpec

    def __init__(self, spec: StagedSpec, clip: ClipShape, *, final_norm: bool, masked: bool) -> None:
        super().__init__()
        self.spec, self.clip = spec, clip
        self.grid, self.out_grid = spec.grids(clip)
        self.out_width, self.out_heads, self.layers = spec.width, spec.heads, spec.depth + 1
        self.normalise = Normalise()
        self.patch_embed = CubeEmbed(spec.width, spec.cube)
        self.table = learnt(self.grid.tokens, spec.width)
        self.class_token = learnt(1, spec.width)
        self.mask_token = learnt(1, spec.width) if masked else None
        self.stages = nn.ModuleList(_stage(spec, spec.depth // 2) for _ in range(2))
        self.norm = nn.LayerNorm(spec.width) if final_norm else nn.Identity()

    def forward(
        self,
        video: Num[Tensor, "B C T H W"],
        seen: Int[Tensor, "B V"] | None = None,
        *,
        hidden: Bool[Tensor, "B t h w"] | None = None,
    ) -> Float[Tensor, "B _ D"]:
        return self._all(video, seen, hidden)[:, 1:]

    def tokens_and_class(
        self, video: Num[Tensor, "B C T H W"]
    ) -> tuple[Float[Tensor, "B N D"], Float[Tensor, "B D"] | None]:
        tokens = self._all(video, None, None)
        return tokens[:, 1:], tokens[:, 0]

    def _all(self, video: Tensor, seen: Tensor | None, hidden: Tensor | None) -> Tensor:
        self.check(video)
        cube = self.spec.cube
        cubes = all_cubes(video, cube) if seen is None else take_cubes(video, seen, cube)
        tokens = self.patch_embed(self.normalise(cubes))
        if hidden is not None:
            assert self.mask_token is not None
            tokens = torch.where(hidden.flatten(1).unsqueeze(2), self.mask_token.to(tokens.dtype), tokens)
        tokens = tokens + (self.table if seen is None else take_rows(self.table, seen))
        tokens = torch.cat([self.class_token.expand(len(tokens), -1, -1), tokens], dim=1)
        for block in self.stack():
            tokens = block(tokens)
        out: Tensor = self.norm(tokens)
        return out

    def layer_of(self, name: str) -> int:
        part, *rest = name.split(".")
        if part == "stages":
            return int(rest[0]) * (self.spec.depth // 2) + int(rest[2]) + 1
        return self.layers if part == "norm" else 0

    def not_decayed(self) -> set[str]:
        return {"table", "class_token"}

    def stack(self) -> tuple[nn.Module, ...]:
        return tuple(block for stage in self.stages for block in stage.get_submodule("blocks").children())

    @staticmethod
    def init_linear(layer: nn.Module) -> None:
        xavier_(layer)


def _stage(spec: StagedSpec, depth: int) -> nn.ModuleDict:
    blocks = [Block(Attention(spec.width, spec.heads), mlp_ratio=2.0) for _ in range(depth)]
    return nn.ModuleDict({"blocks": nn.ModuleList(blocks)})


CLIP = ClipShape(frames=4, size=16)
Model = MaskedAutoencoderSpec | MaskedPredictorSpec


@pytest.fixture(autouse=True, scope="module")
def third() -> Iterator[None]:
    """The one line; what a step takes is counted of ViT and MViT only, so that is left out."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ENCODERS, "staged", StagedSpec)
        for kind in ("pretrain", "finetune"):
            patch.setattr(f"tubelet.runs.{kind}.throughput_scale_of", lambda *_: ThroughputScale(), raising=False)
        yield


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return labelled_folder(tmp_path_factory.mktemp("videos"), each=4)


def autoencoder() -> Model:
    return MaskedAutoencoderSpec(encoder=StagedSpec(), decoder=DecoderSpec(width=16, depth=1, heads=2))


def predictor() -> Model:
    return MaskedPredictorSpec(encoder=StagedSpec())


def recipe(videos: Path, model: Model, *changes: str) -> PretrainRecipe:
    fixed = (f"data.videos={videos}", "data.sampler={kind: strided, stride: 1}", "schedule.warmup_epochs=0")
    return override(replace(pretrain_recipe(), model=model), [*fixed, *changes])


def tuning(*changes: str) -> FinetuneRecipe:
    model = ClassifierSpec(encoder=StagedSpec(), pooling="class")
    fixed = ("data.sampler={kind: span, stride: 1}", "schedule.epochs=1", "schedule.warmup_epochs=0", "classes=2")
    return override(replace(finetune_recipe(), model=model), [*fixed, *changes])


@pytest.fixture(scope="module")
def pretrained(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pretrained")
    write_recipe(recipe(videos, autoencoder()), folder / "toy.yaml")
    say("pretrain", str(folder / "toy.yaml"), "--data", str(videos), "--out", str(folder / "run"))
    return folder / "run"


@pytest.fixture(scope="module")
def tuned(pretrained: Path, videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tuned")
    write_recipe(tuning(), folder / "tune.yaml")
    training = ("--train", str(videos), "--val", str(videos), "--start", str(pretrained), "--out", str(folder / "run"))
    said = say("finetune", str(folder / "tune.yaml"), *training)
    assert f"encoder from {pretrained}" in said
    return folder / "run"


def test_pretrain_writes_its_tensors(pretrained: Path) -> None:
    names = load_file(pretrained / "model/model.safetensors").keys()
    assert {"encoder.table", "encoder.stages.1.blocks.0.norm1.weight", "decoder.mask_token"} <= names


@pytest.mark.parametrize("model", [autoencoder, predictor])
def test_stopping_and_going_on_changes_nothing(model: Callable[[], Model], videos: Path, tmp_path: Path) -> None:
    assert_goes_on(recipe(videos, model(), "schedule.epochs=2"), tmp_path, step=2)


def test_fine_tuning_starts_from_it_and_evaluates(tuned: Path, videos: Path) -> None:
    assert "top-1" in say("evaluate", str(tuned), str(videos))


def test_embed_and_load_give_its_tokens(pretrained: Path, tuned: Path, videos: Path, tmp_path: Path) -> None:
    for run in (pretrained, tuned):
        store = tmp_path / f"{run.parent.name}.parquet"
        say("embed", str(videos), "--from", str(run), "--out", str(store), "--device", "cpu")
        assert store.is_file()
    clip = torch.zeros(1, 3, 4, 16, 16, dtype=torch.uint8)
    assert tubelet.load(pretrained, device="cpu").encode(clip).tokens.shape == (1, 8, 16)
    larger = tubelet.load(pretrained, device="cpu", frames=8, size=32)
    assert larger.encode(torch.zeros(1, 3, 8, 32, 32, dtype=torch.uint8)).tokens.shape == (1, 64, 16)
    assert larger.notes[-1].startswith("positions learnt for 4 frames of 16 x 16")


def test_reconstruct_shows_what_it_predicts(pretrained: Path, videos: Path, tmp_path: Path) -> None:
    say("reconstruct", str(videos / "dark/0.mp4"), "--from", str(pretrained), "-o", str(tmp_path / "strip.png"))
    assert (tmp_path / "strip.png").is_file()


def test_inspect_says_its_sizes(pretrained: Path) -> None:
    assert "width 16, depth 4, heads 2" in say("weights", "inspect", str(pretrained))
    known = json.loads(say("weights", "inspect", str(pretrained), "--json"))
    assert (known["kind"], known["positions"]) == ("staged", "learnt")


def test_layer_decay_gives_each_block_its_own_rate() -> None:
    classifier: Classifier = tuning().model.build(CLIP, 2)
    groups = parameter_groups(classifier, weight_decay=0.05, layer_decay=0.5, encoder=classifier.encoder)
    scales = {name: group.lr_scale for group in groups for name in group.names}
    blocks = ("0.blocks.0", "0.blocks.1", "1.blocks.0", "1.blocks.1")
    found = [scales[f"encoder.stages.{block}.mlp.fc1.weight"] for block in blocks]
    assert found == [0.5**4, 0.5**3, 0.5**2, 0.5]
    assert (scales["encoder.patch_embed.weight"], scales["head.weight"]) == (0.5**5, 1.0)
    decayed = {name for group in groups if group.weight_decay for name in group.names}
    assert not decayed & {"encoder.table", "encoder.class_token"}


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_ranks_give_the_losses_of_one_process(parallel: str, videos: Path, tmp_path: Path) -> None:
    changes = ("schedule.epochs=2", f"run.parallel={parallel}")
    assert len(assert_two_ranks_agree(recipe(videos, autoencoder(), *changes), tmp_path)) == 4


def test_a_recipe_names_it_and_a_slip_is_told(videos: Path) -> None:
    named = override(recipe(videos, autoencoder()), ["model.encoder=staged", "model.encoder.depth=2"])
    assert named.model.encoder == StagedSpec(depth=2)
    with pytest.raises(ValueError, match=r"model\.encoder: unknown kind 'stagd'; did you mean 'staged'\?"):
        override(recipe(videos, autoencoder()), ["model.encoder=stagd"])
