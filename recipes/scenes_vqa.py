r"""A small decoder learns to answer questions about scenes composed of clip art, from what the built-in tower sees.

    python recipes/nano/build.py DATA \
        --sources emoji-noto,emoji-twemoji,emoji-blob,emoji-emojione,emoji-fluent,emoji-fluent-flat
    python recipes/scenes_vqa.py DATA/train scenes
    siglip train recipes/scenes_vqa.py --out runs/scenes

The second command draws the scenes. One to four different things stand in the quarters of a picture, each in a frame
of its own colour. Questions ask how many there are, whether one is there, which colour its frame has, and what is left
or right of it. Every picture of `held_out/held_out.jsonl` shows a thing that no picture of `train/train.jsonl` shows;
it is counted and stands beside others, and no question and no answer names it. The drawings may come from any source
that `siglip data stats` reads: those samples whose class, or caption up to its first comma, is one of the things below.
The `samples` folder has a picture each of nine. Rows are {"image", "prefix", "suffix"}.

The tower is that of the built-in model, which was trained with these drawings, one a picture; it is locked, and every
row's picture goes through it once.
"""

import json
import sys
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import NamedTuple

from PIL import Image, ImageDraw

from siglip.config import SiglipConfig
from siglip.config_paligemma import GemmaConfig, PaliGemmaConfig
from siglip.data import open_source
from siglip.files import write_text
from siglip.processing import read_image
from siglip.training import DataSpec, ModelSpec, OptimizerSpec, TrainConfig

# none of them is a kind or a part of another, so that whether one is there is sure
SEEN = (
    *("airplane", "banana", "bell", "bicycle", "butterfly", "cactus", "crown", "dolphin", "elephant", "guitar"),
    *("hammer", "key", "mushroom", "penguin", "pineapple", "rabbit", "rocket", "rose", "scissors", "strawberry"),
    *("tiger", "turtle", "umbrella", "watermelon", "clock", "ladybug", "truck"),
)
UNSEEN = ("bomb", "camel", "castle", "crab", "lemon", "pizza", "sailboat", "snail")
FRAMES = {
    "red": (215, 35, 35),
    "green": (25, 150, 50),
    "blue": (40, 70, 215),
    "yellow": (240, 200, 30),
    "black": (20, 20, 20),
    "purple": (130, 40, 150),
}
COUNTS = ("one", "two", "three", "four")
# sides in pixels: a quarter of the picture, the frame in it, and the drawing in the frame
CELL_PX, FRAME_PX, DRAWING_PX = 32, 30, 22
PICTURES, HELD_OUT = 6000, 500

Drawings = dict[str, list[Image.Image]]


class Thing(NamedTuple):
    """What is drawn, the colour of its frame, and the quarter it stands in."""

    name: str
    frame: str
    row: int
    column: int


def recipe() -> TrainConfig:
    words = 8000
    decoder = GemmaConfig(
        vocab_size=words + 2,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=1,
        head_dim=32,
        max_position_embeddings=64,
    )
    tower = SiglipConfig.from_pretrained("nano").vision_config
    return TrainConfig(
        task="generation",
        model=ModelSpec(
            config=PaliGemmaConfig(vision_config=tower, text_config=decoder, image_token_index=words + 2),
            preparation="nano",
            image_tower="nano",
        ),
        data=DataSpec(train="scenes/train/train.jsonl", held_out="scenes/held_out/held_out.jsonl", workers=0),
        trainable="text",
        optimizer=OptimizerSpec(lr=2e-3, weight_decay=0.05, warmup_steps=100),
        steps=1200,
        batch_size=64,
        precision="bfloat16",
        ema=0.99,
        evaluate_every=1200,
        log_every=100,
    )


def main(source: str, folder: Path, pictures: int = PICTURES, held_out: int = HELD_OUT) -> None:
    """Write train.jsonl and held_out.jsonl, each in a folder of its own with its pictures; equal runs, equal files."""
    drawings = drawings_of(source)
    for part, count in (("train", pictures), ("held_out", held_out)):
        (folder / part).mkdir(parents=True, exist_ok=True)
        random = Random(f"scenes {part}")
        rows: list[dict[str, str]] = []
        for number in range(count):
            things = scene(drawings, random, unseen=part == "held_out")
            name = f"{number:05d}.png"
            draw(things, drawings, random).save(folder / part / name)
            asked = [(f"answer en {ask}", answer) for ask, answer in questions(things, drawings, random)]
            if part == "train":
                asked.append(("caption en", ", ".join(thing.name for thing in things)))
            rows += [{"image": name, "prefix": prefix, "suffix": suffix} for prefix, suffix in asked]
        write_text(folder / part / f"{part}.jsonl", "".join(f"{json.dumps(row)}\n" for row in rows))
        print(f"{folder / part / part}.jsonl: {len(rows)} rows of {count} pictures", file=sys.stderr)


