"""Does a small model learn to answer about composed clip art? Scenes, and the same model without pictures.

    python -m benchmarks.scenes DATA/train

`recipes/scenes_vqa.py` makes the scenes and learns them, and says where the drawings come from; without DATA/train they
are the few of the samples. Every picture that is asked about shows a thing that occurred in no picture of the training.
The kinds are those of `benchmarks.shapes`.
"""

from functools import partial

from benchmarks.harness import parser_of
from benchmarks.shapes import RECIPES, compare_with_blind, maker

SAMPLES = str(RECIPES.parent / "samples")


def main(argv: list[str] | None = None) -> None:
    parser = parser_of(__doc__, "python -m benchmarks.scenes")
    parser.add_argument("drawings", nargs="?", metavar="DATA/train", default=SAMPLES, help="drawings, with their names")
    options = parser.parse_args(argv)
    make = partial(maker("scenes_vqa"), options.drawings)
    compare_with_blind("Scenes of clip art, each with a thing not in training", make, "scenes_vqa", quick=options.quick)


if __name__ == "__main__":
    main()
