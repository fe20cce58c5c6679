"""KNN, linear, attentive probes."""
