"""Makes big_vision.json: the towers of the JAX original, run as they stand, with weights and inputs drawn by NumPy.

    python tests/golden/big_vision.py BIG_VISION_CLONE

needs jax, flax and a clone of github.com/google-research/big_vision; the commit is written beside the numbers. Weights
are not kept: `draw` makes them again from the names and shapes, which are.
"""

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np

IMAGE = {"patch_size": (8, 8), "width": 48, "depth": 2, "mlp_dim": 80, "num_heads": 4, "pool_type": "map"}
TEXT = {"width": 32, "depth": 3, "mlp_dim": 64, "num_heads": 2, "vocab_size": 100}
WITHOUT_HEAD = {**TEXT, "width": 48, "num_heads": 4}
# 30 pixels leave a border of 6 unseen
PICTURES, TEXTS = (2, 30, 30, 3), (3, 16)


def draw(shapes: dict[str, list[int]]) -> dict[str, np.ndarray]:
    """Weights for names and shapes: small, but large enough that every tensor shows in the result."""
    random = np.random.default_rng(7)
    weights = {}
    for name in sorted(shapes):
        values = 0.2 * random.normal(size=shapes[name])
        weights[name] = (1 + values if name.endswith("/scale") else values).astype(np.float32)
    return weights | {"t": np.array([2.5], np.float32), "b": np.array([-3.0], np.float32)}


def inputs() -> tuple[np.ndarray, np.ndarray]:
    """Pictures [n, height, width, channel] and token ids [n, ctx]."""
    random = np.random.default_rng(8)
    return random.uniform(-1, 1, PICTURES).astype(np.float32), random.integers(0, TEXT["vocab_size"], TEXTS)


def run(text, scan):
    import flax
    import jax
    import jax.numpy as jnp
    from big_vision.models.proj.image_text import two_towers

    image = {**IMAGE, "scan": scan}
    text = {**text, "scan": scan}
    out_dim = (None, None if text["width"] == IMAGE["width"] else IMAGE["width"])
    model = two_towers.Model(image=image, text=text, out_dim=out_dim, bias_init=-10.0, temperature_init=10.0)
    pixels, ids = (jnp.asarray(array) for array in inputs())
    shapes = jax.eval_shape(model.init, jax.random.key(0), pixels, ids)["params"]
    flat = flax.traverse_util.flatten_dict(shapes, sep="/")
    listed = {name: list(array.shape) for name, array in flat.items()}
    if scan:
        return {"shapes": listed}
    params = flax.traverse_util.unflatten_dict(draw(listed), sep="/")
    image_embeds, text_embeds, extras = model.apply({"params": params}, pixels, ids)
    logits = image_embeds @ text_embeds.T * extras["t"] + extras["b"]
    numbers = {
        "image_embeds": image_embeds,
        "text_embeds": text_embeds,
        "logits": logits,
        "patch_tokens": extras["img/encoded"][:, -1],
        "text_tokens": extras["txt/transformed"][:, 0],
    }
    return {"shapes": listed} | {name: np.asarray(array).tolist() for name, array in numbers.items()}


def main(clone):
    import flax.io  # noqa: F401 - it looks for tensorflow, which must not be there yet

    # the original imports it for its file access, which the towers do not use
    for name in ("tensorflow", "tensorflow.io", "tensorflow.io.gfile"):
        sys.modules[name] = ModuleType(name)
    sys.path.insert(0, clone)
    commit = subprocess.run(["git", "-C", clone, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    results = {
        "source": "big_vision/models/proj/image_text/two_towers.py",
        "commit": commit.stdout.strip(),
        "model": run(TEXT, scan=False),
        "scan_stacked": run(TEXT, scan=True),
        "without_text_head": run(WITHOUT_HEAD, scan=False),
    }
    Path(__file__).with_suffix(".json").write_text(json.dumps(results) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
