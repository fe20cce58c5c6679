"""A trained model in somebody's hands: features, embeddings, search, predictions, probes."""
