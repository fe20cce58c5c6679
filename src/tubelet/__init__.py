"""Tubelet: masked video pre-training, from a folder of videos to an encoder, a classifier, embeddings."""

__version__ = "0.1.0"
