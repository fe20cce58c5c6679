"""Weights to start from: of a run, a checkpoint folder, a file, a released checkpoint or a Hugging Face folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from tubelet.data.class_names import Names
from tubelet.disk.layout import weights_file as weights_file
from tubelet.disk.tensors import State
from tubelet.methods.classifier import Classifier
from tubelet.methods.masked import MaskedMethod
from tubelet.models.encoders import Encoder
from tubelet.models.mvit.model import MViTSpec
from tubelet.recipe import FreshHead, SameClasses, StartHead
from tubelet.weights.head import mapped_head
from tubelet.weights.imported import ENCODER, MASK_TOKEN, encoder_state
from tubelet.weights.slowfast.spec import check_widening
from tubelet.weights.source import Source, read_source
from tubelet.weights.tensors.strict import check_fit
from tubelet.weights.videomae.shapes import USUAL


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


def all_weights(path: Path) -> State:
    """Every tensor under the names of our methods, whatever the origin.

    ValueError where the file is missing, cut short, of another model, or wants to run code.
    """
    return read_source(path).state


def encoder_weights(path: Path) -> State:
    """The tensors of the encoder, by their names in `ViT`; the final norm is among them where the file has one."""
    return encoder_state(all_weights(path))


def start_classifier(
    classifier: Classifier, path: Path, *, head: StartHead = FreshHead(), names: Names = ()
) -> Started:
    """Put a pre-trained encoder under a classifier, strictly; `fc_norm` and head stay fresh unless `head` says more.

    Fine-tuning reads the mean of the tokens through its own norm, so the encoder's final norm is dropped (V1
    `run_class_finetuning.py`), unless the classifier has it (pooling "first"). A learnt position table of another clip
    is stretched; for fixed ones the recipe decides (`model.encoder.positions`), and a note says how. `names` are those
    of the classifier's classes, for a head that starts from other ones (`tubelet.weights.head`).
    """
    state, started = classifier_state(classifier, path, head=head, names=names)
    classifier.load_state_dict(state, strict=False)
    return started


def start_whole(method: nn.Module, path: Path) -> Started:
    """Load every tensor of a method of the same kind and size: to go on pre-training from another run.

    Positions as in `start_classifier`.
    """
    state, started = whole_state(method, path)
    method.load_state_dict(state, strict=True)
    return started


def classifier_state(
    classifier: Classifier, start: Path | Source, *, head: StartHead = FreshHead(), names: Names = ()
) -> tuple[State, Started]:
    """What `start_classifier` loads, and its errors. Classifier and source may be on the meta device."""
    source = read_source(start) if isinstance(start, Path) else start
    state, notes = _placed(source, classifier.encoder)
    taken: State = {}
    if isinstance(head, SameClasses):
        taken, said = mapped_head(head, names, source, classifier)
        notes = (*notes, *said)
    wanted = classifier.state_dict()
    final_norm = isinstance(classifier.encoder.norm, nn.LayerNorm)
    left = (MASK_TOKEN,) if final_norm else (MASK_TOKEN, "encoder.norm.")
    used = {n: t for n, t in state.items() if n.startswith(ENCODER) and not n.startswith(left)}
    used |= taken
    fresh = tuple(n for n in wanted if n not in used and (not n.startswith(ENCODER) or n.startswith("encoder.norm.")))
    check_fit(used, {n: t for n, t in wanted.items() if n not in fresh}, source.file)
    unused = tuple(n for n in state if n not in used)
    return used, Started(source.file, tuple(used), (*source.dropped, *unused), fresh, (*source.notes, *notes))


def whole_state(method: nn.Module, start: Path | Source) -> tuple[State, Started]:
    """What `start_whole` loads, and its errors. Method and source may be on the meta device."""
    source = read_source(start) if isinstance(start, Path) else start
    state, notes = _placed(source, method.encoder) if isinstance(method, MaskedMethod) else (source.state, ())
    check_fit(state, method.state_dict(), source.file)
    return state, Started(source.file, tuple(state), source.dropped, (), (*source.notes, *notes))


def _placed(source: Source, encoder: Encoder) -> tuple[State, tuple[str, ...]]:
    """The state with positions for the clips of this encoder; notes where they were trained for others."""
    if isinstance(encoder.spec, MViTSpec):
        check_widening(source.state, encoder.spec, source.file)
    trained = USUAL if source.clip is None and source.is_released else source.clip
    spec, bare, note = encoder.spec.stretched(encoder_state(source.state), trained, encoder.clip)
    if trained is not None and spec != encoder.spec:  # fixed positions: the recipe decides
        said = " (as all published ones; the file does not say)" if source.clip is None else ""
        setting = f"model.encoder.positions='{{frames: {trained.frames}, size: {trained.size}}}'"
        return source.state, (
            f"the weights were trained with {trained.words()}{said}; positions are made anew for "
            f"{encoder.clip.words()}: to interpolate the trained ones instead, set {setting}",
        )
    state = {**source.state, **{ENCODER + name: tensor for name, tensor in bare.items()}}
    return state, tuple(filter(None, [note]))
