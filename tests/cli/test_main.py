import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

import siglip as package
from siglip.cli.main import COMMANDS, EXIT_CODES, EXIT_CODES_LIKE_GREP, LIKE_GREP, main
from tests.conftest import ROOT


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["--version"],
        ["models"],
        ["models", "--json"],
        ["classify", "--help"],
        ["embed", "--help"],
        ["classify", "missing.png", "--labels", "cat"],
        ["classify", ".", "--labels", "cat", "--model", "nanno"],
        ["info", "nanno"],
    ],
)
def test_what_needs_no_model_is_answered_without_torch_or_numpy(words: list[str]):
    probe = (
        f"import sys; from siglip.cli.main import main; main({words!r}); "
        "heavy = {'torch', 'numpy', 'PIL', 'tqdm', 'huggingface_hub'} & {*sys.modules}; print(heavy, file=sys.stderr); "
        "sys.exit(len(heavy))"
    )
    result = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, timeout=250)
    assert result.returncode == 0, result.stderr


def test_importing_the_package_loads_no_torch():
    probe = "import sys, siglip; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", probe], timeout=250).returncode == 0


def test_no_command_shows_the_help_on_stderr_as_wrong_usage(capsys: pytest.CaptureFixture[str]):
    assert main([]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert main(["--help"]) == 0
    assert capsys.readouterr().out == err


def test_the_help_lists_every_command_and_every_exit_code(capsys: pytest.CaptureFixture[str]):
    main(["--help"])
    page = capsys.readouterr().out
    assert all(f"\n  {name:10}{summary}\n" in page for name, summary in COMMANDS.items())
    assert EXIT_CODES in page
    assert max(map(len, page.splitlines())) <= 80


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_teaches_its_purpose_with_examples_and_exit_codes(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("COLUMNS", "80")
    assert main([name, "--help"]) == 0
    page = capsys.readouterr().out
    assert page.startswith(f"usage: siglip {name}")
    assert page.count(f"  siglip {name} ") + page.count(f"| siglip {name} ") + page.count(f"  siglip {name}\n") >= 3
    assert (EXIT_CODES_LIKE_GREP if name in LIKE_GREP else EXIT_CODES) in page
    assert max(map(len, page.splitlines())) <= 80
    assert (importlib.import_module(f"siglip.cli.{name}").__doc__ or "") in page


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"siglip {package.__version__}\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["clasify"], "no command 'clasify'; did you mean 'classify'?"),
        (["quux"], f"no command 'quux'; the commands are {', '.join(COMMANDS)}"),
        (["--versoin"], "no option '--versoin'; did you mean '--version'?"),
        (["classify", "a.png", "--lables", "x"], "no option '--lables'; did you mean '--labels'?"),
        (["classify", "a.png"], "one of the arguments --labels --labels-file is required"),
        (["classify", "--labels", "x"], "no pictures were given; they come first, before --labels or --texts"),
        (["classify", "a", "--labels", "x", "--top", "-1"], "argument --top: expected a whole number >= 1, got '-1'"),
        (["classify", "a", "--labels", "x", "--template", "y"], "argument --template: 'y' has no {} for the label"),
        (["classify", "a", "--labels", "x", "--sheet", "y.jpg"], "argument --sheet: 'y.jpg' does not end in .png"),
        (["search", "x", "--sheet", "y.jpg"], "argument --sheet: 'y.jpg' does not end in .png"),
        (["data", "stats", "a", "--sheet", "y.jpg"], "argument --sheet: 'y.jpg' does not end in .png"),
        (["explain", "a", "--texts", "x", "--out", "y.jpg"], "argument --out: 'y.jpg' does not end in .png"),
        (["data", "stats", "a", "--sheat", "x"], "no option '--sheat'; did you mean '--sheet'?"),
        (["data", "pack", "a", "b", "--sheat", "x"], "no option '--sheat'"),  # --sheet would be refused
        (["classify", "a", "--labels", "x", "--quux"], "no option '--quux'"),
        (["models", "--json", "--jsonl"], "argument --jsonl: not allowed with argument --json"),
        (["embed", "a", "--texts", "x", "--out", "y"], "give one of these: pictures, --texts or --texts-file"),
    ],
)
def test_wrong_usage_is_told_in_one_line_with_the_nearest_name(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
):
    assert main(words) == 2
    where = f"; see 'siglip {words[0]} --help'" if words[0] in COMMANDS else ""
    assert capsys.readouterr() == ("", f"siglip: error: {message}{where}\n")


