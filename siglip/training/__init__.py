"""A recipe -> a trained checkpoint."""
