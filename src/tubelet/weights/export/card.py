"""What lies beside the weights in a folder of transformers: how to prepare clips, and a model card."""

from __future__ import annotations

import json
from typing import Any, Final

from tubelet.nn.pixels import IMAGENET_MEAN, IMAGENET_STD
from tubelet.types import ClipShape
from tubelet.weights.checkpoint import Checkpoint
from tubelet.weights.huggingface.config import PROCESSORS

_BILINEAR: Final = 2
_MANY: Final = 50
_CARD: Final = """\
---
library_name: transformers
tags: [videomae, video]
pipeline_tag: {task}
---
# {name}

A VideoMAE model ({architecture}), exported by tubelet. {purpose}

```python
from transformers import {architecture}

model = {architecture}.from_pretrained("path/to/this/folder")
```

**Input** `pixel_values` [B, {frames}, 3, {size}, {size}]: clip, frame, colour (RGB), row, column. Frames are scaled
so that the short side has {size} pixels, and the square in the middle is cut out. The model takes this size only.

**Normalisation** colours in 0..1, minus ImageNet's mean {mean}, over its deviation {std}. The defaults of
transformers' processor class (0.5 and 0.5) are wrong for this model; the processor files in this folder are right.

**Frames** taken from a video as in training: {sampler}.

{rest}"""


def processors(clip: ClipShape) -> dict[str, dict[str, Any]]:
    """Processor files by their names: the short side to size, the square in the middle, ImageNet's statistics.

    As `test_crops` in `tubelet.video.augment.crops` with one crop does; the same up to the rounding of the resize.
    """
    shared = {
        "do_resize": True,
        "size": {"shortest_edge": clip.size},
        "resample": _BILINEAR,
        "do_center_crop": True,
        "crop_size": {"height": clip.size, "width": clip.size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(IMAGENET_MEAN),
        "image_std": list(IMAGENET_STD),
    }
    image, video = PROCESSORS
    return {
        image: {"image_processor_type": "VideoMAEImageProcessor", **shared},
        video: {
            "video_processor_type": "VideoMAEVideoProcessor",
            **shared,
            "do_convert_rgb": True,
            "do_sample_frames": False,
        },
    }


def model_card(found: Checkpoint, architecture: str, config: dict[str, Any]) -> str:
    """A short `README.md`: what the model is, what it takes, what its outputs are."""
    recipe = found.recipe
    classifier = found.has_head
    return _CARD.format(
        task="video-classification" if classifier else "feature-extraction",
        name=recipe.name,
        architecture=architecture,
        purpose="It gives scores of classes." if classifier else "It is pre-trained without labels.",
        frames=recipe.clip.frames,
        size=recipe.clip.size,
        mean=list(IMAGENET_MEAN),
        std=list(IMAGENET_STD),
        sampler=", ".join(f"{name} {value}" for name, value in recipe.data.sampler.model_dump().items()),
        rest=_classes(config),
    )


def json_text(fields: dict[str, Any]) -> str:
    """As transformers writes it, names in any script."""
    return json.dumps(fields, indent=2, ensure_ascii=False) + "\n"


def _classes(config: dict[str, Any]) -> str:
    if "id2label" not in config:
        return ""
    names = list(config["id2label"].values())
    some = ", ".join(names[:_MANY]) + (" ..." if len(names) > _MANY else "")
    return f"**Classes** {len(names)}, in `config.json`: {some}\n"
