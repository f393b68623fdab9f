import pickle

import pytest

from siglip.errors import Failure, did_you_mean

KNOWN = [
    "optimizer.lr",
    "optimizer.betas",
    "data.train",
    "--labels",
    "--labels-file",
    "google/siglip-base",
    "Penguin.PNG",
]


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("--lables", "--labels"),
        ("lr", "optimizer.lr"),
        ("siglip-bsae", "google/siglip-base"),
        ("penguin.png", "Penguin.PNG"),
        ("optimiser.lr", "optimizer.lr"),
        ("quux", None),
        ("--out", None),
        ("epochs", None),
        ("", None),
    ],
)
def test_a_guess_is_made_only_where_a_word_is_close(word: str, meant: str | None):
    assert did_you_mean(word, KNOWN) == meant


def test_a_failure_travels_between_processes_and_into_json():
    failure = Failure("a.png", "is empty", 3)
    assert pickle.loads(pickle.dumps(failure)) == failure
    assert failure.record() == {"name": "a.png", "reason": "is empty"}