_NULL = "--null (-0) is for names on stdin, which - among the pictures reads; add -, or leave it out"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("classify samples -0 --labels a b", _NULL),
        ("classify --null --labels a b", _NULL),
        ("score samples --null --texts a", _NULL),
        ("caption samples -0", _NULL),
        ("ask samples -0 why?", _NULL),
        ("detect samples -0 cat --model nano-caption", _NULL),
        ("embed samples -0 --out OUT", _NULL),
        (
            "embed --texts a -0 --out OUT",
            "--null (-0) is for names of pictures on stdin, and texts are given; leave it out",
        ),
        (
            "embed samples --parquet --out OUT.jsonl",
            "--parquet writes no OUT.jsonl; give --out a name without suffix",
        ),
        (
            "ask samples why? --answers a b --max-tokens 5",
            "--answers chooses one of the given texts and --max-tokens is for writing; give one of the two",
        ),
        (
            "ask samples why? --answers a b --beams 1",
            "--answers chooses one of the given texts and --beams is for writing; give one of the two",
        ),
        ("ask samples why? --answers a b a", "one of the --answers is given twice; give each once"),
        (
            "caption samples --rerank nano --beams 1",
            "--rerank draws texts and --beams searches for the likeliest; give one of the two",
        ),
        ("caption samples --overwrite", "--overwrite replaces what --write writes; give --write too"),
        (
            "caption samples --seed 0",
            "--samples and --seed are for what --rerank chooses from; give --rerank too",
        ),
        ("search x --explain", "--explain draws over pictures; add --html FILE or --sheet FILE.png"),
        (
            "search x --explain --paths --copy-to OUT",
            "--explain draws over pictures; add --html FILE or --sheet FILE.png",
        ),
        ("index samples --watch --dry-run", "--watch changes the library, --dry-run does not; leave one of them out"),
        ("library status --dry-run", "--dry-run is for check, prune, forget; leave it out with status"),
        ("data stats samples --max-px 9", "--max-px is for `siglip data pack`, not for stats"),
        ("data pack samples OUT --model nano", "--model is for `siglip data stats`, not for pack"),
        (
            "evaluate nano --task retrieval --data samples --templates a{}",
            "--templates is for --task zero-shot, not for retrieval",
        ),
        (
            "evaluate nano-caption --task vqa --data samples --prompt x",
            "--prompt is for --task captioning, not for vqa",
        ),
    ],
)
def test_an_option_without_effect_beside_others_is_refused_and_both_are_named(
    words: str, message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(ROOT)
    assert main(words.split()) == 2
    assert capsys.readouterr() == ("", f"siglip: error: {message}; see 'siglip {words.split()[0]} --help'\n")


def test_a_search_draws_heat_only_where_pictures_are_drawn(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    # as on a terminal, where hits are shown as pictures unless another form is asked for
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for form in ("--json", "--jsonl", "--paths", "--null"):
        assert main(["search", "x", "--explain", form]) == 2
        assert "--explain draws over pictures" in capsys.readouterr().err


@pytest.mark.parametrize(
    "value", ["ab " * 3400, "q" * 10_000, "/".join(["w" * 100] * 30)], ids=["words", "one", "path"]
)
@pytest.mark.parametrize(
    "words",
    [
        "VALUE",
        "info VALUE",
        "models VALUE",
        "convert nano x --to VALUE",
        "classify VALUE --labels a",
        "classify samples --labels-file VALUE",
        "classify samples --labels a --template VALUE",
        "classify samples --labels a --VALUE",
        "embed samples --batch-size VALUE --out x",
        "search a --library VALUE",
        "data stats VALUE",
        "train VALUE",
        "train recipes/finetune_classes.py --dry-run --set steps=VALUE",
        "train recipes/finetune_classes.py --dry-run --set VALUE=1",
        "train --resume --out VALUE",
        "evaluate nano --data VALUE --task retrieval",
    ],
)
def test_what_was_given_is_cut_in_messages(
    words: str, value: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(ROOT)
    assert main([word.replace("VALUE", value) for word in words.split()]) in (1, 2)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("siglip: error: ")
    assert err.count("\n") == 1
    assert len(err) < 700


def test_an_error_of_the_operating_system_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["classify", str(tmp_path), "--labels-file", str(tmp_path)]) == 1
    assert capsys.readouterr().err == f"siglip: error: {tmp_path}: Is a directory\n"


@pytest.mark.parametrize("words", ["models", "models --jsonl", "classify --help", "--help"])
def test_a_reader_that_leaves_early_is_no_error(words: str):
    line = f"unset PYTHONUNBUFFERED; set -o pipefail; {sys.executable} -m siglip {words} | head -1"
    result = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=250)
    assert (result.returncode, result.stderr, len(result.stdout.splitlines())) == (0, "", 1)


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("word", ["models", "--help"])
def test_a_full_disk_is_an_error_in_one_line(word: str, unbuffered: str):
    command, environment = [sys.executable, "-m", "siglip", word], {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=250, env=environment)
    assert (result.returncode, result.stderr) == (1, "siglip: error: No space left on device\n")
