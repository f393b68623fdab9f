"""Examples of the documentation and the help pages -> what they print, run as a reader runs them.

All run in processes forked from one, since most of the time of a command goes into importing torch. Each prints into a
terminal 100 columns wide, or into a pipe where the line has one. Towers compute in float32, so that the digits are
the same on every machine.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.conftest import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(console|python)\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", re.MULTILINE | re.DOTALL)
NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e[+-]\d+)?")


@dataclass(frozen=True, slots=True)
class Example:
    """A line for the shell or a piece of Python, the folder to run it in, and what the page says it prints."""

    where: str
    folder: str
    code: str
    shown: str
    python: bool = False


# json of examples on stdin -> json of [exit code, stdout, stderr] on stdout
RUNNER = r"""
import itertools, json, os, pty, runpy, shlex, subprocess, sys, tempfile, traceback
import torch, siglip.embedder, siglip.cli.evaluate, siglip.processing
from siglip.cli.main import main

torch.cpu.get_capabilities = dict  # no bfloat16
torch.set_num_threads(1)

def child(example, words, stdin, errors):
    os.chdir(example["folder"])
    os.dup2(errors.fileno(), 2)
    stdin and os.dup2(stdin.fileno(), 0)
    sys.stdin = open(0, closefd=False)
    try:
        if example["python"]:
            exec(compile(example["code"], example["where"], "exec"), {"__name__": "__main__"})
            code = 0
        else:
            code = main(words)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)

def run(example):
    words, before, after = [], [], []
    if not example["python"]:
        words = shlex.split(example["code"], comments=True)
        parts = [list(part) for bar, part in itertools.groupby(words, lambda word: word == "|") if not bar]
        place = next(number for number, part in enumerate(parts) if part[0] == "siglip")
        before, words, after = parts[:place], parts[place][1:], parts[place + 1:]
    target = words[words.index(">") + 1] if ">" in words else None
    words = words[:words.index(">")] if target else words
    stdin = tempfile.TemporaryFile()
    for part in before:
        stdin.write(subprocess.run(part, cwd=example["folder"], capture_output=True, check=True).stdout)
    stdin.seek(0)
    with tempfile.TemporaryFile() as errors:
        if target or after:
            read, write = os.pipe()
            pid = os.fork()
            if pid == 0:
                os.dup2(write, 1)
                child(example, words, stdin, errors)
            os.close(write)
        else:
            pid, read = pty.fork()
            if pid == 0:
                child(example, words, stdin if before else None, errors)
        printed = b""
        try:
            while block := os.read(read, 65536):
                printed += block
        except OSError:
            pass  # how a terminal ends
        os.close(read)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        errors.seek(0)
        said = errors.read().decode()
    for part in after:
        printed = subprocess.run(part, input=printed, stdout=subprocess.PIPE).stdout
    if target:
        with open(os.path.join(example["folder"], target), "wb") as file:
            file.write(printed)
        printed = b""
    return code, printed.decode().replace("\r\n", "\n"), said

print(json.dumps([run(example) for example in json.load(sys.stdin)]))
"""


def examples_of(page: Path, folder: Path) -> list[Example]:
    """Every command of the `console` blocks of a page and every `python` block, to be run in `folder`."""
    found: list[Example] = []
    text = page.read_text()
    for match in BLOCK.finditer(text):
        where = f"{page.name}:{text[: match.start()].count(chr(10)) + 1}"
        if match.group(1) == "python":
            found.append(Example(where, str(folder), match.group(2), match.group(3) or "", python=True))
            continue
        for part in re.split(r"^\$ ", match.group(2), flags=re.MULTILINE)[1:]:
            command, _, shown = part.partition("\n")
            found.append(Example(where, str(folder), command, shown))
    return found


def desk(folder: Path) -> Path:
    """A folder with the sample pictures and the recipes, as a reader has it."""
    folder.mkdir()
    shutil.copytree(ROOT / "samples", folder / "samples")
    (folder / "recipes").symlink_to(ROOT / "recipes")
    return folder


def run_examples(examples: list[Example], cache: Path) -> list[str]:
    """What each prints; raises if one fails, or prints nothing though it is a command."""
    environment = {
        **os.environ, "COLUMNS": "100", "NO_COLOR": "1", "HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(cache / "hub"),
        "SIGLIP_CACHE": str(cache / "siglip"), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1",
        "SIGLIP_LIBRARY": "library",
    }  # fmt: skip
    given = json.dumps([asdict(example) for example in examples])
    command = [sys.executable, "-c", RUNNER]
    done = subprocess.run(command, input=given, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    results = json.loads(done.stdout)
    for example, (code, printed, said) in zip(examples, results, strict=True):
        assert code == 0, f"{example.where}: {example.code}\nended with exit code {code}\n{printed}\n{said}"
        assert printed or example.python or ">" in example.code, f"{example.where}: {example.code}\nprinted nothing"
    return [printed for _, printed, _ in results]


def same(shown: str, printed: str) -> bool:
    """Whether a text says what was printed: the same words, and the same numbers to the digits it gives."""
    one, other = (" ".join(text.split()) for text in (shown, printed))
    if NUMBER.sub("#", one) != NUMBER.sub("#", other):
        return False
    pairs = zip(NUMBER.findall(one), NUMBER.findall(other), strict=True)
    return all(abs(float(a) - float(b)) <= 1.01 * _last_digit(a) for a, b in pairs)


def _last_digit(number: str) -> float:
    """What one more of the last digit is worth; nothing for a whole number, which must be exact."""
    mantissa, _, exponent = number.partition("e")
    places = len(mantissa.partition(".")[2])
    return 10.0 ** (int(exponent or 0) - places) if places else 0.0
