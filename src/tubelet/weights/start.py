"""Weights to start from: a run, a checkpoint folder, a file, a released checkpoint or a Hugging Face folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from torch import nn

from tubelet.data.class_names import Names
from tubelet.disk.layout import weights_file as weights_file
from tubelet.disk.tensors import State
from tubelet.methods.classifier import Classifier
from tubelet.methods.masked import MaskedMethod
from tubelet.models.encoders import Encoder
from tubelet.recipe import FreshHead, Inflate, SameClasses, StartHead, StartPart
from tubelet.types import ClipShape
from tubelet.weights.checkpoint import ENCODER, MASK_TOKEN, POSITIONS, Weights, encoder_state
from tubelet.weights.head import mapped_head
from tubelet.weights.inflate import inflated
from tubelet.weights.read import read_weights
from tubelet.weights.slowfast.spec import check_widening
from tubelet.weights.tensors.strict import check_fit

NORM: Final = "encoder.norm."
LISTED: Final = 6
"""Names that a line lists one by one; of more it counts those of each part."""
_OPTIONS: Final = {
    POSITIONS: ("learnt positions", "learnable_positions", "true", "false"),
    "encoder.blocks.0.scale1": ("layer scale", "layer_scale", "0.1", "null"),
}
"""Tensors that an option of an encoder makes: what they are, its field, and its value to have them, or not."""


@dataclass(frozen=True)
class Started:
    """What became of the names: `loaded` into the model, `dropped` from the file, `fresh` in the model.

    `dropped` has those that the file's own form makes useless by their names there. `notes` are lines for the user.
    """

    file: Path
    loaded: tuple[str, ...]
    dropped: tuple[str, ...]
    fresh: tuple[str, ...]
    notes: tuple[str, ...] = ()
    part: StartPart = "encoder"

    @property
    def lines(self) -> tuple[str, ...]:
        """All of it in words: what was taken, what was left out, what begins anew, and the notes."""
        if self.part == "whole":
            return (f"weights from {self.file}", *self.notes)
        which = f" ({_listed(self.dropped)})" if self.dropped else ""
        unused = f"{len(self.dropped)} of the file not used{which}"
        fresh = _listed(self.fresh) or "none"
        return (f"encoder from {self.file}: {len(self.loaded)} tensors; {unused}; fresh: {fresh}", *self.notes)


def all_weights(path: Path) -> State:
    """Every tensor under the names of our methods, whatever the origin.

    ValueError where the file is missing, cut short, of another model, or wants to run code.
    """
    return read_weights(path).state


def encoder_weights(path: Path) -> State:
    """The tensors of the encoder, by their names in it; the final norm is among them where the file has one."""
    return encoder_state(all_weights(path))


def start_classifier(
    classifier: Classifier,
    path: Path,
    *,
    head: StartHead = FreshHead(),
    names: Names = (),
    inflate: Inflate = "centre",
) -> Started:
    """Put a pre-trained encoder under a classifier, strictly; `fc_norm` and head stay fresh unless `head` says more.

    Fine-tuning reads the mean of the tokens through its own norm, so the encoder's final norm is dropped (V1
    `run_class_finetuning.py`), unless the classifier has it (pooling "first"). A learnt position table of another clip
    is stretched; for fixed ones the recipe decides (`model.encoder.positions`), and a note says how. An encoder of
    images is inflated as `inflate` says (`tubelet.weights.inflate`). `names` are those of the classifier's classes, for
    a head that starts from other ones (`tubelet.weights.head`).
    """
    state, started = classifier_state(classifier, path, head=head, names=names, inflate=inflate)
    classifier.load_state_dict(state, strict=False)
    return started


def start_masked(method: nn.Module, path: Path, *, part: StartPart = "whole", inflate: Inflate = "centre") -> Started:
    """Load a masked method from another model: every tensor of one of the same kind and size, or the encoder alone.

    With `part` "encoder" the file may be of any kind, such as a classifier or a method with another target, decoder or
    shape; what is not of the encoder begins anew. Positions and images as in `start_classifier`.
    """
    state, started = masked_state(method, path, part=part, inflate=inflate)
    method.load_state_dict(state, strict=False)
    return started


def classifier_state(
    classifier: Classifier,
    start: Path | Weights,
    *,
    head: StartHead = FreshHead(),
    names: Names = (),
    inflate: Inflate = "centre",
) -> tuple[State, Started]:
    """What `start_classifier` loads, and its errors. Classifier and weights may be on the meta device."""
    found = read_weights(start) if isinstance(start, Path) else start
    taken: State = {}
    said: tuple[str, ...] = ()
    if isinstance(head, SameClasses):
        taken, said = mapped_head(head, names, found, classifier)
    return _encoder_alone(classifier, classifier.encoder, found, inflate, taken=taken, said=said)


def masked_state(
    method: nn.Module, start: Path | Weights, *, part: StartPart = "whole", inflate: Inflate = "centre"
) -> tuple[State, Started]:
    """What `start_masked` loads, and its errors. Method and weights may be on the meta device."""
    found = read_weights(start) if isinstance(start, Path) else start
    assert isinstance(method, MaskedMethod)
    if part == "encoder":
        return _encoder_alone(method, method.encoder, found, inflate)
    state, notes = _placed(found, method.encoder, inflate)
    try:
        check_fit(state, method.state_dict(), found.file)
    except ValueError as error:
        raise ValueError(f"{error}{_way_out(method, found, inflate)}") from error
    return state, Started(found.file, tuple(state), found.dropped, (), (*found.notes, *notes), "whole")


def _way_out(method: MaskedMethod, found: Weights, inflate: Inflate) -> str:
    """A word more where the encoder alone would do."""
    try:
        _encoder_alone(method, method.encoder, found, inflate)
    except ValueError:
        return ""
    return "; its encoder alone fits: start_part=encoder takes that"


def _encoder_alone(
    model: nn.Module,
    encoder: Encoder,
    found: Weights,
    inflate: Inflate,
    *,
    taken: State | None = None,
    said: tuple[str, ...] = (),
) -> tuple[State, Started]:
    """The encoder's tensors, strictly, and others that were `taken`; norm and mask token may be on one side alone."""
    state, notes = _placed(found, encoder, inflate)
    wanted = model.state_dict()
    optional = (MASK_TOKEN, NORM)
    used = {
        name: tensor
        for name, tensor in state.items()
        if name.startswith(ENCODER) and (name in wanted or not name.startswith(optional))
    }
    used |= taken or {}
    fresh = tuple(
        name for name in wanted if name not in used and (not name.startswith(ENCODER) or name.startswith(optional))
    )
    check_fit(used, {name: tensor for name, tensor in wanted.items() if name not in fresh}, found.file)
    unused = tuple(name for name in state if name not in used)
    dropped = (*found.dropped, *unused)
    return used, Started(found.file, tuple(used), dropped, fresh, (*found.notes, *notes, *said))


