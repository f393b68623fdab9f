import tests.typechecks  # noqa: F401 - before any test imports siglip
