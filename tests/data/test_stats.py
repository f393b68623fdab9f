"""Every figure of the statistics, against what was put in."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from siglip.data import open_source, stats
from siglip.data.stats import Repeats, Spread, data_sheet, data_stats, difference_hash
from siglip.errors import DataError
from siglip.processing import SiglipProcessor
from tests.data.conftest import MakeShards, MakeTar, png


def test_every_figure_is_right(tmp_path: Path, make_tar: MakeTar, processor: SiglipProcessor) -> None:
    long = "one two three four five six seven eight"
    members = {
        "a.png": png(1, (10, 8)), "a.txt": "a cat", "a.cls": "1", "a.json": '{"concept": "x"}',
        "b.png": png(1, (10, 8)), "b.txt": "a dog", "b.cls": "1", "b.json": '{"concept": "x"}',
        "c.png": png(2, (20, 40)), "c.txt": "a cat", "c.json": json.dumps({"captions": ["a cat", long]}),
        "d.png": b"x", "d.txt": "d",
        "e.png": png(3),
    }  # fmt: skip
    (tmp_path / "classnames.txt").write_text("ant\nbee\n")
    source = open_source(make_tar("s.tar", members))
    done: list[int] = []
    stats = data_stats(source, processor.tokenizer, workers=1, progress=done.append)
    assert sum(done) == 5
    assert stats.samples == 3
    assert [item.name for item in stats.broken] == ["s/d", "s/e"]
    assert stats.classes == {"ant": 0, "bee": 2}
    assert stats.concepts == 1
    assert stats.formats == {"PNG": 3}
    assert stats.image_bytes == 2 * len(png(1)) + len(png(2, (20, 40)))
    assert stats.longer_side_px == Spread(smallest=10.0, median=10.0, mean=20.0, percentile_95=37.0, largest=40.0)
    assert stats.longer_sides_up_to_px == {16: 2, 64: 1}
    assert stats.captions_per_sample == Spread(smallest=1.0, median=1.0, mean=1.33, percentile_95=1.9, largest=2.0)
    tokens = [processor.tokenizer.count(caption) for caption in ("a cat", "a dog", "a cat", long)]
    assert (stats.caption_tokens.smallest, stats.caption_tokens.largest) == (min(tokens), max(tokens))
    assert stats.captions_cut == 0.25, "one of four has more than six tokens"
    assert stats.equal_captions == Repeats(samples=2, groups=1, largest=[["s/a", "s/c"]])
    assert stats.equal_images == Repeats(samples=2, groups=1, largest=[["s/a", "s/b"]])


def test_few_different_captions_are_told(tmp_path: Path, make_tar: MakeTar, processor: SiglipProcessor) -> None:
    for captions, told in (
        (["a cat", "A  cat", "a dog", "a cat"], "only 2 different captions: "),
        (["a cat", "a dog", "a pig", "a pig"], None),
    ):
        members = {
            f"{i}.{end}": value for i, text in enumerate(captions) for end, value in (("png", png(i)), ("txt", text))
        }
        summary = data_stats(open_source(make_tar("s.tar", members)), processor.tokenizer, workers=0).summary()
        assert ("different captions" in summary) == (told is not None)
        assert (told or "") in summary


def test_resized_and_recompressed_pictures_look_alike_and_others_do_not(tmp_path: Path) -> None:
    smooth = np.random.default_rng(0).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    picture = Image.fromarray(smooth).resize((300, 200), Image.Resampling.BICUBIC)
    picture.save(tmp_path / "a.jpg", quality=60)
    with Image.open(tmp_path / "a.jpg") as jpeg:
        bits = [
            np.unpackbits(np.frombuffer(difference_hash(image), np.uint8))
            for image in (picture, jpeg, picture.resize((150, 90)))
        ]
    assert all((bits[0] != other).mean() < 0.02 for other in bits[1:])
    mirrored = np.unpackbits(
        np.frombuffer(difference_hash(picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)), np.uint8)
    )
    assert (bits[0] != mirrored).mean() > 0.3
    # by hand: a picture that darkens to the right has every bit set, one that brightens none
    ramp = Image.linear_gradient("L").rotate(90)
    assert {difference_hash(ramp), difference_hash(ramp.rotate(180))} == {b"\xff" * 32, b"\0" * 32}


def test_a_source_without_a_good_sample_is_an_error(make_tar: MakeTar, processor: SiglipProcessor) -> None:
    source = open_source(make_tar("s.tar", {"a.png": "x", "a.txt": "a"}))
    with pytest.raises(DataError, match="none of the 1 samples can be used, the first is s/a: "):
        data_stats(source, processor.tokenizer, workers=0)


def test_the_sheet_shows_as_many_samples_as_there_are(make_shards: MakeShards) -> None:
    few, many = (data_sheet(open_source(make_shards([size])), count=12) for size in (3, 40))
    assert few.width * few.height < many.width * many.height
    colours = {colour for _, colour in few.getcolors(1 << 24) or []}
    assert {(0, 0, 0), (1, 0, 0), (2, 0, 0)} <= colours


def test_the_sheet_names_the_file_below_the_captions_of_each_sample(
    tmp_path: Path, make_tar: MakeTar, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[list[str]] = []

    def noted(cells: Iterable[tuple[Image.Image, Sequence[str]]], *, cell_px: int) -> Image.Image:
        told.extend(list(lines) for _, lines in cells)
        return Image.new("RGB", (cell_px, cell_px))

    monkeypatch.setattr(stats, "contact_sheet", noted)
    data_sheet(open_source(make_tar("s.tar", {"dir/a.png": png(1), "dir/a.txt": "a cat"})))
    assert told == [["a cat", "a"]]
