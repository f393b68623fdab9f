"""How close does `siglip serve` come to the Embedder called directly, with 1, 8 and 64 clients on this machine?

Each client sends one text a request over a connection of its own. Directly, all texts are embedded in one call (lone
ones: in as many calls). "large" is a text tower of the size of ViT-B with random weights, where computing counts more
than HTTP. Clients and service share the cores. Only times by the clock count: processor seconds are those of this
process, and the service is another one.
"""

import http.client
import json
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from benchmarks.harness import Row, arguments, compare, publish, race
from siglip import Embedder, SiglipConfig, SiglipModel, SiglipProcessor

GOALS = {1: 1 / 1.3, 64: 0.9}  # times of the direct call


def main(argv: list[str] | None = None) -> None:
    options = arguments(__doc__, argv)
    rows: list[Row] = []
    grown: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        counts = {"nano": 1000}
        if not options.quick:
            save_large(Path(folder))
            counts[folder] = 128
        for model, count in counts.items():
            count = 64 if options.quick else count
            embedder = Embedder.from_pretrained(model, device="cpu", dtype="float32", batch_size=32)
            texts = [f"text number {number}" for number in range(count)]
            name = "nano" if model == "nano" else "large"
            with service(model) as (port, process):
                before = resident_mb(process.pid)
                for clients in (1, 8, 64):
                    alone = clients == 1
                    direct = partial(one_by_one if alone else all_at_once, embedder, texts)
                    timings = race(
                        {"direct": direct, "served": partial(ask_all, port, texts, clients)},
                        rounds=options.rounds or (1 if options.quick else 5),
                    )
                    what = f"{name}, {count} texts, {clients} clients"
                    rows.append(
                        compare(what, timings, peer="direct", ours="served", goal=GOALS.get(clients), cpu=False)
                    )
                grown[f"{name}: resident MB before and after"] = f"{before} {resident_mb(process.pid)}"
    publish("How close is the service to the direct call?", rows, grown, quick=options.quick)


def save_large(folder: Path) -> None:
    """A checkpoint with the vocabulary of the built-in model and a text tower of the published base size."""
    config = SiglipConfig.from_pretrained("nano")
    text = replace(
        config.text_config, hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12,
        projection_size=config.vision_config.hidden_size,
    )  # fmt: skip
    SiglipModel(replace(config, text_config=text), generator=torch.Generator().manual_seed(0)).save_pretrained(folder)
    SiglipProcessor.from_pretrained("nano").save_pretrained(folder)


@contextmanager
def service(model: str) -> Generator[tuple[int, subprocess.Popen[str]]]:
    words = [sys.executable, "-m", "siglip", "serve", "--model", model, "--port", "0", "--device", "cpu"]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        found = re.search(r":(\d+)$", process.stderr.readline().strip())
        assert found is not None
        # the address is told first; weights are mapped files, and take memory as they are first computed with
        wait_until_ready(int(found[1]))
        try:
            yield int(found[1]), process
        finally:
            process.terminate()


def wait_until_ready(port: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    connection.request("GET", "/readyz")
    assert connection.getresponse().status == 200
    connection.close()


def ask_all(port: int, texts: list[str], clients: int) -> None:
    mine = threading.local()

    def ask(text: str) -> None:
        if not hasattr(mine, "connection"):
            mine.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        body = json.dumps({"input": text, "encoding_format": "base64"})
        mine.connection.request("POST", "/v1/embeddings", body, {"Content-Type": "application/json"})
        answer = mine.connection.getresponse()
        answer.read()
        assert answer.status == 200

    with ThreadPoolExecutor(clients) as threads:
        list(threads.map(ask, texts))


def one_by_one(embedder: Embedder, texts: list[str]) -> None:
    for text in texts:
        embedder.encode_texts([text])


def all_at_once(embedder: Embedder, texts: list[str]) -> None:
    embedder.embed_texts(texts)


def resident_mb(pid: int) -> int | None:
    status = Path(f"/proc/{pid}/status")
    found = re.search(r"VmRSS:\s+(\d+)", status.read_text()) if status.exists() else None
    return int(found[1]) // 1024 if found else None


if __name__ == "__main__":
    main()
