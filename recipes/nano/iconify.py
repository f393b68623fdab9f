"""The Iconify packages on npm, one for each icon set: icons.json holds the drawings, metadata.json the categories."""

import json
from pathlib import Path
from typing import Any


def drawings_of(icons: Path) -> dict[str, str]:
    """Name -> SVG for all that an Iconify package shows."""
    collection = read_json(icons / "icons.json")
    drawings = {}
    for name, icon in collection["icons"].items():
        if not icon.get("hidden"):
            box = {"left": 0, "top": 0, "width": 16, "height": 16, **collection, **icon}
            width, height = box["width"], box["height"]
            drawings[name] = (
                '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
                f'viewBox="{box["left"]} {box["top"]} {width} {height}" width="{width}" height="{height}">'
                f"{icon['body']}</svg>"
            )
    return drawings


def categories_of(icons: Path) -> dict[str, list[str]]:
    """Category -> names, for the Iconify packages that have them."""
    path = icons / "metadata.json"
    return read_json(path).get("categories", {}) if path.exists() else {}


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
