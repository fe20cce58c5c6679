"""How a run learns and how its work is cut up."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tubelet.spec import OneOf, Spec


class Optim(Spec):
    """AdamW. Rates are per 256 videos a step: the rate used is `lr * batch_size / 256`."""

    lr: float = Field(default=1.5e-4, gt=0)
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = Field(default=1e-8, gt=0)
    weight_decay: float = Field(default=0.05, ge=0)
    clip_grad: float | None = Field(default=None, gt=0, description="largest global gradient norm")
    layer_decay: float | None = Field(default=None, gt=0, le=1, description="factor on the rate per layer from the top")


class Schedule(Spec):
    """Linear warm-up, then cosine, set anew each step."""

    epochs: int = Field(default=800, ge=1)
    warmup_epochs: float = Field(default=40, ge=0)
    min_lr: float = Field(default=1e-5, ge=0, description="per 256 videos")
    start_lr: float = Field(default=0.0, ge=0, description="per 256 videos")


class Run(Spec):
    """How the work is cut up and kept. Only `batch_size` changes what is learnt; `accumulate` changes some draws."""

    batch_size: int = Field(default=256, ge=1, description="videos in an optimiser step, over all devices")
    accumulate: int = Field(default=1, ge=1, description="pieces each device cuts a step into to save memory")
    parallel: Literal["auto", "ddp", "fsdp"] = Field(
        default="auto", description="under torchrun: weights whole on each device (ddp = auto), or spread (fsdp)"
    )
    lost_after_seconds: float = Field(
        default=60, ge=1, description="under torchrun: silence after which a process is taken for dead"
    )
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    log_every: int = Field(default=10, ge=1, description="steps between two looks at the device")
    save_every: int = Field(default=500, ge=1, description="steps between two checkpoints")
    keep: int = Field(default=2, ge=1, description="checkpoints kept")
    threads: int | None = Field(default=None, ge=1, description="CPU threads of the model; all cores by default")
    compile: Literal["auto", "blocks", "never"] = Field(
        default="auto", description="torch.compile of each block; auto: on a GPU with Triton"
    )


class Views(Spec):
    """Test views of a video: clips in time, crops in space; their scores are averaged."""

    clips: int = Field(default=5, ge=1)
    crops: int = Field(default=3, ge=1)


class FreshHead(Spec):
    """`fc_norm` and head start from random weights, as after every pre-training."""

    kind: Literal["fresh"] = "fresh"


class SameClasses(Spec):
    """Each class starts from the row of the class of the same name in the classifier to start from; `fc_norm` too.

    The label map of VideoMAE V2 (arXiv:2303.16727, section 3.4), whose runs go from 710 classes of Kinetics to 400 and
    600 of them: by the names of the classes, whatever their numbers. A class without a row starts fresh.
    """

    kind: Literal["same_classes"] = "same_classes"
    class_names: str | None = Field(
        default=None, description="file with the start's class names, one a line, where it has none (released weights)"
    )
    renames: str | None = Field(default=None, description="csv of names that differ: name here, name in the start")


StartPart = Literal["whole", "encoder"]
"""What a pre-training takes of the model that it starts from: every tensor, or those of the encoder alone."""
Inflate = Literal["centre", "mean"]
"""How the patch embedding of an image model becomes one of several frames: all to the middle one, or equal parts."""
StartHead = Annotated[FreshHead | SameClasses, OneOf()]
"""Either of them, read from data by its `kind`."""