def drawings_of(source: str) -> Drawings:
    """The drawings of each thing that has any, as small as they stand in a frame. Exits if there are too few things."""
    samples, found = open_source(source), Drawings({name: [] for name in SEEN + UNSEEN})
    for index in range(len(samples)):
        sample = samples.sample(index, image=False)
        name = samples.label_names[sample.label] if sample.label >= 0 else sample.captions[0].partition(", ")[0]
        if name in found:
            picture = read_image(samples.sample(index).image)
            picture.thumbnail((DRAWING_PX, DRAWING_PX), Image.Resampling.LANCZOS)
            found[name].append(picture)
    drawings = {name: pictures for name, pictures in found.items() if pictures}
    seen = [name for name in SEEN if name in drawings]
    print(f"{source}: {sum(map(len, drawings.values()))} drawings of {len(drawings)} things", file=sys.stderr)
    if len(seen) <= len(COUNTS) or len(seen) == len(drawings):
        there = ", ".join(drawings) or "none of the things"
        sys.exit(
            f"{source} shows {there}; expected, as classes or captions of drawings, five or more of {', '.join(SEEN)}, "
            f"and one or more of {', '.join(UNSEEN)}"
        )
    return drawings


def scene(drawings: Drawings, random: Random, *, unseen: bool) -> list[Thing]:
    """One to four things with different names and frames, in reading order; if `unseen`, one or more are of UNSEEN."""
    usual, strange = ([name for name in names if name in drawings] for names in (SEEN, UNSEEN))
    count = random.randint(1, len(COUNTS))
    others = random.randint(1, min(count, len(strange))) if unseen else 0
    names = [*random.sample(strange, others), *random.sample(usual, count - others)]
    cells = random.sample([(row, column) for row in range(2) for column in range(2)], count)
    frames = random.sample(list(FRAMES), count)
    things = [Thing(name, frame, *cell) for name, frame, cell in zip(names, frames, cells, strict=True)]
    return sorted(things, key=lambda thing: (thing.row, thing.column))


def questions(things: list[Thing], drawings: Drawings, random: Random) -> list[tuple[str, str]]:
    """Questions with their answers, which name no thing of UNSEEN: one of each kind that the picture allows."""
    known = [thing for thing in things if thing.name in SEEN]
    absent = random.choice([name for name in SEEN if name in drawings and name not in {thing.name for thing in known}])
    there = random.choice(known).name if known and random.random() < 0.5 else absent
    article = "an" if there[0] in "aeiou" else "a"
    asked = [
        ("how many things are there?", COUNTS[len(things) - 1]),
        (f"is there {article} {there}?", "no" if there == absent else "yes"),
    ]
    if known:
        thing = random.choice(known)
        asked.append((f"what color is the frame of the {thing.name}?", thing.frame))
    pairs = [(left, right) for left, right in pairwise(things) if left.row == right.row]
    pairs = [pair for pair in pairs if all(thing in known for thing in pair)]
    if pairs:
        left, right = random.choice(pairs)
        sides = [(f"what is left of the {right.name}?", left.name), (f"what is right of the {left.name}?", right.name)]
        asked.append(random.choice(sides))
    return asked


def draw(things: list[Thing], drawings: Drawings, random: Random) -> Image.Image:
    """Each thing by one of its drawings, a little beside the middle of its quarter, on a light ground."""
    ground = tuple(random.randint(215, 255) for _ in range(3))
    picture = Image.new("RGB", (2 * CELL_PX, 2 * CELL_PX), ground)
    pen = ImageDraw.Draw(picture)
    for thing in things:
        x, y = (CELL_PX * place + random.randint(0, CELL_PX - FRAME_PX) for place in (thing.column, thing.row))
        colour = tuple(min(255, max(0, level + random.randint(-18, 18))) for level in FRAMES[thing.frame])
        pen.rectangle((x, y, x + FRAME_PX - 1, y + FRAME_PX - 1), fill=colour)
        rim = (FRAME_PX - DRAWING_PX) // 2
        pen.rectangle((x + rim, y + rim, x + FRAME_PX - rim - 1, y + FRAME_PX - rim - 1), fill="white")
        drawing = random.choice(drawings[thing.name])
        picture.paste(drawing, (x + (FRAME_PX - drawing.width) // 2, y + (FRAME_PX - drawing.height) // 2))
    return picture


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "samples", Path(sys.argv[2] if len(sys.argv) > 2 else "scenes"))
