"""HTTP -> embedder, captioner and library: a service that other programs use unchanged. `siglip serve` starts it."""
