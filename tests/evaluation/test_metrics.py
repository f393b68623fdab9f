"""Metrics on matrices small enough to check by eye."""

import numpy as np
import pytest

from siglip.errors import ShapeError
from siglip.evaluation.metrics import class_places, classification, per_class, ranks, recall_at, retrieval


def test_the_rank_is_the_number_of_wrong_items_before_the_best_right_one() -> None:
    scores = np.array([[0.9, 0.5, 0.1], [0.9, 0.5, 0.1], [0.9, 0.5, 0.1]])
    relevant = np.array([[1, 0, 0], [0, 0, 1], [0, 1, 1]], dtype=bool)
    assert ranks(scores, relevant).tolist() == [0, 2, 1]


def test_ties_count_against_the_model() -> None:
    assert ranks(np.zeros((2, 3)), np.eye(2, 3, dtype=bool)).tolist() == [2, 2]


def test_two_right_answers_do_not_stand_in_each_others_way() -> None:
    assert ranks(np.array([[0.5, 0.5, 0.1]]), np.array([[True, True, False]])).tolist() == [0]


def test_scores_that_are_no_numbers_are_no_hits() -> None:
    assert ranks(np.array([[np.nan, 0.3]]), np.array([[False, True]])).tolist() == [1]
    assert ranks(np.array([[np.nan, 0.3]]), np.array([[True, False]])).tolist() == [1]


def test_recall_counts_the_first_k() -> None:
    assert recall_at(np.array([0, 1, 4, 9])) == {"recall@1": 0.25, "recall@5": 0.75, "recall@10": 1.0}


def test_retrieval_with_two_captions_for_the_first_picture() -> None:
    # texts 0 and 1 belong to image 0, text 2 to image 1
    scores = np.array([[0.1, 0.9, 0.5], [0.8, 0.2, 0.7]])
    result = retrieval(scores, np.array([[True, True, False], [False, False, True]]))
    assert result["image_to_text/recall@1"] == 0.5  # image 0 finds text 1; image 1 prefers text 0
    assert result["text_to_image/recall@1"] == pytest.approx(2 / 3)  # text 0 prefers image 1
    assert result["text_to_image/recall@5"] == 1.0


def test_accuracy_over_pictures_and_over_classes() -> None:
    scores = np.array([[0.9, 0.1, 0.0], [0.8, 0.1, 0.1], [0.9, 0.0, 0.1], [0.1, 0.9, 0.0]])
    labels = np.array([0, 0, 0, 2])
    assert classification(scores, labels) == {"top1": 0.75, "mean_per_class": 0.5}
    assert per_class(class_places(scores, labels), labels) == {0: 1.0, 2: 0.0}


def test_of_equal_classes_the_first_is_the_answer_as_with_argmax() -> None:
    scores = np.array([[0.5, 0.5, 0.1], [0.5, 0.5, 0.1], [np.nan, 0.5, 0.1]])
    assert class_places(scores, np.array([0, 1, 1])).tolist() == [0, 1, 1]


def test_a_query_without_answer_and_shapes_that_differ_are_refused() -> None:
    with pytest.raises(ShapeError, match="the first is row 1"):
        ranks(np.zeros((2, 2)), np.array([[True, False], [False, False]]))
    with pytest.raises(ShapeError, match=r"\(2, 2\)"):
        ranks(np.zeros((2, 2)), np.zeros((2, 3), dtype=bool))
