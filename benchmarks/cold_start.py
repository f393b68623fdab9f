"""How long until a new process has classified one picture, against the script of transformers' documentation?

`siglip classify PICTURE --labels ...` with the built-in model, from start to exit, against a script that opens the same
weights (as float32) with AutoModel and AutoProcessor. That script and not the peer's pipeline, because the pipeline
pads texts to 64 tokens and so cannot run a checkpoint that reads fewer. The files are in the page cache on both sides.
"""

import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from benchmarks.harness import arguments, compare, publish, race
from siglip import SiglipModel, SiglipProcessor

PICTURE = Path(__file__).resolve().parent.parent / "samples" / "cat.jpg"
LABELS = ["a cat", "a dog", "a bicycle"]

PEER = """
import sys
import torch
from PIL import Image
from transformers import AutoModel, AutoProcessor

folder, picture, *labels = sys.argv[1:]
model = AutoModel.from_pretrained(folder)
processor = AutoProcessor.from_pretrained(folder)
texts = [f"This is a photo of {label}." for label in labels]
inputs = processor(text=texts, images=Image.open(picture), padding="max_length", return_tensors="pt")
with torch.no_grad():
    outputs = model(**inputs)
for label, chance in zip(labels, torch.sigmoid(outputs.logits_per_image)[0].tolist()):
    print(label, chance, sep="\\t")
"""


def main(argv: list[str] | None = None) -> None:
    options = arguments(__doc__, argv)
    with tempfile.TemporaryDirectory() as folder:
        SiglipModel.from_pretrained("nano").save_pretrained(folder)
        SiglipProcessor.from_pretrained("nano").save_pretrained(folder)
        python = [sys.executable, "-W", "ignore"]
        commands = {
            "peer": [*python, "-c", PEER, folder, str(PICTURE), *LABELS],
            "ours": [*python, "-m", "siglip", "classify", str(PICTURE), "--labels", *LABELS],
            "import torch": [*python, "-c", "import torch"],
        }
        said: dict[str, str] = {}
        timings = race(
            {name: lambda name=name: said.update({name: run(commands[name])}) for name in commands},
            rounds=options.rounds or (1 if options.quick else 9),
            warm_up=not options.quick,
        )
    row = compare("one picture (0.6x the time: 1.67)", timings, peer="peer", ours="ours", goal=1 / 0.6)
    facts = {
        "ours / peer": round(1 / row.ratio, 3),
        "import torch alone, s": round(median(turn.wall_s for turn in timings["import torch"]), 3),
        **{f"{name} says": said[name] for name in ("peer", "ours")},
    }
    publish("Cold start of one classification", [row], facts, quick=options.quick)


def run(command: list[str]) -> str:
    """What a command prints; raises CalledProcessError with what it says on stderr if it fails."""
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


if __name__ == "__main__":
    main()
