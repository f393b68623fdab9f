"""Makes evaluation.json: retrieval and few-shot numbers of the JAX original, run as it stands, on small cases.

    python tests/golden/evaluation.py BIG_VISION_GIT_DIR

needs jax and a clone of github.com/google-research/big_vision; the commit is written beside the numbers. The few-shot
module cannot be imported without its dependencies, so its two functions are cut out of the source by name.
"""

import ast
import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

COMMIT = "0127fb6b337ee2a27bf4e54dea79cff176527356"
RETRIEVAL = "big_vision/evaluators/proj/image_text/image_text_retrieval.py"
FEW_SHOT = "big_vision/evaluators/fewshot_lsr.py"
# pictures, texts
RETRIEVALS = [(5, 5), (12, 30), (40, 60)]
# training vectors a class, classes, width: fewer and more vectors than features
FEW_SHOTS = [(1, 3, 8), (2, 4, 6), (10, 3, 4)]
PENALTY = 2.0**10


def source_of(git_dir, path):
    command = ["git", "-C", git_dir, "show", f"{COMMIT}:{path}"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def few_shot_functions(git_dir):
    tree = ast.parse(source_of(git_dir, FEW_SHOT))
    wanted = ("_precompute_cache", "_eig_fewshot_acc_fn")
    found = [node for node in tree.body if getattr(node, "name", "") in wanted]
    for node in found:
        node.decorator_list = []  # they only choose the device
    constant = [node for node in tree.body if isinstance(node, ast.Assign) and node.targets[0].id == "BIAS_CONSTANT"]
    scope = {"jax": jax, "jnp": jnp}
    exec(compile(ast.Module(constant + found, []), FEW_SHOT, "exec"), scope)
    return [scope[name] for name in wanted]


def retrieval_cases(git_dir, random):
    scope = {}
    exec(compile(source_of(git_dir, RETRIEVAL), RETRIEVAL, "exec"), scope)
    for pictures, texts in RETRIEVALS:
        owners = np.concatenate([np.arange(pictures), random.integers(0, pictures, texts - pictures)])
        scores = random.normal(size=(pictures, texts)).round(3)
        scores[owners, np.arange(texts)] += 1
        ways = {
            "image_to_text": scope["image_to_text_retrieval_eval"](-scores, owners.tolist()),
            "text_to_image": scope["text_to_image_retrieval_eval"](-scores, owners.tolist()),
        }
        expected = {
            f"{way}/{name.lower()}": float(share) for way, found in ways.items() for name, share in found.items()
        }
        yield {"scores": scores.tolist(), "owners": owners.tolist(), "expected": expected}


def few_shot_cases(git_dir, random):
    prepare, accuracy = few_shot_functions(git_dir)
    for shots, classes, width in FEW_SHOTS:
        centres = random.normal(size=(classes, width))
        labels, test_labels = np.repeat(np.arange(classes), shots), random.integers(0, classes, 40)
        train = (centres[labels] + random.normal(size=(len(labels), width))).round(3)
        test = (centres[test_labels] + random.normal(size=(40, width))).round(3)
        cache = prepare(jnp.asarray(train), jnp.asarray(labels), classes)
        found = accuracy(cache, jnp.asarray(test), jnp.asarray(test_labels), PENALTY)
        yield {
            "train": train.tolist(), "labels": labels.tolist(), "classes": classes,
            "test": test.tolist(), "test_labels": test_labels.tolist(), "accuracy": float(found),
        }  # fmt: skip


def main(git_dir):
    jax.config.update("jax_enable_x64", True)
    random = np.random.default_rng(0)
    content = {
        "commit": COMMIT,
        "retrieval": {"source": RETRIEVAL, "cases": list(retrieval_cases(git_dir, random))},
        "few_shot": {"source": FEW_SHOT, "cases": list(few_shot_cases(git_dir, random))},
    }
    Path(__file__).with_suffix(".json").write_text(json.dumps(content) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
