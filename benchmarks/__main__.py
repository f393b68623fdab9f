"""All benchmarks, each in a process of its own: `python -m benchmarks [--quick]`. JSON on stdout is one list."""

import json
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
NO_QUESTION = ("__main__", "harness")


def main() -> int:
    results = []
    for script in sorted(HERE.glob("*.py")):
        if script.stem not in NO_QUESTION:
            command = [sys.executable, "-m", f"benchmarks.{script.stem}", *sys.argv[1:]]
            done = subprocess.run(command, cwd=HERE.parent, check=True, stdout=subprocess.PIPE, text=True)
            results.append(json.loads(done.stdout))
    print(json.dumps(results, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
