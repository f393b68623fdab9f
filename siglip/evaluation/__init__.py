"""A model and data -> numbers: retrieval, zero-shot classification, linear probes."""
