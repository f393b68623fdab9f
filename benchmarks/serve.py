"""How close does `siglip serve` come to the Embedder called directly, with 1, 8 and 64 clients on this machine?

Each client sends one text a request over a connection of its own. Directly, all texts are embedded in one call, in its
best batches; lone ones each in a call of its own. "large" is a text tower of the size of ViT-B with random weights,
where computing counts more than HTTP. "plain" is a FastAPI route around transformers' SiglipModel of the same weights
that computes each request alone. Clients and services share the cores. The column cpu compares processor time: that of
a service is its process's, without the clients'. It says what a request costs where the cores are busy otherwise.
--infinity PROGRAM measures infinity-emb beside with the built-in model (its transformers builds no "large"), and
--requests N sends so many lone texts, and a picture after each ninth, and tells the memory.
"""

import base64
import http.client
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.harness import Row, Timing, Timings, compare, parser_of, publish, race, timed
from siglip import Embedder, SiglipConfig, SiglipModel, SiglipProcessor

SAMPLES = Path(__file__).parents[1] / "samples"
GOALS = {"direct": 0.9, "plain": 2.0}  # of the peer's time, with 64 clients
LONE_GOAL = 1 / 1.3
PLAIN = """
import socket, sys

import torch, uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from transformers import SiglipModel

from siglip import SiglipProcessor

model = SiglipModel.from_pretrained(sys.argv[1]).eval()
tokenizer = SiglipProcessor.from_pretrained(sys.argv[1]).tokenizer
app = FastAPI()


class Asked(BaseModel):
    input: str
    encoding_format: str


@app.get("/readyz")
def readyz() -> bool:
    return True


@app.post("/v1/embeddings")
def embeddings(asked: Asked) -> dict:
    with torch.inference_mode():
        found = model.get_text_features(**tokenizer([asked.input], return_tensors="pt"))
    found = getattr(found, "pooler_output", found)
    vector = torch.nn.functional.normalize(found, dim=-1)[0].tolist()
    return {"data": [{"index": 0, "embedding": vector}]}


listening = socket.create_server(("127.0.0.1", int(sys.argv[2])), backlog=512)
listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
uvicorn.Server(uvicorn.Config(app, log_level="error", access_log=False)).run([listening])
"""


def main(argv: list[str] | None = None) -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--infinity", metavar="PROGRAM", help="an installed infinity_emb")
    parser.add_argument("--requests", type=int, metavar="N", help="only send N requests and tell the memory")
    options = parser.parse_args(argv)
    rows: list[Row] = []
    facts: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        models = {"nano": saved_nano(Path(folder) / "nano")}
        if options.requests:
            with started(ours(models["nano"])) as (port, pid):
                facts["resident MB"] = memory_over(port, pid, options.requests)
            models = {}
        elif not options.quick:
            models["large"] = saved_large(Path(folder) / "large")
        for name, model in models.items():
            texts = [
                f"text number {number}" for number in range(64 if options.quick else 1000 if name == "nano" else 128)
            ]
            rounds = options.rounds or (1 if options.quick else 5)
            found, told = measured(
                name, model, texts, rounds=rounds, infinity=options.infinity if name == "nano" else None
            )
            rows += found
            facts |= {f"{name}: {what}": fact for what, fact in told.items()}
    publish("How close is the service to the direct call?", rows, facts, quick=options.quick)


def measured(
    name: str, model: Path, texts: list[str], *, rounds: int, infinity: str | None
) -> tuple[list[Row], dict[str, Any]]:
    """The rows of one model, and what else is to be told of it."""
    embedder = Embedder.from_pretrained(model, device="cpu", dtype="float32", batch_size=32)
    commands = {"served": ours(model), "plain": [sys.executable, "-c", PLAIN, str(model)]}
    if infinity is not None:
        words = ["v2", "--model-id", str(model), "--engine", "torch", "--device", "cpu", "--dtype", "float32"]
        words += ["--url-prefix", "/v1", "--no-bettertransformer", "--no-model-warmup", "--port"]
        commands["infinity"] = [infinity, *words]
    rows: list[Row] = []
    with ExitStack() as stack:
        running = {service: stack.enter_context(started(words)) for service, words in commands.items()}
        port, pid = running["served"]
        before = resident_mb(pid)
        clocks = {service: partial(processor_s, found[1]) for service, found in running.items()}
        timings = lone_texts(embedder, texts, port, pid)
        rows.append(compare(f"{name}, a lone text", timings, peer="direct", ours="served", goal=LONE_GOAL))
        lone = {f"{way} {what}": value for way, of_it in timings.items() for what, value in summary(of_it).items()}
        for clients in (1, 8, 64):
            direct = partial(one_by_one if clients == 1 else all_at_once, embedder, texts)
            contestants = {service: partial(ask_all, found[0], texts, clients) for service, found in running.items()}
            timings = race({"direct": direct, **contestants}, rounds=rounds, processor_s=clocks)
            for peer in timings:
                if peer != "served":
                    goal = GOALS.get(peer) if clients == 64 else None
                    what = f"{name}, {clients} clients, {peer}"
                    rows.append(compare(what, timings, peer=peer, ours="served", goal=goal))
        facts = {"lone text, ms": lone, "resident MB before and after": f"{before} {resident_mb(pid)}"}
    return rows, facts


