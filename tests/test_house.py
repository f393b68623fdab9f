"""The layout keeps its promises: who may import whom, what is public, what loads no torch, what the README draws."""

import argparse
import ast
import importlib
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

import siglip
from siglip.checkpoints.load import LAYOUTS
from siglip.evaluation.many import _USES
from siglip.model.kinds import KINDS
from tests.conftest import ROOT

PACKAGE = ROOT / "siglip"

# a room may import from rows below its own, or from its own folder
ROWS = [
    {
        "config",
        "config_paligemma",
        "types",
        "errors",
        "fields",
        "distributed",
        "files",
        "releases",
        "contact_sheet",
        "pictures",
        "pretrained",
        "keywords",
        "devices",
        "download",
        "embeddings",
    },
    {"model", "processing", "losses"},
    {"checkpoints", "data", "streaming"},
    {"embedder", "captioner", "classifier"},
    {"pipelines"},
    {"evaluation"},
    {"training", "search", "export"},
    {"server"},
    {"cli"},
]
# the one door upward: classes reach their files when asked, see its docstring
UPWARD = {("pretrained", "checkpoints")}
PEERS = {"transformers", "open_clip", "timm", "jax", "flax", "torchvision"}
# each heavy or optional library has one room that may know it
ONLY_IN = {
    "datasets": {"data/tables.py"},
    "fastapi": {
        f"server/{name}.py"
        for name in ("answers", "app", "assets", "comparing", "explaining", "finding", "pictures", "schema", "writing")
    },
    "h11": {"server/fetching.py"},
    "prometheus_client": {"server/metrics.py"},
    "pydantic": {"server/answers.py", "server/messages.py"},
    "pydantic_core": {"server/messages.py"},
    "starlette": {
        f"server/{name}.py" for name in ("app", "finding", "forms", "pictures", "safety", "sources", "waiting")
    },
    "uvicorn": {"server/run.py"},
    "fsspec": {"data/store.py"},
    "jinja2": {"evaluation/report.py", "search/map.py", "search/page.py"},
    "huggingface_hub": {"checkpoints/hub.py"},
    "av": {"search/media.py"},
    "rawpy": {"search/media.py"},
    "pillow_heif": {"processing/decode.py"},
    "sklearn": {"search/map.py"},
    "sentencepiece": {"processing/vocabulary.py"},
    "tokenizers": {"processing/vocabulary.py"},
    "turbovec": {"search/vectors.py"},
    "watchfiles": {"search/watching.py"},
}


def row_of(room: str) -> int:
    return next(index for index, rooms in enumerate(ROWS) if room in rooms)


def imports_of(path: Path) -> list[str]:
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: imports are written in full"
            names += [node.module] if node.module != "siglip" else [f"siglip.{alias.name}" for alias in node.names]
    return names


MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE or not path.stem.startswith("__"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_room_imports_only_from_the_rows_below_or_its_own_folder(path: Path) -> None:
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    for name in imports_of(path):
        top, *rest = name.split(".")
        assert top not in PEERS, f"{path.name} imports the peer {top}"
        if top in ONLY_IN:
            assert str(path.relative_to(PACKAGE)) in ONLY_IN[top], f"{path.name} imports {top}"
        if top == "siglip" and rest and rest[0] != room and not rest[0].startswith("__"):
            allowed = (
                row_of(rest[0]) < row_of(room) or (room, rest[0]) in UPWARD or row_of(rest[0]) == row_of(room) == 0
            )
            assert allowed, f"{room} (row {row_of(room)}) imports {rest[0]} (row {row_of(rest[0])})"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_functions_and_signatures_keep_their_size(path: Path) -> None:
    source = path.read_text()
    assert len(source.splitlines()) <= 400
    assert source.isascii()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            count = len([argument for argument in arguments if argument.arg not in ("self", "cls")])
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno < 60, f"{node.name} is too long"
            assert count <= 8, f"{node.name} takes {count} arguments"


def test_public_names_are_sorted_and_resolve() -> None:
    assert siglip.__all__ == sorted(siglip.__all__)
    for name in siglip.__all__:
        assert callable(getattr(siglip, name))


@pytest.mark.parametrize("statement", ["import siglip", "import siglip.releases", "import siglip.cli.main"])
def test_these_imports_load_no_torch(statement: str) -> None:
    code = f"import sys; {statement}; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("command", "option", "known"),
    [("convert", "--to", LAYOUTS), ("evaluate", "--task", _USES)],
    ids=["layouts", "evaluations"],
)
def test_the_command_line_offers_what_the_library_can_do(
    command: str, option: str, known: Mapping[str, object]
) -> None:
    parser = argparse.ArgumentParser()
    importlib.import_module(f"siglip.cli.{command}").configure(parser)
    (choices,) = [action.choices for action in parser._actions if option in action.option_strings]
    assert sorted(choices or ()) == sorted(known)


def test_every_kind_of_model_is_a_public_name() -> None:
    assert {kind.name for kind in KINDS} <= set(siglip.__all__)


def test_the_tree_in_the_docs_draws_every_room() -> None:
    drawn_tree = re.search(r"```tree\n(.*?)```", (ROOT / "docs" / "architecture.md").read_text(), re.DOTALL)
    assert drawn_tree is not None
    folders: list[str] = []
    drawn: set[str] = set()
    for line in drawn_tree.group(1).splitlines():
        name = line.strip().split("  ")[0].rstrip("/")
        depth = (len(line) - len(line.lstrip())) // 2
        folders = [*folders[:depth], name]
        drawn.add("/".join(folders))
    for path in drawn:
        assert (ROOT / path).exists(), f"docs/architecture.md draws {path}, which is not there"
    rooms = {"/".join(path.relative_to(ROOT).parts[:2]) for path in MODULES if not path.stem.startswith("__")}
    assert rooms <= drawn, f"docs/architecture.md does not draw {sorted(rooms - drawn)}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_the_first_line_of_a_file_says_what_it_is_for(path: Path) -> None:
    said = ast.get_docstring(ast.parse(path.read_text()))
    assert said is not None
    assert 10 < len(said.splitlines()[0]) <= 160
