"""How the head of a classifier starts."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tubelet.spec import ByKind, Spec


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


StartHead = Annotated[FreshHead | SameClasses, Field(discriminator="kind"), ByKind]
"""Either of them, read from data by its `kind`."""
