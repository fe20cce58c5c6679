"""An encoder of plain torch layers is planned without a line of the planner that knows it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, Literal

import pytest
import torch
from jaxtyping import Bool, Float, Int, Num
from test_memory import estimated, held_by_a_step
from torch import Tensor, nn
from torch.nn import functional as F

from tubelet.disk.tensors import State
from tubelet.methods.classifier import ClassifierSpec
from tubelet.models.base import Encoder, EncoderSpec, Grids, Stretched
from tubelet.models.encoders import ENCODERS
from tubelet.nn.init import xavier_
from tubelet.nn.mixing import NO_MIXING
from tubelet.plan.plan import Question, make_plan
from tubelet.recipe import FinetuneRecipe, Run
from tubelet.types import ClipShape, Cube

CLIP: Final = ClipShape(frames=8, size=64)
WIDTH, DEPTH, TOKENS = 32, 3, 4 * 4 * 4


class PlainSpec(EncoderSpec):
    kind: Literal["plain"] = "plain"
    width: int = WIDTH
    depth: int = DEPTH
    heads: int = 1

    @property
    def cube(self) -> Cube:
        return Cube(2, 16, 16)

    @property
    def out_width(self) -> int:
        return WIDTH

    @property
    def out_heads(self) -> int:
        return 1

    @property
    def has_class_token(self) -> bool:
        return False

    @property
    def can_drop(self) -> bool:
        return False

    def grids(self, clip: ClipShape) -> Grids:
        return Grids(clip.grid(self.cube), clip.grid(self.cube))

    def assemble(self, clip: ClipShape, *, final_norm: bool, masked: bool = False) -> Plain:
        return Plain(self, clip)

    @classmethod
    def tiny(cls) -> PlainSpec:
        return cls()

    def stretched(self, state: State, before: ClipShape | None, after: ClipShape) -> Stretched:
        return Stretched(self, state, "")


class Mixer(nn.Module):
    """A mixing of tokens by a linear map, and one of channels."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.tokens, self.channels = nn.Linear(TOKENS, TOKENS), nn.Linear(WIDTH, WIDTH)

    def forward(self, tokens: Tensor) -> Tensor:
        mixed: Tensor = tokens + self.tokens(self.norm(tokens).mT).mT
        return mixed + F.relu(self.channels(mixed))


class Plain(Encoder):
    def __init__(self, spec: PlainSpec, clip: ClipShape) -> None:
        super().__init__()
        self.spec, self.clip = spec, clip
        self.grid, self.out_grid = spec.grids(clip)
        self.out_width, self.out_heads, self.layers = WIDTH, 1, DEPTH + 1
        self.patch_embed = nn.Conv3d(3, WIDTH, spec.cube, spec.cube)
        self.mixers = nn.ModuleList(Mixer() for _ in range(DEPTH))
        self.norm = nn.Identity()

    def forward(
        self,
        video: Num[Tensor, "B C T H W"],
        seen: Int[Tensor, "B V"] | None = None,
        *,
        hidden: Bool[Tensor, "B t h w"] | None = None,
    ) -> Float[Tensor, "B _ D"]:
        tokens = self.patch_embed(video / 255.0).flatten(2).mT
        for mixer in self.mixers:
            tokens = mixer(tokens)
        found: Tensor = tokens
        return found

    def layer_of(self, name: str) -> int:
        return int(name.split(".")[1]) + 1 if name.startswith("mixers") else 0

    def stack(self) -> tuple[nn.Module, ...]:
        return tuple(self.mixers)

    @staticmethod
    def init_linear(layer: nn.Module) -> None:
        xavier_(layer)


@pytest.fixture(autouse=True)
def plain() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ENCODERS, "plain", PlainSpec)
        yield


def recipe(precision: Any = "fp32", clips: int = 4) -> FinetuneRecipe:
    run = Run(batch_size=clips, precision=precision, threads=1, device="cpu")
    model = ClassifierSpec(encoder=PlainSpec())
    return FinetuneRecipe(name="plain", classes=7, clip=CLIP, model=model, mixing=NO_MIXING, run=run)


def test_its_flops_and_parameters_are_counted() -> None:
    plan = make_plan(recipe(), Question(device="H100", videos=100))
    embed = 2 * TOKENS * WIDTH * 3 * 2 * 16 * 16
    mixers = DEPTH * 2 * (WIDTH * TOKENS * TOKENS + TOKENS * WIDTH * WIDTH)
    head = 2 * WIDTH * 7
    assert [(part.name, part.forward) for part in plan.flops.parts] == [
        ("patch embedding", embed), ("encoder", mixers), ("head", head)
    ]  # fmt: skip
    assert plan.flops.training == 3 * plan.flops.forward - embed
    assert plan.parameters["total"] == sum(plan.parameters[name] for name in ("encoder", "head"))


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_its_memory_is_what_a_step_holds(precision: str, tmp_path: Any) -> None:
    planned = estimated(recipe(precision)).estimate("one device")
    assert planned.peak == pytest.approx(held_by_a_step(recipe(precision), tmp_path), rel=0.05)


def test_it_is_placed_on_gpus_and_measured_here() -> None:
    plan = make_plan(recipe("auto", 8), Question(device="A100", count=2, videos=100))
    assert [placement.form for placement in plan.placements] == ["ddp", "fsdp"]
    assert plan.placements[0].largest_piece > 1
    assert plan.kept.peak == plan.recomputed.peak  # it has no option for it
    here = make_plan(recipe(), Question(videos=100, steps=0)).speed
    assert set(here.by_part) == {"patch embedding", "encoder", "head and loss", "update"}
    assert torch.tensor(list(here.by_part.values())).gt(0).all()