def _placed(found: Weights, encoder: Encoder, inflate: Inflate) -> tuple[State, tuple[str, ...]]:
    """The state with kernels and positions for the clips of this encoder; notes where they were trained for others."""
    no_notes: tuple[str, ...] = ()
    trained = found.trained_clip
    words = "" if trained is None else trained.words()
    state, notes = found.state, no_notes
    if trained is None and found.usual is not None:
        trained = found.usual
        words = f"{trained.words()} (as all published ones; the file does not say)"
    elif trained is not None and trained.frames == 1 and encoder.clip.frames > 1:
        state, notes = inflated(state, encoder, inflate)
        words = f"images of {trained.size} x {trained.size}"
        trained = ClipShape(frames=encoder.spec.cube.frames, size=trained.size)  # one step of the grid
    own = {ENCODER + name: tensor for name, tensor in encoder.state_dict().items()}
    _check_options(state, encoder, found.file)
    check_widening(state, own, found.file)
    spec, bare, note = encoder.spec.stretched(encoder_state(state), trained, encoder.clip)
    note = note if trained is None else note.replace(trained.words(), words)
    if trained is not None and spec != encoder.spec:  # fixed positions: the recipe decides
        setting = f"model.encoder.positions='{{frames: {trained.frames}, size: {trained.size}}}'"
        note = (
            f"the weights were trained with {words}; positions are made anew for {encoder.clip.words()}: "
            f"to interpolate the trained ones instead, set {setting}"
        )
    state = {**state, **{ENCODER + name: tensor for name, tensor in bare.items()}}
    return state, (*notes, *filter(None, [note]))


def _check_options(state: State, encoder: Encoder, file: Path) -> None:
    """ValueError that says which option of the encoder differs, where it has such an option and tensors tell."""
    own = encoder.state_dict()
    for name, (what, field, to_have, not_to) in _OPTIONS.items():
        has = name.removeprefix(ENCODER) in own
        if (name in state) != has and field in type(encoder.spec).model_fields:
            there, here, value = ("no ", "", not_to) if has else ("", "no ", to_have)
            raise ValueError(
                f"{file}: has {there}{what}, this recipe's model {here}{what}: set model.encoder.{field}={value}"
            )


def _listed(names: tuple[str, ...]) -> str:
    """The names; where there are many, how many of each part: `decoder (12), head (2)`."""
    if len(names) <= LISTED:
        return ", ".join(names)
    counts: dict[str, int] = {}
    for name in names:
        part = ".".join(name.split(".")[:2]) if name.startswith(ENCODER) else name.split(".")[0]
        counts[part] = counts.get(part, 0) + 1
    return ", ".join(f"{part} ({count})" for part, count in counts.items())
