"""Scores of a few pictures for a few classes, by hand; and the ways in which data and names may number classes."""

import numpy as np
import pytest

from siglip.errors import DataError, SiglipWarning
from siglip.evaluation import match_labels
from siglip.evaluation.classes import check_labels, classified
from siglip.evaluation.result import Answer, ClassResult
from tests.evaluation.conftest import hand_made

CLASSES = ["ant", "bee", "cat"]
SCORES = np.array([[0.5, 0.25, 0.0], [0.5, 0.25, 0.0], [0.5, 0.375, 0.0], [0.0, 0.25, 0.125]])
PICTURES = hand_made(np.eye(4), labels=[0, 1, 1, 2])


def test_numbers_classes_and_mistakes_of_four_pictures() -> None:
    result = classified("x", PICTURES, [SCORES], CLASSES, counts={"more": 7}, settings={}, num_mistakes=9)
    assert result.numbers == {"top1": 0.25, "mean_per_class": pytest.approx(1 / 3)}
    assert result.counts == {"pictures": 4, "classes": 3, "more": 7, "broken": 0}
    assert result.per_class == (
        ClassResult(name="ant", pictures=1, top1=1.0, taken_for=None),
        ClassResult(name="bee", pictures=2, top1=0.0, taken_for="ant"),
        ClassResult(name="cat", pictures=1, top1=0.0, taken_for="bee"),
    )
    assert [mistake.name for mistake in result.mistakes] == ["picture 1", "picture 2", "picture 3"]
    assert result.mistakes[1].expected == Answer("bee", 0.375)
    assert result.mistakes[1].found == (Answer("ant", 0.5), Answer("bee", 0.375), Answer("cat", 0.0))


def test_several_draws_are_averaged_and_pictures_counted_once() -> None:
    perfect = np.eye(3)[PICTURES.labels]
    result = classified("x", PICTURES, [SCORES, perfect], CLASSES, counts={}, settings={}, num_mistakes=9)
    assert result.numbers == {"top1": 0.625, "mean_per_class": pytest.approx(2 / 3)}
    assert result.per_class[1] == ClassResult(name="bee", pictures=2, top1=0.5, taken_for="ant")


def test_classes_of_one_name_stay_two() -> None:
    result = classified("x", PICTURES, [SCORES], ["ant", "bee", "ant"], counts={}, settings={}, num_mistakes=9)
    assert [(found.name, found.pictures) for found in result.per_class] == [("ant", 1), ("bee", 2), ("ant", 1)]


@pytest.mark.parametrize(
    ("theirs", "ours", "expected"),
    [
        (["cat", "polar_bear"], ["Polar bear", "dog", "Cat"], [2, 0]),
        (["0", "1", "10", "2"], list("abcdefghijk"), [0, 1, 10, 2]),
        (["1", "0"], ["0", "1"], [1, 0]),
        (["n01", "n02"], ["tench", "goldfish"], [0, 1]),
        (["tench, Tinca tinca", "goldfish"], ["tench", "goldfish"], [0, 1]),
        (["crane", "tench", "crane"], ["crane", "tench", "crane"], [0, 1, 2]),
        (["crane"], ["tench", "crane", "crane"], [1]),
        ([], ["tench"], []),
    ],
)
def test_the_classes_of_data_are_found_among_the_names(theirs: list[str], ours: list[str], expected: list[int]) -> None:
    assert match_labels(theirs, ours).tolist() == expected


@pytest.mark.parametrize(
    ("theirs", "ours", "unknown"),
    [
        (["car", "bird"], ["bird", "plane"], "car"),  # as many, but in order `bird` would become `plane`
        (["cat", "dog"], ["cat"], "dog"),
        (["1", "2"], ["a", "b"], "1"),  # numbers count from 0
        (["n01"], ["tench", "goldfish"], "n01"),
    ],
)
def test_classes_that_cannot_be_told_are_refused(theirs: list[str], ours: list[str], unknown: str) -> None:
    with pytest.raises(DataError, match=f"not among the {len(ours)} names given, the first is '{unknown}'"):
        match_labels(theirs, ours)


def test_a_label_without_a_name_is_refused() -> None:
    with pytest.raises(DataError, match="labels up to 2, counted from 0, but 2 classes are named"):
        check_labels(PICTURES, CLASSES[:2])
    check_labels(PICTURES, CLASSES)


def test_numbers_with_zeros_before_them_are_the_same_numbers() -> None:
    assert match_labels(["1", "3", "2"], ["01", "02", "03"]).tolist() == [0, 2, 1]
    assert match_labels(["002", "010"], ["1", "2", "10"]).tolist() == [1, 2]
    with pytest.raises(DataError, match="the first is '0'"):
        match_labels(["0", "1", "2"], ["01", "02", "03"])


def test_numbers_that_may_count_from_1_are_refused_or_told() -> None:
    with pytest.raises(DataError, match="are the numbers 1 to 2, and 3 names are given: either they count from 0 and"):
        match_labels(["1", "2"], CLASSES)
    with pytest.warns(SiglipWarning, match="class 2 of the data is taken for 'cat': numbers count from 0"):
        assert match_labels(["2"], CLASSES).tolist() == [2]
