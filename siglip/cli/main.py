"""Find the command, run it, and turn what goes wrong into one line and an exit code. No torch here."""

import argparse
import importlib
import io
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from types import FrameType
from typing import Any, NoReturn, Protocol, cast

from siglip import __version__
from siglip.cli.inputs import UsageError
from siglip.cli.output import say
from siglip.errors import SiglipError, SiglipWarning, clip, did_you_mean

# name -> what `siglip --help` says of it; the module siglip.cli.<name> is imported when the command is used
COMMANDS = {
    "classify": "say which of your labels fit each picture",
    "score": "compare every picture with every text",
    "embed": "write the vectors of pictures or texts to a file",
    "caption": "say in words what is in each picture",
    "ask": "ask one question of each picture",
    "detect": "find things in each picture",
    "index": "make folders of pictures searchable",
    "search": "find indexed pictures by words or pictures",
    "similar": "find indexed pictures that look like one",
    "dupes": "find files that hold the same picture",
    "map": "draw indexed pictures on a plane, like beside like",
    "library": "look after what was indexed",
    "explain": "draw where in a picture a text is seen",
    "models": "list the built-in models and every published checkpoint",
    "info": "show what a model is made of",
    "convert": "rewrite a checkpoint in another format",
    "data": "look at training data, or pack it into shards",
    "evaluate": "measure how good models are on data with known answers",
    "train": "train a model as a recipe says, and export it",
    "serve": "answer other programs over HTTP",
}

EXIT_CODES = """exit codes:
  0    done
  1    error, explained in one line on stderr
  2    wrong usage
  3    done, but some items failed; they are listed on stderr
  130  stopped by Ctrl-C
  143  stopped by SIGTERM; a training run has saved its state"""
# `siglip search QUERY && ...` and scripts that tell nothing from an error rely on it
LIKE_GREP = ("search", "similar")
EXIT_CODES_LIKE_GREP = """exit codes, as of grep:
  0    something was found
  1    nothing matches
  2    error, explained in one line on stderr, or wrong usage
  3    found, but some items failed; they are listed on stderr
  130  stopped by Ctrl-C"""

HELP = """usage: siglip COMMAND ...

Compare pictures with texts: SigLIP and SigLIP 2 on your own machine.

commands:
{commands}

for example:
  siglip classify samples/cat.jpg --labels "a cat" "a dog"
  siglip score samples --texts penguin teapot --json
  siglip embed samples --out vectors
  siglip index samples
  siglip search "a beagle" --all --top 3

options:
  --help     show this page; `siglip COMMAND --help` teaches one command
  --version  show the version

Results go to stdout: a table on a terminal, tab-separated values in a pipe,
JSON with --json or --jsonl. Everything else goes to stderr.

{exit_codes}

Of search and similar 1 means that nothing matches, and 2 an error, as of grep.
"""


class _Command(Protocol):
    def configure(self, parser: argparse.ArgumentParser) -> None: ...
    def run(self, arguments: argparse.Namespace) -> int: ...


def main(words: Sequence[str] | None = None) -> int:
    """Run one command line (`sys.argv` if None) and return its exit code."""
    ours = words is None
    if ours:
        signal.signal(signal.SIGINT, _stop)
    words = sys.argv[1:] if words is None else list(words)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # file names need not be valid text; they go out as the bytes they are
        sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape")
    try:
        code = _run(words)
        sys.stdout.flush()
    except UsageError as error:
        code = _complain(f"{error}; see 'siglip {words[0]} --help'", 2)
    except BrokenPipeError:
        _write_no_more()  # whoever read our output has enough
        code = 0
    except (SiglipError, OSError) as error:
        if os.environ.get("SIGLIP_DEBUG"):
            raise
        code = _complain(_one_line(error), 2 if words[0] in LIKE_GREP else 1)
        try:
            sys.stdout.flush()
        except OSError:  # the disk behind it is full: that was the error, or comes with it
            _write_no_more()
    except KeyboardInterrupt:
        code = 130
        if ours:
            # at once: the interpreter would wait for threads that still read a slow disk or network
            os._exit(code)
    return code


