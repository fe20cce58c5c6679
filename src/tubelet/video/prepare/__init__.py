"""Videos -> small files that are quick to train on."""
