"""Small pictures, shards and folders made on the spot, and a processor for them."""

import io
import json
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from PIL import Image

from siglip.config import ImageSettings, TextSettings
from siglip.processing import SiglipImageProcessor, SiglipProcessor, SiglipTokenizer
from tests.conftest import ROOT

Content = str | bytes
MakeTar = Callable[[str, dict[str, Content]], Path]
MakeShards = Callable[[Sequence[int]], Path]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGLIP_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def processor() -> SiglipProcessor:
    vocabulary = ROOT / "siglip" / "assets" / "nano" / "spiece.model"
    tokenizer = SiglipTokenizer(vocabulary, TextSettings(context_length=6))
    return SiglipProcessor(SiglipImageProcessor(ImageSettings(image_size=8)), tokenizer)


def picture(number: int, size: tuple[int, int] = (10, 8)) -> Image.Image:
    """One colour for each number below 2 ** 24."""
    return Image.new("RGB", size, (number % 256, number // 256 % 256, number // 65536))


def png(number: int, size: tuple[int, int] = (10, 8)) -> bytes:
    stream = io.BytesIO()
    picture(number, size).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def make_tar(tmp_path: Path) -> MakeTar:
    def make(name: str, members: dict[str, Content]) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(path, "w:gz" if name.endswith("gz") else "w") as tar:
            for member, content in members.items():
                data = content.encode() if isinstance(content, str) else content
                header = tarfile.TarInfo(member)
                header.size = len(data)
                tar.addfile(header, io.BytesIO(data))
        return path

    return make


@pytest.fixture
def make_shards(make_tar: MakeTar) -> MakeShards:
    """A folder of shards of these sizes; sample i of all has colour i and three captions."""

    def make(sizes: Sequence[int], suffix: str = "tar") -> Path:
        number, path = 0, Path()
        for shard, size in enumerate(sizes):
            members: dict[str, Content] = {}
            for _ in range(size):
                captions = [f"thing {number}", f"object {number}", f"item {number}"]
                members[f"key{number}.png"] = png(number)
                members[f"key{number}.txt"] = captions[0]
                members[f"key{number}.json"] = json.dumps({"captions": captions})
                number += 1
            path = make_tar(f"shards/train-{shard:03d}.{suffix}", members)
        return path.parent

    return make
