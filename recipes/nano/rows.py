"""What build.py made -> a folder of pictures and rows.jsonl to write captions and answers from, for caption_nano.py.

    python recipes/nano/rows.py DATA DATA/rows

The caption of a drawing or of a photographed thing is its name, without the kinds and keywords behind it; that of a
photograph with a sentence is the sentence. Of things with a name of one or two words it is asked what they are, whether
they are this, half of the time with another name, and whether they are of a kind, as WordNet says; of drawings in one
colour, as their pixels say, which.
"""

import json
import sys
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from random import Random

import numpy as np
from packages import fetched
from PIL import Image
from sources import WORDS
from tqdm import tqdm
from wordnet import WordNet

from siglip.data import Sample, open_source
from siglip.files import write_text
from siglip.processing import image_format

# their captions are sentences, commas included
SENTENCES = ("openstax", "coco")
# names that are no everyday words
LEFT_OUT = ("bioicons", "crawl-tiles")
WHAT = ("what is this?", "what is in the picture?", "what does the picture show?")
# the share of things that each of the first two kinds of question is asked about
ASKED = 0.4
# WordNet's word, and how it is asked for
KINDS = {"animal": "an animal", "plant": "a plant", "food": "food", "clothing": "clothing", "vehicle": "a vehicle"}
KINDS |= {"building": "a building", "tool": "a tool", "person": "a person"}
# questions with the answer yes for one kind, with the answer no for one kind, and for one colour: at most so many
MOST = 800
COLOUR = ("what color is it?", "what color is this?", "what colour is it?")
# hues in degrees, with room between them where people disagree
HUES = {"red": (0, 10), "orange": (18, 40), "yellow": (46, 64), "green": (80, 165), "blue": (190, 250)}
HUES |= {"purple": (262, 295), "pink": (310, 340)}
# the share of what is drawn, that is not white, which must have the colour
ONE_COLOUR = 0.7

Row = dict[str, str]


def main(data: Path, folder: Path) -> None:
    source, random = open_source(str(data / "train")), Random("rows")
    (words,) = fetched([WORDS], data / "packages", None)
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    captions: list[Row] = []
    things: list[tuple[str, str]] = []
    colours: list[tuple[str, str]] = []
    met: set[tuple[str, str]] = set()
    for index in tqdm(range(len(source)), unit=" samples", disable=None):
        sample = source.sample(index)
        kind, ident = str(sample.facts.get("source")), str(sample.facts.get("id", index))
        if kind in LEFT_OUT or (kind, ident) in met:
            continue  # emoji and clip art are in the shards twice
        met.add((kind, ident))
        assert isinstance(sample.image, bytes)
        image = f"pictures/{index:06d}.{image_format(sample.image)[0].lower()}"
        (folder / image).write_bytes(sample.image)
        name = name_of(sample, kind)
        captions.append({"image": image, "prefix": "caption en", "suffix": name})
        if kind not in SENTENCES and len(name.split()) <= 2:
            things.append((image, name))
            drawn = "photo" not in str(sample.facts.get("style"))
            if drawn and (colour := colour_of(sample.image)):
                colours.append((image, colour))
    asked = [
        *names(things, random),
        *kinds(things, WordNet(words), random),
        *(row(image, random.choice(COLOUR), colour) for image, colour in few(colours, random)),
    ]
    write_text(folder / "rows.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in captions + asked))
    print(f"{folder / 'rows.jsonl'}: {len(captions)} captions, {len(asked)} questions")


def name_of(sample: Sample, kind: str) -> str:
    """The main caption, up to its first comma unless it is a sentence."""
    return sample.captions[0] if kind in SENTENCES else sample.captions[0].partition(", ")[0]


def names(things: Sequence[tuple[str, str]], random: Random) -> list[Row]:
    """What some things are, and of some others whether they are this."""
    count = int(ASKED * len(things))
    rows = [row(image, random.choice(WHAT), name) for image, name in random.sample(things, count)]
    for image, name in random.sample(things, count):
        other = name if random.random() < 0.5 else random.choice(things)[1]
        article = "an" if other[0].lower() in "aeiou" else "a"
        rows.append(row(image, f"is this {article} {other}?", "yes" if other == name else "no"))
    return rows


def kinds(things: Sequence[tuple[str, str]], wordnet: WordNet, random: Random) -> list[Row]:
    """Whether things are of a kind, yes as often as no."""
    rows: list[Row] = []
    for kind, words in KINDS.items():
        answers = [(image, wordnet.is_a(name, kind)) for image, name in things]
        yes = [image for image, answer in answers if answer is True]
        no = [image for image, answer in answers if answer is False]
        number = min(MOST, len(yes), len(no))
        rows += [row(image, f"is this {words}?", "yes") for image in random.sample(yes, number)]
        rows += [row(image, f"is this {words}?", "no") for image in random.sample(no, number)]
    return rows


def few(answers: Sequence[tuple[str, str]], random: Random) -> list[tuple[str, str]]:
    """At most MOST pictures of each answer, drawn."""
    chosen: list[tuple[str, str]] = []
    for answer in sorted({answer for _, answer in answers}):
        same = [pair for pair in answers if pair[1] == answer]
        chosen += random.sample(same, min(MOST, len(same)))
    return chosen


def colour_of(image: bytes) -> str | None:
    """The one colour that a drawing on white has; None if it has several, none, or one between two."""
    pixels = np.asarray(Image.open(BytesIO(image)).convert("RGB").convert("HSV")).reshape(-1, 3).astype(float)
    hue, saturation, value = pixels[:, 0] * 360 / 255, pixels[:, 1], pixels[:, 2]
    drawn = (saturation > 40) | (value < 215)
    coloured = drawn & (saturation > 110) & (value > 110)
    shares = {name: (coloured & (low <= hue) & (hue <= high)) for name, (low, high) in HUES.items()}
    shares["red"] |= coloured & (hue >= 350)
    shares["brown"] = drawn & (saturation > 90) & (hue >= 18) & (hue <= 40) & (value >= 60) & (value < 175)
    shares["orange"] &= value > 205
    shares["black"] = drawn & (value < 60)
    name = max(shares, key=lambda name: shares[name].sum())
    return name if shares[name].sum() >= ONE_COLOUR * max(drawn.sum(), 0.05 * len(pixels)) else None


def row(image: str, question: str, answer: str) -> Row:
    return {"image": image, "prefix": f"answer en {question}", "suffix": answer}


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
