"""Run all benchmarks, each in a process of its own: tables on stderr, one JSON list on stdout.

Each also runs alone, for example `python -m benchmarks.towers --quick`:

"""

import ast
import json
import subprocess
import sys
from pathlib import Path

from benchmarks.harness import arguments

HERE = Path(__file__).resolve().parent
NO_QUESTION = ("__main__", "harness")


def main(argv: list[str] | None = None) -> int:
    scripts = [script for script in sorted(HERE.glob("*.py")) if script.stem not in NO_QUESTION]
    questions = [(ast.get_docstring(ast.parse(script.read_text())) or "").splitlines()[0] for script in scripts]
    listed = "\n".join(f"  {script.stem:12}{text}" for script, text in zip(scripts, questions, strict=True))
    options = arguments(f"{__doc__}{listed}", argv, prog="python -m benchmarks")
    words = ["--quick"] * options.quick + ([f"--rounds={options.rounds}"] if options.rounds else [])
    results = []
    for script in scripts:
        command = [sys.executable, "-m", f"benchmarks.{script.stem}", *words]
        done = subprocess.run(command, cwd=HERE.parent, check=True, stdout=subprocess.PIPE, text=True)
        results.append(json.loads(done.stdout))
    print(json.dumps(results, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