def lone_texts(embedder: Embedder, texts: list[str], port: int, pid: int) -> Timings:
    """The direct call and a request, in turns."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    timings: Timings = {"direct": [], "served": []}
    for text in texts:
        timings["direct"].append(timed(partial(embedder.encode_texts, [text]), time.process_time))
        timings["served"].append(timed(partial(ask, connection, text), partial(processor_s, pid)))
    connection.close()
    return timings


def summary(timings: list[Timing]) -> dict[str, float]:
    """Median and 99th percentile by the clock, and the mean of processor time, in milliseconds."""
    seconds = sorted(timing.wall_s for timing in timings)
    cpu_s = sum(timing.cpu_s for timing in timings) / len(timings)
    found = {"median": seconds[len(seconds) // 2], "99th": seconds[len(seconds) * 99 // 100], "processor": cpu_s}
    return {what: round(1000 * value, 2) for what, value in found.items()}


def memory_over(port: int, pid: int, count: int) -> dict[str, int | None]:
    """Resident memory of the service at the start and after each tenth of the requests."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    picture = base64.b64encode((SAMPLES / "cat.jpg").read_bytes()).decode()
    found = {"start": resident_mb(pid)}
    for number in range(1, count + 1):
        ask(connection, f"text number {number}" if number % 10 else {"image": f"data:image/jpeg;base64,{picture}"})
        if number % max(1, count // 10) == 0:
            found[f"after {number}"] = resident_mb(pid)
    connection.close()
    return found


def saved_nano(folder: Path) -> Path:
    """The built-in model where other programs can read it."""
    SiglipModel.from_pretrained("nano").save_pretrained(folder)
    return saved_processor(folder)


def saved_large(folder: Path) -> Path:
    """A checkpoint with the vocabulary of the built-in model and a text tower of the published base size."""
    config = SiglipConfig.from_pretrained("nano")
    text = replace(
        config.text_config, hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12,
        projection_size=config.vision_config.hidden_size,
    )  # fmt: skip
    SiglipModel(replace(config, text_config=text), generator=torch.Generator().manual_seed(0)).save_pretrained(folder)
    return saved_processor(folder)


def saved_processor(folder: Path) -> Path:
    SiglipProcessor.from_pretrained("nano").save_pretrained(folder)
    # versions of transformers before 5, which infinity-emb needs, take this list for a table
    file = folder / "tokenizer_config.json"
    settings = json.loads(file.read_text())
    settings.pop("extra_special_tokens", None)
    file.write_text(json.dumps(settings))
    return folder


def ours(model: Path) -> list[str]:
    words = ["serve", "--model", str(model), "--captioner", "none", "--device", "cpu", "--dtype", "float32", "--port"]
    return [sys.executable, "-m", "siglip", *words]


@contextmanager
def started(words: list[str]) -> Generator[tuple[int, int]]:
    """A service that runs and has answered once: its port, which is the last of its words, and its process."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    # nobody's usage is reported, and nothing is looked for on the hub
    quiet = {**os.environ, "HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1"}
    nowhere = subprocess.DEVNULL
    with subprocess.Popen([*words, str(port)], env=quiet, stdout=nowhere, stderr=nowhere) as process:
        try:
            # weights are mapped files, and take memory as they are first computed with
            wait_until_it_answers(port, process)
            yield port, process.pid
        finally:
            process.terminate()


def wait_until_it_answers(port: int, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 300
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
        try:
            return ask(connection, "is it there?")
        except ConnectionRefusedError:
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"this program does not answer, run it to see why: {process.args}") from None
            time.sleep(0.2)
        finally:
            connection.close()


def ask(connection: http.client.HTTPConnection, item: str | dict[str, str]) -> None:
    body = json.dumps({"input": item, "encoding_format": "base64"})
    connection.request("POST", "/v1/embeddings", body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    said = answer.read()
    assert answer.status == 200, said


def ask_all(port: int, texts: list[str], clients: int) -> None:
    mine = threading.local()

    def one(text: str) -> None:
        if not hasattr(mine, "connection"):
            mine.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        ask(mine.connection, text)

    with ThreadPoolExecutor(clients) as threads:
        list(threads.map(one, texts))


def one_by_one(embedder: Embedder, texts: list[str]) -> None:
    for text in texts:
        embedder.encode_texts([text])


def all_at_once(embedder: Embedder, texts: list[str]) -> None:
    embedder.embed_texts(texts)


def processor_s(pid: int) -> float:
    """Of all threads of a process so far, the ended ones too, to the nanosecond."""
    return time.clock_gettime(~pid << 3 | 2)  # the number of another process's clock in Linux (clock_getcpuclockid)


def resident_mb(pid: int) -> int | None:
    status = Path(f"/proc/{pid}/status")
    found = re.search(r"VmRSS:\s+(\d+)", status.read_text()) if status.exists() else None
    return int(found[1]) // 1024 if found else None


if __name__ == "__main__":
    main()
