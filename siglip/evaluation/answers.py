"""Answers and what ten people answered -> VQA accuracy, with the normalisation of the VQA challenge.

Source: Goyal et al. 2017 and the server of the challenge, as big_vision/evaluators/proj/paligemma computes it: answers
are normalised only where the ten people disagree.
"""

import re
from collections.abc import Sequence

from siglip.errors import InputError

_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_NUMBERS = {word: str(value) for value, word in enumerate(
    ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
)} | {"none": "0"}  # fmt: skip
_ARTICLES = {"a", "an", "the"}
_NUMBER_WITH_COMMA = re.compile(r"\d,\d")
_FULL_STOP = re.compile(r"\.(?!\d)")
_CONTRACTIONS = """
ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've
he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't not've
o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's
someone'd someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've there're
there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's what've
when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've wouldn't
wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
"""
# the official list knows each contraction with any one of its apostrophes missing, and keeps this one the wrong way
_MISSPELT = {
    word[:place] + word[place + 1 :]: word
    for word in _CONTRACTIONS.split()
    for place, letter in enumerate(word)
    if letter == "'"
} | {"somebody'd": "somebodyd"}


def normalise_answer(text: str) -> str:
    """Lower case, without articles and punctuation, numbers up to ten as digits, apostrophes put back."""
    text = text.replace("\n", " ").replace("\t", " ").strip()
    removed_whole = _NUMBER_WITH_COMMA.search(text) is not None
    cleaned = text
    for sign in _PUNCTUATION:
        beside_space = f"{sign} " in text or f" {sign}" in text
        cleaned = cleaned.replace(sign, "" if beside_space or removed_whole else " ")
    words = (_NUMBERS.get(word, word) for word in _FULL_STOP.sub("", cleaned).lower().split())
    return " ".join(_MISSPELT.get(word, word) for word in words if word not in _ARTICLES)


def vqa_accuracy(prediction: str, answers: Sequence[str]) -> float:
    """Mean over the people of min(how many of the others gave this answer / 3, 1): 0.3 for one of ten, 1 for four.

    Where all gave the same answer, letter by letter, only that one counts: "Yes" is then not "yes". Raises InputError
    for fewer than two answers.
    """
    if len(answers) < 2:
        raise InputError(f"VQA accuracy compares with what several people answered, got {len(answers)} answers")
    given = [_bare(answer) for answer in answers]
    prediction = _bare(prediction)
    if len(set(given)) > 1:
        given = [normalise_answer(answer) for answer in given]
        prediction = normalise_answer(prediction)
    equal = [answer == prediction for answer in given]
    return sum(min((sum(equal) - own) / 3, 1.0) for own in equal) / len(equal)


def _bare(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()
