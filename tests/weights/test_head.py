"""A head from the rows of another one's, by the names of the classes: V2's label maps from K710."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tubelet.methods.autoencoder import MaskedAutoencoderSpec
from tubelet.methods.classifier import Classifier, ClassifierSpec
from tubelet.models.decoder import DecoderSpec
from tubelet.models.vit import ViTSpec
from tubelet.recipe import FinetuneRecipe, SameClasses, override, parse_recipe, to_yaml
from tubelet.targets.pixels import NormalisedPixels
from tubelet.types import ClipShape
from tubelet.weights.start import classifier_state, start_classifier
from tubelet.weights.tensors.rename import to_official
from tubelet.weights.videomae.names import FINETUNED

CLIP = ClipShape(frames=4, size=16)
ENCODER = ViTSpec(width=8, depth=1, heads=2, patch=8)
K710 = ("abseiling", "Golf Driving", "zumba", "arm wrestling", "yoga")
K400 = ("zumba", "golf_driving", "wrestling", "archery")


def classifier(classes: int, **changes: str) -> Classifier:
    model = ClassifierSpec.model_validate({"encoder": ENCODER, **changes}).build(CLIP, classes)
    for tensor in model.parameters():
        torch.nn.init.normal_(tensor)
    return model


@pytest.fixture
def source() -> Classifier:
    return classifier(len(K710))


@pytest.fixture
def run(source: Classifier, tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    save_file(source.state_dict(), tmp_path / "run/model.safetensors")
    (tmp_path / "run/classes.txt").write_text("\n".join(K710) + "\n")
    return tmp_path / "run"


def test_rows_go_to_the_classes_of_their_names(source: Classifier, run: Path) -> None:
    model = classifier(4)
    weight, bias = model.head.weight.detach().clone(), model.head.bias.detach().clone()
    started = start_classifier(model, run, head=SameClasses(), names=K400)
    for row, theirs in ((0, 2), (1, 1)):
        assert torch.equal(model.head.weight[row], source.head.weight[theirs])
        assert torch.equal(model.head.bias[row], source.head.bias[theirs])
    for row in (2, 3):
        assert torch.equal(model.head.weight[row], weight[row])
        assert torch.equal(model.head.bias[row], bias[row])
    for name, value in source.fc_norm.state_dict().items():
        assert torch.equal(model.fc_norm.state_dict()[name], value)
    assert started.fresh == ()
    assert "head: 2 of 4 classes by their names; 2 start fresh: wrestling, archery" in started.notes


def test_all_of_its_classes_give_its_logits(source: Classifier, run: Path) -> None:
    model = classifier(3)
    start_classifier(model, run, head=SameClasses(), names=("yoga", "abseiling", "zumba"))
    video = torch.randint(0, 256, (2, 3, 4, 16, 16), dtype=torch.uint8)
    torch.testing.assert_close(model.eval()(video), source.eval()(video)[:, [4, 0, 2]])


def test_a_list_of_renames_finds_the_rest(source: Classifier, run: Path, tmp_path: Path) -> None:
    (tmp_path / "renames.csv").write_text("wrestling,arm wrestling\n")
    model = classifier(4)
    head = SameClasses(renames=str(tmp_path / "renames.csv"))
    (note,) = start_classifier(model, run, head=head, names=K400).notes
    assert torch.equal(model.head.weight[2], source.head.weight[3])
    assert note.endswith("3 of 4 classes by their names; 1 start fresh: archery")
    (tmp_path / "renames.csv").write_text("wrestlers,arm wrestling\n")
    with pytest.raises(ValueError, match=r"renames.csv: 'wrestlers' is to be renamed, but no class has this name"):
        start_classifier(model, run, head=head, names=K400)


def test_a_released_file_gets_its_names_from_a_list(source: Classifier, tmp_path: Path) -> None:
    path = tmp_path / "k710.pth"
    torch.save({"module": to_official(source.state_dict(), FINETUNED), "args": argparse.Namespace()}, path)
    model = classifier(4)
    with pytest.raises(
        ValueError, match=r"k710.pth: its classes have no names; give a file of them \(start_head.class_n"
    ):
        start_classifier(model, path, head=SameClasses(), names=K400)
    (tmp_path / "label_map_k710.txt").write_text("\n".join(K710) + "\n")
    start_classifier(model, path, head=SameClasses(class_names=str(tmp_path / "label_map_k710.txt")), names=K400)
    assert torch.equal(model.head.weight[0], source.head.weight[2])
    (tmp_path / "short.txt").write_text("\n".join(K710[:3]) + "\n")
    with pytest.raises(ValueError, match=r"k710.pth: its head has 5 classes, but .*short.txt has 3"):
        start_classifier(model, path, head=SameClasses(class_names=str(tmp_path / "short.txt")), names=K400)


def test_a_fresh_head_stays_the_default(run: Path) -> None:
    model = classifier(4)
    before = model.head.weight.detach().clone()
    assert set(start_classifier(model, run).fresh) == {"fc_norm.weight", "fc_norm.bias", "head.weight", "head.bias"}
    assert torch.equal(model.head.weight, before)
    assert FinetuneRecipe(name="x").start_head.kind == "fresh"


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("0", "1"), "needs names of the classes to learn; give a file (data.class_names)"),
        (("karate", "judo"), "none of the 2 classes (karate, ...) is among its 5 (abseiling, ...)"),
    ],
)
def test_classes_that_cannot_be_matched_are_refused(names: tuple[str, ...], words: str, run: Path) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        start_classifier(classifier(2), run, head=SameClasses(), names=names)


def test_numbers_are_no_names_of_the_start(run: Path) -> None:
    (run / "classes.txt").write_text("0\n1\n2\n3\n4\n")
    with pytest.raises(ValueError, match="its classes have no names"):
        start_classifier(classifier(4), run, head=SameClasses(), names=K400)


def test_a_start_without_a_head_or_with_another_reading_is_refused(run: Path, tmp_path: Path) -> None:
    autoencoder = MaskedAutoencoderSpec(encoder=ENCODER, decoder=DecoderSpec(width=8, depth=1, heads=2))
    (tmp_path / "pre").mkdir()
    save_file(autoencoder.build(CLIP, NormalisedPixels()).state_dict(), tmp_path / "pre/model.safetensors")
    with pytest.raises(ValueError, match=r"model.safetensors: has no head to start from"):
        start_classifier(classifier(4), tmp_path / "pre", head=SameClasses(), names=K400)
    with pytest.raises(ValueError, match="pooling 'mean', here 'first'"):
        start_classifier(classifier(4, pooling="first"), run, head=SameClasses(), names=K400)


def test_a_shell_is_checked_and_stays_one(run: Path) -> None:
    with torch.device("meta"):
        shell = ClassifierSpec(encoder=ENCODER).build(CLIP, 4)
    _, started = classifier_state(shell, run, head=SameClasses(), names=K400)
    assert started.notes[-1].startswith("head: 2 of 4 classes")
    assert shell.head.weight.is_meta


def test_the_command_line_names_it_by_its_kind() -> None:
    recipe = override(FinetuneRecipe(name="x"), ["start_head=same_classes", "start_head.renames=r.csv"])
    assert recipe.start_head == SameClasses(renames="r.csv")
    assert parse_recipe(to_yaml(recipe), "x") == recipe
