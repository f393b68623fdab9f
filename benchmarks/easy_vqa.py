"""Does a small model learn to answer what nobody here asked? easy-VQA of PyPI, and the same model without pictures.

`recipes/answer_easy_vqa.py` is the recipe; the questions are those of the package's test part, whose pictures were not
trained on. The kinds are those of `benchmarks.shapes`.
"""

from benchmarks.harness import arguments
from benchmarks.shapes import compare_with_blind, maker


def main(argv: list[str] | None = None) -> None:
    options = arguments(__doc__, argv)
    compare_with_blind(
        "easy-VQA from scratch, questions of its test part",
        maker("answer_easy_vqa"),
        "answer_easy_vqa",
        quick=options.quick,
    )


if __name__ == "__main__":
    main()
