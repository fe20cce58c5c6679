"""The plain encoder of a classifier, for tests that look into it."""

from tubelet.methods.classifier import Classifier
from tubelet.models.vit import ViT


def vit(classifier: Classifier) -> ViT:
    assert isinstance(classifier.encoder, ViT)
    return classifier.encoder
