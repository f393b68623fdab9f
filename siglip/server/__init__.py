"""HTTP -> embedder: a service that other programs use unchanged. `siglip serve` starts it."""
