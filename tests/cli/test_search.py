import base64
import io
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest
from PIL import Image

from siglip.cli.main import main
from siglip.search import Library
from tests.cli.conftest import Run
from tests.conftest import ROOT
from tests.search.conftest import draw


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
    """The current folder, with a library of the sample pictures."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SIGLIP_LIBRARY", str(tmp_path / "library"))
    (tmp_path / "samples").symlink_to(ROOT / "samples")
    assert main(["index", "samples"]) == 0
    capsys.readouterr()
    return tmp_path


def test_results_come_as_rows_json_lines_or_paths(shelf: Path, capsys: pytest.CaptureFixture[str]):
    def run(*words: str) -> str:
        assert main(["search", "a beagle", "--all", "--top", "2", *words]) == 0
        return capsys.readouterr().out

    heading, first, _ = run().splitlines()
    assert heading.split("\t") == ["rank", "confidence", "probability", "score", "taken", "path", "alike"]
    assert first.split("\t")[0::5] == ["1", "samples/beagle.png"]
    document = json.loads(run("--json"))
    assert [hit["rank"] for hit in document["hits"]] == [1, 2]
    assert document["hits"][0]["path"] == str(shelf / "samples" / "beagle.png")
    assert (document["query"], document["model"]) == ("a beagle", "nano")
    # the better hit is the surer one, and both are shares
    assert 1 >= document["hits"][0]["confidence"] >= document["hits"][1]["confidence"] >= 0
    assert [json.loads(line) for line in run("--jsonl").splitlines()] == document["hits"]
    assert run("--paths").splitlines() == [hit["path"] for hit in document["hits"]]
    assert run("-0").split("\0")[:-1] == [hit["path"] for hit in document["hits"]]
    assert main(["search", "a beagle", "--all", "--top", "1", "--page", "2", "--paths"]) == 0
    assert capsys.readouterr().out.strip() == document["hits"][1]["path"]


def test_nothing_that_matches_is_exit_code_1_and_said(shelf: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["search", "a beagle", "--all", "--min-probability", "0.999"]) == 1
    assert capsys.readouterr().err == "siglip: nothing matches\n"
    assert main(["search", "a beagle", "--all", "--where", "width > 100000", "--paths"]) == 1
    capsys.readouterr()
    assert main(["search", "a beagle", "--all", "--page", "99", "--paths"]) == 1
    assert capsys.readouterr() == ("", "siglip: there are no hits on page 99\n")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["search", "a beagle", "--where", "breadth > 1"], "no column 'breadth'"),
        (["search", "a beagle", "--top", "0"], "--top"),
        (["search"], "the query is empty"),
        (["search", "--like", "absent.png"], "absent.png: no such file"),
        (["search", "a beagle", "--library", "samples"], "no library"),
        (["search", "a beagle", "--all", "--html", "library"], "library"),
        (["similar", "absent.png"], "absent.png: no such file"),
        (["similar", "samples/cat.jpg", "--where", "width >"], "expected a number"),
    ],
)
def test_an_error_of_search_is_exit_code_2_as_of_grep(
    words: list[str], said: str, shelf: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(words) == 2
    printed = capsys.readouterr()
    assert said.lower() in printed.err.lower() and printed.err.splitlines()[-1].startswith("siglip: error: ")


def test_hits_that_could_not_be_copied_are_exit_code_3(shelf: Path, capsys: pytest.CaptureFixture[str]):
    words = ["search", "a beagle", "--all", "--top", "1", "--copy-to", "out"]
    assert main(words) == 0
    assert main(words) == 3
    assert "is there already" in capsys.readouterr().err


def test_hits_that_are_not_sure_are_counted_and_shown_on_request(
    shelf: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    """What absence looks like is set here, so that the nearest picture alone is above the bar, then none."""
    with Library.open() as library:
        best, second, *_ = library.search("a beagle")
        for location, code in (((best.score + second.score) / 2 - 3.49 * 1e-4, 0), (1.0, 1)):
            with library.catalogue.writing():
                absent = {"nearest": {"location": location, "scale": 1e-4}, "beyond": {"location": -1.0, "scale": 1e-4}}
                values = {**absent, "slope": 0.0, "centre": [0.0] * library.space.dim, "rows": 16}
                library.catalogue.set_meta("null-1", json.dumps(values))
            capsys.readouterr()
            assert main(["search", "a beagle", "--top", "5", "--paths"]) == code
            printed = capsys.readouterr()
            assert printed.out.splitlines() == [best.path] * (1 - code)
            assert ("4 hits that are not sure are left out" in printed.err) == (code == 0)
            assert ("nothing matches surely; the nearest is samples/beagle.png" in printed.err) == (code == 1)
            # people see the nearest all the same, on a page and on a terminal
            assert main(["search", "a beagle", "--html", "found.html", "--json"]) == code
            assert len(json.loads(capsys.readouterr().out)["hits"]) == 1 - code
            page = Path("found.html").read_text(encoding="utf-8")
            assert page.count("<img") == 1 + 4 * code
            assert ("Nothing matches surely: the 5 nearest pictures" in page) == (code == 1)
            with monkeypatch.context() as terminal:
                terminal.setattr(sys.stdout, "isatty", lambda: True)
                terminal.setenv("NO_COLOR", "1")
                assert main(["search", "a beagle"]) == code
            heading, *rows = capsys.readouterr().out.splitlines()
            assert heading.startswith(("\x1b[1mrank", "rank"))
            assert [row.split()[0] for row in rows] == ["1", "2", "3", "4", "5"][: 1 + 4 * code]
            assert main(["search", "a beagle", "--top", "5", "--paths", "--all"]) == 0
            assert len(capsys.readouterr().out.splitlines()) == 5


def test_copies_are_listed_and_folded(shelf: Path, capsys: pytest.CaptureFixture[str]):
    (shelf / "more").mkdir()
    with Image.open(ROOT / "samples" / "beagle.png") as beagle:
        beagle.save(shelf / "more" / "beagle again.png")
        beagle.convert("RGB").resize((200, 190)).save(shelf / "more" / "small.jpg", quality=60)
    assert main(["index", "more"]) == 0
    capsys.readouterr()
    assert main(["dupes"]) == 0
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()[1:]]
    assert [row[:2] for row in rows] == [["1", "keep"], ["1", "alike"], ["1", "alike"]]
    assert rows[2][2:] == ["200 x 190", str((shelf / "more" / "small.jpg").stat().st_size), "more/small.jpg"]
    assert main(["dupes", "--paths"]) == 0
    others = capsys.readouterr().out.splitlines()
    assert main(["dupes", "--json"]) == 0
    (group,) = json.loads(capsys.readouterr().out)["groups"]
    assert [copy["path"] for copy in group["copies"][1:]] == others
    assert main(["dupes", "--exact", "-0"]) == 0
    assert capsys.readouterr().out == ""
    words = ["search", "a beagle + ./samples/beagle.png", "--top", "4", "--json"]
    assert main(words) == 0
    first, *rest = json.loads(capsys.readouterr().out)["hits"]
    assert (len(first["alike"]), len(rest)) == (2, 1)
    assert main([*words, "--all"]) == 0
    assert all(not hit["alike"] for hit in json.loads(capsys.readouterr().out)["hits"])


def test_pictures_found_are_drawn_copied_and_linked(shelf: Path, capsys: pytest.CaptureFixture[str]):
    words = ["similar", "samples/pig.png", "--top", "3", "--sheet", "sheet.png"]
    assert main([*words, "--copy-to", "copies"]) == 0
    assert main([*words, "--link-to", "links"]) == 0
    found = [line.split("\t")[-2] for line in capsys.readouterr().out.splitlines()[1:4]]
    names = [f"{rank:04} {Path(path).name}" for rank, path in enumerate(found, start=1)]
    assert sorted(path.name for path in (shelf / "copies").iterdir()) == names
    assert [(shelf / "links" / name).resolve() for name in names] == [(shelf / path).resolve() for path in found]
    with Image.open(shelf / "sheet.png") as sheet:
        assert sheet.width > 400
    assert main([*words, "--link-to", "links"]) == 3
    assert "is there already" in capsys.readouterr().err


def test_a_page_holds_its_pictures_and_links_to_the_files(shelf: Path, capsys: pytest.CaptureFixture[str]):
    name = "a & <b>.png"
    draw(shelf / "more" / name, 1)
    assert main(["index", "more"]) == 0
    words = ["similar", f"more/{name}", "--top", "2", "--html", "page.html"]
    assert main(words) == 0
    assert main(["search", "a beagle", "--all", "--top", "18", "--html", "all.html"]) == 0
    assert main(["search", "a beagle", "--all", "--top", "18", "--html", "heat.html", "--explain"]) == 0
    plain, heated = ((shelf / file).read_text() for file in ("all.html", "heat.html"))
    for page in (plain, heated):
        assert "a &amp; &lt;b&gt;.png" in page
        assert "<b>.png" not in page
        assert f'href="{(shelf / "samples" / "cat.jpg").as_uri()}"' in page
        assert "http" not in page.replace("http-equiv", "")
    thumbs = [re.findall('base64,([^"]+)', page) for page in (plain, heated)]
    sizes = [[Image.open(io.BytesIO(base64.b64decode(thumb))).size for thumb in page] for page in thumbs]
    assert sizes[0] == sizes[1] and len(sizes[0]) == 17
    assert not set(thumbs[0]) & set(thumbs[1])
    assert main(["search", "a beagle - a cat", "--html", "x.html", "--explain"]) == 2
    assert "--explain shows where one text is seen" in capsys.readouterr().err
    assert main(["search", "a beagle", "--explain"]) == 2
    assert "add --html FILE or --sheet FILE.png" in capsys.readouterr().err
    assert main(["index", "samples"]) == main(["dupes", "--html", "none.html"]) == 0
    assert not (shelf / "none.html").exists()


def test_a_question_asked_before_needs_no_torch(shelf: Path):
    code = (
        "import sys; from siglip.cli.main import main; code = main(sys.argv[1:]); "
        "sys.exit(code or ('torch' in sys.modules) * 99)"
    )
    command = [sys.executable, "-c", code, "search", "a rocket + ./samples/cat.jpg"]
    codes = [subprocess.run(command, check=False, stdout=subprocess.DEVNULL).returncode for _ in range(2)]
    assert codes == [99, 0]


def test_the_library_is_looked_after(shelf: Path, capsys: pytest.CaptureFixture[str]):
    def run(*words: str, code: int = 0) -> dict[str, object]:
        capsys.readouterr()
        assert main(["library", *words, "--json"]) == code
        return json.loads(capsys.readouterr().out)

    status = run()
    assert (status["pictures"], status["model"], status["roots"]) == (16, "nano", [str(shelf / "samples")])
    assert run("check") == {"sound": True, "damaged": [], "dry_run": False}
    draw(shelf / "more" / "x.png", 1)
    (shelf / "more" / "y.png").write_bytes(b"none")
    assert main(["index", "more"]) == 3
    assert "no picture" in capsys.readouterr().err
    (broken,) = cast(list[dict[str, str]], run("broken")["broken"])
    assert broken["path"] == str(shelf / "more" / "y.png")
    assert "no picture" in broken["reason"]
    (shelf / "more" / "x.png").unlink()
    assert main(["index"]) == 0
    assert run("prune", "--dry-run")["forgotten"] == 1
    assert run("prune")["forgotten"] == 1
    assert run("forget", "samples")["forgotten"] == 16
    assert main(["library", "forget"]) == 2


def test_vectors_go_out_and_come_in(shelf: Path, capsys: pytest.CaptureFixture[str]):
    def run(*words: str, code: int = 0) -> dict[str, object]:
        assert main(["library", *words, "--json"]) == code
        return json.loads(capsys.readouterr().out)

    assert run("export", "out") == {"folder": "out", "rows": 16}
    assert main(["embed", "samples", "--out", "vectors"]) == 0
    capsys.readouterr()
    for path in ("out", "vectors"):
        told = run("import", path, "--library", f"from {path}")
        assert (told["path"], told["rows"], told["added"], told["missing"]) == (path, 16, 16, 0)
    assert main(["library", "export", "a", "b"]) == 2
    assert main(["library", "import", "out", "--dry-run"]) == 2
    assert "--dry-run is for check, prune, forget" in capsys.readouterr().err


def test_without_a_library_the_way_to_one_is_told(siglip: Run, tmp_path: Path):
    done = siglip("search", "x", SIGLIP_LIBRARY=str(tmp_path / "none"))
    assert done.returncode == 2
    assert done.stderr == (
        f"siglip: error: {tmp_path / 'none'} holds no library of pictures; make one with `siglip index FOLDER`\n"
    )
    done = siglip("index", SIGLIP_LIBRARY=str(tmp_path / "none"))
    assert "no folder is known yet" in done.stderr


def test_changes_are_indexed_while_it_watches(tmp_path: Path, picture: Callable[[str], Path]):
    picture("photos/a.png")
    environment = {**os.environ, "SIGLIP_LIBRARY": str(tmp_path / "library"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "siglip", "index", "photos", "--watch", "--jsonl"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        assert json.loads(process.stdout.readline())["embedded"] == 1
        while "watching" not in process.stderr.readline():
            pass
        time.sleep(0.5)  # the system's watch starts right after this line
        draw(tmp_path / "photos" / "b.png", 5)
        assert json.loads(process.stdout.readline())["embedded"] == 1
        process.send_signal(2)
        assert process.wait(20) == 130
