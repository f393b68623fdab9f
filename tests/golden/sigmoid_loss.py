"""Makes sigmoid_loss.json: the loss function of the JAX original, run as it stands, on small batches in float64.

    python tests/golden/sigmoid_loss.py BIG_VISION_GIT_DIR

needs jax and a clone of github.com/google-research/big_vision; the commit is written beside the numbers. The function
is nested in a trainer that cannot be imported without its dependencies, so it is cut out of the source by name.
"""

import ast
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np

COMMIT = "0127fb6b337ee2a27bf4e54dea79cff176527356"
SOURCE = "big_vision/trainers/proj/image_text/siglip.py"
# rows, width, log t, b: a first step, a trained model, a batch of one
CASES = [(6, 4, 2.302585092994046, -10.0), (9, 5, 4.7723, -12.7), (1, 3, 1.0, 0.5)]


def original_loss(git_dir):
    source = subprocess.run(
        ["git", "-C", git_dir, "show", f"{COMMIT}:{SOURCE}"], capture_output=True, text=True, check=True
    ).stdout
    found = [node for node in ast.walk(ast.parse(source)) if getattr(node, "name", "") == "loss_fn"]
    assert len(found) == 1, f"{SOURCE} has {len(found)} functions named loss_fn"

    def embeddings(variables, *_, **__):
        params = variables["params"]
        extras = {"t": jnp.exp(params["logit_scale"]), "b": params["logit_bias"]}
        return params["image_embeds"], params["text_embeds"], extras

    scope = {
        "jax": jax, "jnp": jnp, "images": None, "labels": None, "rng_model": None,
        "model": SimpleNamespace(apply=embeddings),
    }  # fmt: skip
    exec(compile(ast.Module(found, []), SOURCE, "exec"), scope)
    return scope["loss_fn"]


def main(git_dir):
    jax.config.update("jax_enable_x64", True)
    loss_fn = original_loss(git_dir)
    random = np.random.default_rng(0)
    cases = []
    for rows, width, logit_scale, logit_bias in CASES:
        images, texts = random.normal(size=(2, rows, width))
        inputs = {
            "image_embeds": images / np.linalg.norm(images, axis=-1, keepdims=True),
            "text_embeds": texts / np.linalg.norm(texts, axis=-1, keepdims=True),
            "logit_scale": np.array([logit_scale]),
            "logit_bias": np.array([logit_bias]),
        }
        loss, gradients = jax.value_and_grad(loss_fn)(jax.tree.map(jnp.asarray, inputs))
        listed = jax.tree.map(lambda array: np.asarray(array).tolist(), {"inputs": inputs, "gradients": gradients})
        cases.append({**listed, "loss": float(loss)})
    path = Path(__file__).with_suffix(".json")
    path.write_text(json.dumps({"source": SOURCE, "commit": COMMIT, "cases": cases}, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
