"""Run every example of README.md and docs/ again, and write what it prints below it: `make docs`.

Run it when the built-in model or the form of an output changes, and look at the difference before you commit it.
`tests/test_docs.py` compares the same.
"""

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from tests.conftest import ROOT
from tests.examples import BLOCK, PAGES, Example, desk, examples_of, run_examples, same

SHEET = ROOT / "docs" / "img" / "samples.png"


def main() -> int:
    """Rewrite the pages whose examples print something else now, and the picture that README's example draws."""
    with tempfile.TemporaryDirectory() as folder:
        desks = [desk(Path(folder, page.stem)) for page in PAGES]
        per_page = [examples_of(page, place) for page, place in zip(PAGES, desks, strict=True)]
        printed = iter(run_examples([example for page in per_page for example in page], Path(folder)))
        for page, examples in zip(PAGES, per_page, strict=True):
            outputs = iter([(example, next(printed)) for example in examples])
            before = page.read_text()
            after = BLOCK.sub(lambda match: _block(match.group(1), match.group(2), outputs), before)  # noqa: B023
            if not same(before, after):
                page.write_text(after)
                print(f"{page.relative_to(ROOT)} is new")
        SHEET.parent.mkdir(exist_ok=True)
        small_sheet(desks[0] / "sheet.png").save(SHEET, optimize=True)
    return 0


def small_sheet(file: Path) -> Image.Image:
    """The sheet as README shows it: 128 colours, which makes the file small."""
    with Image.open(file) as sheet:
        return sheet.convert("RGB").quantize(128, dither=Image.Dither.NONE)


def _block(language: str, code: str, outputs: Iterator[tuple[Example, str]]) -> str:
    """A block with its outputs as they are now."""
    if language == "python":
        _, printed = next(outputs)
        return f"```python\n{code}```\n" + (f"\n```text\n{printed.rstrip()}\n```\n" if printed.strip() else "")
    lines = []
    for _ in range(sum(line.startswith("$ ") for line in code.splitlines())):
        example, printed = next(outputs)
        lines += [f"$ {example.code}", *(line.rstrip() for line in printed.rstrip().splitlines())]
    return "```console\n" + "\n".join(lines) + "\n```\n"


if __name__ == "__main__":
    sys.exit(main())
