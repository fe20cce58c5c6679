"""The classifier on a multiscale encoder, and its training on real files."""

from pathlib import Path

import pytest
import torch
from toy_labelled import labelled_folder, toy_recipe
from toy_run import Notes

from tubelet.inference.model import load
from tubelet.methods.classifier import Classifier, ClassifierSpec, Finetuning
from tubelet.models.mvit.model import MViT, MViTSpec, MViTStage
from tubelet.models.vit import ViTSpec
from tubelet.nn.mixing import NO_MIXING, Mixing
from tubelet.recipe import FinetuneRecipe, Optim, Schedule, encoder_run, override, read_recipe, to_yaml
from tubelet.runs.finetune import finetune, finetuning_groups
from tubelet.spec import replace
from tubelet.types import Batch, Clips, ClipShape
from tubelet.weights.classifier import load_classifier

CLIP = ClipShape(frames=4, size=16)
ENCODER = MViTSpec(
    width=8, depth=3, stages=(MViTStage(start=1), MViTStage(start=2)), kv_stride=(1, 2, 2), drop_path=0.1
)


def build(spec: ClassifierSpec) -> Classifier:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return spec.build(CLIP, 5)


def video() -> torch.Tensor:
    return torch.randint(0, 256, (4, 3, 4, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_each_pooling_reads_what_it_says() -> None:
    found = {
        pooling: build(ClassifierSpec.model_validate({"encoder": ENCODER, "pooling": pooling})).eval()
        for pooling in ("mean", "class", "normed_mean")
    }
    encoder = found["mean"].encoder
    assert isinstance(encoder, MViT)
    tokens = encoder.with_class(video())
    norm = torch.nn.functional.layer_norm
    bias = torch.full((32,), 0.02)
    normed = norm(tokens, (32,), bias=bias, eps=1e-6)
    expected = {
        "mean": norm(tokens[:, 1:].mean(1), (32,), eps=1e-6),
        "class": normed[:, 0],
        "normed_mean": normed[:, 1:].mean(1),
    }
    for pooling, classifier in found.items():
        torch.testing.assert_close(classifier.features(video()), expected[pooling])
        assert classifier.tokens_and_features(video())[0].shape == (4, 2, 32)
        assert "encoder.mask_token" not in classifier.state_dict()


def test_pooling_class_is_refused_without_a_class_token() -> None:
    for encoder in (ViTSpec(), replace(ENCODER, class_token=False)):
        with pytest.raises(ValueError, match="pooling 'class' needs an encoder with a class token"):
            ClassifierSpec.model_validate({"encoder": encoder, "pooling": "class"})


def test_an_encoder_without_a_kind_is_a_vit_and_a_kind_alone_is_its_default() -> None:
    assert ClassifierSpec.model_validate({"encoder": {"width": 24, "heads": 2}}).encoder == ViTSpec(width=24, heads=2)
    recipe = override(FinetuneRecipe(name="a", classes=4), ["model.encoder=mvit", "model.encoder.drop_path=0.2"])
    assert recipe.model.encoder == MViTSpec(drop_path=0.2)
    with pytest.raises(ValueError, match="did you mean 'kv_stride'"):
        override(recipe, ["model.encoder.kv_strid=[1,4,4]"])


def test_lower_blocks_learn_slower_and_tables_of_positions_decay_as_with_the_authors() -> None:
    spec = ClassifierSpec(encoder=replace(ENCODER, absolute_positions=True))
    recipe = FinetuneRecipe(name="a", classes=5, model=spec, optim=Optim(layer_decay=0.75))
    groups = finetuning_groups(Finetuning(build(spec), NO_MIXING), recipe)
    found = {name.removeprefix("classifier."): group for group in groups for name in group.names}
    layers = {
        "encoder.patch_embed.weight": 0, "encoder.class_token": 0, "encoder.pos_embed_time": 0,
        "encoder.pos_embed_class": 0, "encoder.blocks.0.attention.relative.rel_pos_h": 1,
        "encoder.blocks.2.attention.pool_q.norm.weight": 3, "fc_norm.weight": 4, "head.weight": 4,
    }  # fmt: skip
    assert {name: found[name].layer for name in layers} == layers
    assert found["encoder.blocks.0.attention.relative.rel_pos_h"].weight_decay == 0.05
    assert found["encoder.class_token"].weight_decay == 0.05
    assert found["encoder.blocks.2.attention.pool_q.norm.weight"].weight_decay == 0.0


def test_the_forward_never_asks_the_device_for_a_value() -> None:
    with torch.device("meta"):
        method = Finetuning(ClassifierSpec(encoder=ENCODER, pooling="class", dropout=0.1).build(CLIP, 5), Mixing())
    batch = Batch({"video": Clips(video(), torch.arange(4))}, labels=torch.tensor([0, 1, 4, 1]))
    for _ in range(4):  # mixup and CutMix
        method(batch.to(torch.device("meta"))).loss.backward()


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return labelled_folder(tmp_path_factory.mktemp("videos"), each=4)


def recipe_on(videos: Path) -> FinetuneRecipe:
    model = ClassifierSpec(encoder=ENCODER, pooling="class", dropout=0.1)
    recipe = toy_recipe(model=model, schedule=Schedule(epochs=6, warmup_epochs=1), optim=Optim(lr=0.2, layer_decay=0.9))
    return replace(recipe, data=replace(recipe.data, train=str(videos)))


def test_it_trains_on_files_and_comes_back(videos: Path, tmp_path: Path) -> None:
    recipe = recipe_on(videos)
    model = finetune(recipe, tmp_path / "run", Notes())
    stored = encoder_run(read_recipe(model / "recipe.yaml"), "run")
    assert stored.model == recipe.model
    assert to_yaml(stored).count("kind: mvit") == 1
    saved = load_classifier(tmp_path / "run")
    assert all(value.isfinite().all() for value in saved.classifier.parameters())
    whole = load(tmp_path / "run")
    found = whole.encode(video())
    assert found.tokens.shape == (4, 2, 32)
    torch.testing.assert_close(found.pooled, saved.classifier.features(video()))
    torch.testing.assert_close(whole.classify(video()).logits, saved.classifier(video()))


def test_another_clip_size_interpolates_its_tables(videos: Path, tmp_path: Path) -> None:
    finetune(replace(recipe_on(videos), schedule=Schedule(epochs=1, warmup_epochs=0)), tmp_path / "run", Notes())
    larger = load(tmp_path / "run", frames=8, size=32)
    assert any("position tables are interpolated" in note for note in larger.notes)
    clips = torch.zeros(1, 3, 8, 32, 32, dtype=torch.uint8)
    assert larger.encode(clips).tokens.shape == (1, 4 * 2 * 2, 32)
