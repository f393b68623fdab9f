"""Metrics on matrices small enough to check by eye."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from siglip.errors import ShapeError
from siglip.evaluation.metrics import accuracies, class_places, classification, margins, per_class, ranks, recall_at


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


def test_a_picture_may_have_several_texts_and_a_text_several_pictures() -> None:
    # texts 0 and 1 belong to image 0, text 1 also to image 1, text 2 to image 2
    scores = np.array([[0.1, 0.7, 0.5], [0.8, 0.2, 0.9], [0.3, 0.6, 0.4]])
    relevant = np.array([[1, 1, 0], [0, 1, 0], [0, 0, 1]], dtype=bool)
    assert ranks(scores, relevant).tolist() == [0, 2, 1]  # 0.7 leads; 0.9 and 0.8 beat 0.2; 0.6 beats 0.4
    assert ranks(scores.T, relevant.T).tolist() == [2, 0, 2]  # 0.8, 0.3 beat 0.1; 0.7 leads; 0.9, 0.5 beat 0.4
    assert recall_at(ranks(scores, relevant), [1, 2]) == {"recall@1": 1 / 3, "recall@2": 2 / 3}


def test_the_margin_is_how_far_the_best_wrong_item_is_above_the_best_right_one() -> None:
    scores = np.array([[0.5, 0.25, 0.75], [0.5, 0.25, 0.75], [0.5, 0.25, 0.75]])
    relevant = np.array([[1, 1, 0], [0, 0, 1], [1, 1, 1]], dtype=bool)
    assert margins(scores, relevant).tolist() == [0.25, -0.25, -np.inf]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_ranks_are_those_of_a_slow_reference(queries: int, items: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    scores = random.integers(0, 4, (queries, items)).astype(np.float32)  # few values, so that many are equal
    relevant = random.random((queries, items)) < 0.4
    relevant[np.arange(queries), random.integers(0, items, queries)] = True
    expected: list[int] = []
    for query in range(queries):
        best = max(scores[query, item] for item in range(items) if relevant[query, item])
        expected.append(sum(scores[query, item] >= best and not relevant[query, item] for item in range(items)))
    assert ranks(scores, relevant).tolist() == expected


def test_accuracy_over_pictures_and_over_classes() -> None:
    scores = np.array([[0.9, 0.1, 0.0], [0.8, 0.1, 0.1], [0.9, 0.0, 0.1], [0.1, 0.9, 0.0]])
    labels = np.array([0, 0, 0, 2])
    assert classification(scores, labels) == {"top1": 0.75, "mean_per_class": 0.5}
    assert per_class(class_places(scores, labels), labels) == {0: 1.0, 2: 0.0}


def test_the_first_five_count_where_there_are_five_classes() -> None:
    places = np.array([0, 4, 5])
    assert accuracies(places, np.array([0, 0, 1]), 6) == {"top1": 1 / 3, "top5": 2 / 3, "mean_per_class": 0.25}


@pytest.mark.parametrize("label", [-1, 3])
def test_a_label_without_a_column_is_refused(label: int) -> None:
    with pytest.raises(ShapeError, match=f"from 0 to 2 for 3 classes, got {label}"):
        classification(np.zeros((2, 3)), np.array([0, label]))


def test_of_equal_classes_the_first_is_the_answer_as_with_argmax() -> None:
    scores = np.array([[0.5, 0.5, 0.1], [0.5, 0.5, 0.1], [np.nan, 0.5, 0.1]])
    assert class_places(scores, np.array([0, 1, 1])).tolist() == [0, 1, 1]


def test_a_query_without_answer_and_shapes_that_differ_are_refused() -> None:
    with pytest.raises(ShapeError, match="the first is row 1"):
        ranks(np.zeros((2, 2)), np.array([[True, False], [False, False]]))
    with pytest.raises(ShapeError, match=r"\(2, 2\)"):
        ranks(np.zeros((2, 2)), np.zeros((2, 3), dtype=bool))
