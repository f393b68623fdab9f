"""What easy-VQA's model is taught: no more than the training part says, and every form of asking for a known shape."""

import answer_easy_vqa
import easy_vqa
import pytest

Facts = tuple[str, str, int]


def test_what_questions_name_answers_all_forms_of_asking_for_a_shape() -> None:
    asked = [
        ("what color is the triangle?", "teal", 0),
        ("what color is the shape?", "red", 1),
        ("what shape is present?", "circle", 2),
        ("is there a circle?", "no", 3),
    ]
    assert answer_easy_vqa.taught(asked) == [
        *asked,
        ("what shape is in the image?", "triangle", 0),
        ("what shape does the image contain?", "triangle", 0),
        ("what shape is present?", "triangle", 0),
        ("what is the teal shape?", "triangle", 0),
        ("what shape is in the image?", "circle", 2),
        ("what shape does the image contain?", "circle", 2),
    ]


@pytest.fixture(scope="module")
def asked() -> list[Facts]:
    return list(zip(*easy_vqa.get_train_questions(), strict=True))


def test_no_answer_contradicts_another_and_none_is_about_a_test_picture(asked: list[Facts]) -> None:
    kept = answer_easy_vqa.taught(asked)
    answers = {(question, number): answer for question, answer, number in asked}
    assert all(answers.get((question, number), answer) == answer for question, answer, number in kept)
    assert len({(question, number) for question, _, number in kept}) == len(kept)
    shapes = {(number, answer) for _, answer, number in kept if answer in answer_easy_vqa.SHAPES}
    assert len(shapes) == len({number for number, _ in shapes}) > 3000
    assert {number for *_, number in kept} <= {number for *_, number in asked}


def test_all_questions_are_kept(asked: list[Facts]) -> None:
    assert set(asked) <= set(answer_easy_vqa.taught(asked))
