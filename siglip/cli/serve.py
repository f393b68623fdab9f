"""Answer other programs over HTTP, in the shape of the OpenAI API.

Routes: embeddings, classify, score, rerank, explain, caption, ask, models,
health, metrics, schema; with a LIBRARY, which `siglip index` made with the same
model, also search, thumbnails and duplicates, and a page to look through it.

Only this machine is answered unless --host says otherwise; then every request
needs a key of --api-key-file, or --no-auth must be given. docs/serving.md shows
the routes. SIGTERM and Ctrl-C finish what was taken on; a second one ends at
once.

for example:
  siglip serve
  siglip serve --model google/siglip2-base-patch16-256 --port 8000
  siglip serve --host 0.0.0.0 --api-key-file keys.txt --name example.org
"""

import argparse
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from siglip.cli import inputs, output
from siglip.errors import InputError, clip
from siglip.files import existing
from siglip.releases import BUILT_IN, BUILT_IN_WRITER, check_model_name

if TYPE_CHECKING:
    from siglip.captioner import Captioner
    from siglip.embedder import Embedder
    from siglip.search import Library


def configure(parser: argparse.ArgumentParser) -> None:
    parser.usage = "siglip serve [LIBRARY] [--host HOST] [--port PORT] [options]"
    parser.add_argument("library", nargs="?", metavar="LIBRARY", help="the folder of a library, to be searched")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen at (default: 127.0.0.1)")
    parser.add_argument("--port", type=_port, default=8000, help="0 takes a free one (default: 8000)")
    parser.add_argument("--api-key-file", type=Path, metavar="FILE", help="who may ask: keys, one a line")
    parser.add_argument("--no-auth", action="store_true", help="let everybody ask who reaches the address")
    parser.add_argument(
        "--allow-remote", action="store_true", help="fetch pictures that clients name by public http(s) addresses"
    )
    parser.add_argument(
        "--name",
        action="append",
        default=[],
        help="a host name the service is reached by, beside localhost; repeatable",
    )
    parser.add_argument(
        "--decoders", type=inputs.positive, default=2, metavar="N", help="processes that decode pictures (default: 2)"
    )
    parser.add_argument(
        "--captioner",
        metavar="MODEL",
        help=f"the model that writes captions and answers, a PaliGemma, or none (default: {BUILT_IN_WRITER} beside "
        f"{BUILT_IN}, none beside other models)",
    )
    # in lower precision a vector would depend a little on what else is asked at the same time
    inputs.add_model_arguments(parser, dtype="float32")


def run(arguments: argparse.Namespace) -> int:
    for library in ("fastapi", "uvicorn", "prometheus_client", "python_multipart"):
        if importlib.util.find_spec(library) is None:
            raise InputError(f"siglip serve needs {library.replace('_', '-')}; pip install 'siglip[serve]'")
    from siglip.server.safety import is_loopback, read_keys

    if arguments.api_key_file is not None and arguments.no_auth:
        raise inputs.UsageError("--api-key-file and --no-auth exclude each other")
    keys = read_keys(arguments.api_key_file) if arguments.api_key_file is not None else ()
    if not keys and not arguments.no_auth and not is_loopback(arguments.host):
        raise inputs.UsageError(
            f"--host {arguments.host} can be reached from other machines; give --api-key-file, or --no-auth to let "
            "everybody ask"
        )
    embedder = inputs.load_embedder(arguments)
    writer = arguments.captioner or (BUILT_IN_WRITER if arguments.model == BUILT_IN else "none")
    captioner = None if writer == "none" else (_captioner(writer, arguments), _public(writer))
    from siglip.server.app import Service
    from siglip.server.engine import Limits
    from siglip.server.fetching import Fetcher
    from siglip.server.run import serve

    library = None if arguments.library is None else _library(arguments.library, embedder)
    service = Service(
        embedder,
        _public(arguments.model),
        keys=keys,
        names=arguments.name,
        library=library,
        captioner=captioner,
        fetcher=Fetcher() if arguments.allow_remote else None,
        limits=Limits(decoders=arguments.decoders),
    )
    serve(service, host=arguments.host, port=arguments.port, told=lambda address: output.say(f"listening at {address}"))
    return 0


def _library(folder: str, embedder: "Embedder") -> "Library":
    from siglip.search import Library

    library = Library.open(folder, model=embedder)
    if not (library.folder / "catalogue.db").exists():
        raise InputError(f"{folder} is not a library yet; make one with: siglip index FOLDER --library {folder}")
    space = library.catalogue.active_space()
    if space is None:
        output.say(f"{folder} is being made, or is empty; it is searched as soon as `siglip index` is done")
    elif space.fingerprint != embedder.fingerprint:
        raise InputError(f"{folder} was indexed with the model {space.model}; give it with --model")
    return library


def _captioner(name: str, arguments: argparse.Namespace) -> "Captioner":
    check_model_name(name)
    from siglip.captioner import Captioner

    # a picture takes the memory of hundreds of tokens here
    few = min(8, arguments.batch_size)
    return Captioner.from_pretrained(name, device=arguments.device, dtype=arguments.dtype, batch_size=few)


def _public(name: str) -> str:
    """What clients call a model: of a folder or file its last name, since where it lies is not their business."""
    return Path(name).absolute().name if existing(name) else name


def _port(word: str) -> int:
    if not word.isascii() or not word.isdigit() or int(word) > 65535:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 65535, got {clip(repr(word))}")
    return int(word)
