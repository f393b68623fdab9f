"""Shards of build.py -> a folder of pictures and rows.jsonl to write captions and answers from, for caption_nano.py.

    python recipes/nano/rows.py DATA/train DATA/rows

The caption of a drawing or of a photographed thing is its name, without the kinds and keywords behind it; that of a
photograph with a sentence is the sentence. Things with a name of one or two words are asked for, too: what it is, and
whether it is this, half of the time with another name.
"""

import json
import sys
from pathlib import Path
from random import Random

from tqdm import tqdm

from siglip.data import Sample, open_source
from siglip.files import write_text
from siglip.processing import image_format

# their captions are sentences, commas included
SENTENCES = ("openstax", "coco")
# names that are no everyday words
LEFT_OUT = ("bioicons", "crawl-tiles")
WHAT = ("what is this?", "what is in the picture?", "what does the picture show?")
# the share of things that each kind of question is asked about
ASKED = 0.4


def main(shards: str, folder: Path) -> None:
    source, random = open_source(shards), Random("rows")
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, str]] = []
    things: list[tuple[str, str]] = []
    met: set[tuple[str, str]] = set()
    for index in tqdm(range(len(source)), unit=" samples"):
        sample = source.sample(index)
        kind, ident = str(sample.facts.get("source")), str(sample.facts.get("id", index))
        if kind in LEFT_OUT or (kind, ident) in met:
            continue  # emoji and clip art are in the shards twice
        met.add((kind, ident))
        assert isinstance(sample.image, bytes)
        image = f"pictures/{index:06d}.{image_format(sample.image)[0].lower()}"
        (folder / image).write_bytes(sample.image)
        name = name_of(sample, kind)
        rows.append({"image": image, "prefix": "caption en", "suffix": name})
        if kind not in SENTENCES and len(name.split()) <= 2:
            things.append((image, name))
    rows += questions(things, random)
    write_text(folder / "rows.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    print(f"{folder / 'rows.jsonl'}: {len(met)} captions, {len(rows) - len(met)} questions")


def name_of(sample: Sample, kind: str) -> str:
    """The main caption, up to its first comma unless it is a sentence."""
    return sample.captions[0] if kind in SENTENCES else sample.captions[0].partition(", ")[0]


def questions(things: list[tuple[str, str]], random: Random) -> list[dict[str, str]]:
    """What some things are, and of some others whether they are this."""
    rows: list[dict[str, str]] = []
    for image, name in random.sample(things, int(ASKED * len(things))):
        rows.append({"image": image, "prefix": f"answer en {random.choice(WHAT)}", "suffix": name})
    for image, name in random.sample(things, int(ASKED * len(things))):
        other = name if random.random() < 0.5 else random.choice(things)[1]
        article = "an" if other[0].lower() in "aeiou" else "a"
        answer = "yes" if other == name else "no"
        rows.append({"image": image, "prefix": f"answer en is this {article} {other}?", "suffix": answer})
    return rows


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