def _stop(number: int, frame: FrameType | None) -> None:
    """Ctrl-C; from then on waiting for such threads is given up, wherever that is done."""
    if hasattr(signal, "setitimer"):
        signal.signal(signal.SIGALRM, _stop_waiting)
        signal.setitimer(signal.ITIMER_REAL, 0.5, 0.5)
    # where it cannot be raised, as in a destructor, Python would print a traceback
    sys.unraisablehook = lambda _: None
    raise KeyboardInterrupt


def _stop_waiting(number: int, frame: FrameType | None) -> None:
    # only there: elsewhere files are being put in order
    if frame is not None and frame.f_code.co_filename == threading.__file__:
        raise KeyboardInterrupt


def _run(words: list[str]) -> int:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always", SiglipWarning)
            warnings.showwarning = _say_once(warnings.showwarning)
            return _dispatch(words)
    except SystemExit as done:
        # argparse, after a help page or wrong usage
        return cast(int, done.code)


def _say_once(others: Callable[..., None]) -> Callable[..., None]:
    """What shows warnings: each of ours as one line, however often it comes; those of other libraries as before."""
    said: set[str] = set()

    def show(message: Warning | str, category: type[Warning], *place: Any) -> None:
        if not issubclass(category, SiglipWarning):
            others(message, category, *place)
        elif str(message) not in said:
            said.add(str(message))
            say(" ".join(str(message).split()))

    return show


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("--help", "-h"):
        listing = "\n".join(f"  {name:10}{summary}" for name, summary in COMMANDS.items())
        print(HELP.format(commands=listing, exit_codes=EXIT_CODES), end="", file=sys.stdout if words else sys.stderr)
        return 0 if words else 2
    if words[0] == "--version":
        print(f"siglip {__version__}")
        return 0
    name, rest = words[0], words[1:]
    if name not in COMMANDS:
        near = did_you_mean(name, [*COMMANDS, "--help", "--version"])
        hint = f"did you mean '{near}'?" if near else f"the commands are {', '.join(COMMANDS)}"
        return _complain(f"no {'option' if name.startswith('-') else 'command'} {clip(repr(name))}; {hint}", 2)
    module = importlib.import_module(f"siglip.cli.{name}")
    parser = _Parser(
        prog=f"siglip {name}",
        description=module.__doc__,
        epilog=EXIT_CODES_LIKE_GREP if name in LIKE_GREP else EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    command = cast(_Command, module)
    command.configure(parser)
    parser.belongs = getattr(module, "BELONGS", {})
    return command.run(parser.parse(rest))


class _Parser(argparse.ArgumentParser):
    belongs: Mapping[str, Sequence[str]] = {}

    def parse(self, words: list[str]) -> argparse.Namespace:
        """Parse, but look at the option names first: argparse would complain of what a misspelt one left missing."""
        if "--" in words:
            place = words.index("--")
            words, names = words[:place], words[place + 1 :]
            # argparse would take them for options, or hand them to the option before
            words = [f"./{name}" if name.startswith("-") and name != "-" else name for name in names] + words
        # -0 is an option, and yet numbers below zero are values
        self._has_negative_number_optionals.clear()
        known = self._option_string_actions
        for word in words:
            option = word.split("=")[0]
            if option.startswith("--") and option not in known:
                # not one that would be refused beside the other words
                usable = [name for name in known if {*self.belongs.get(known[name].dest, words)} & {*words}]
                near = did_you_mean(option, usable)
                self.error(f"no option {clip(repr(option))}" + (f"; did you mean '{near}'?" if near else ""))
        return self.parse_intermixed_args(words)

    def error(self, message: str) -> NoReturn:
        # the name of the option in front, and the choices at the end, stay
        self.exit(_complain(f"{clip(message, 400)}; see '{self.prog} --help'", 2))


def _write_no_more() -> None:
    """What still waits for stdout is dropped, also by the interpreter, which would try once more when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _complain(message: str, code: int) -> int:
    print(f"siglip: error: {message}", file=sys.stderr)
    return code


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror and not isinstance(error, SiglipError):
        return f"{clip(str(error.filename), 200)}: {error.strerror}" if error.filename else error.strerror
    return " ".join(line.strip() for line in str(error).splitlines()) or type(error).__name__
