"""A model and its preparation -> one short name for the numbers they give."""

import hashlib
import json
import re
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from typing import Any, Unpack

import torch

from siglip import __version__
from siglip.checkpoints.hub import resolve
from siglip.config import SiglipTextConfig
from siglip.files import cache_folder, write_text
from siglip.keywords import HubOptions
from siglip.model import kind_of
from siglip.pretrained import PretrainedModel, StrPath
from siglip.processing import PaliGemmaProcessor, SiglipImageProcessor, SiglipProcessor

AnyProcessor = SiglipProcessor | PaliGemmaProcessor | SiglipImageProcessor


def fingerprint(model: PretrainedModel, processor: AnyProcessor | None = None) -> str:
    """Hexadecimal SHA-256 over weights, configuration and preparation.

    Equal for equal numbers, whatever layout and dtype they are stored in; a model rounded to half precision is another
    one. With a `processor` the settings of pictures and texts and the bytes of the vocabulary count too.
    """
    module: Any = model
    digest = hashlib.sha256(_text([kind_of(model).name, _config(module)]))
    for name, tensor in sorted(module.state_dict().items()):
        wide = torch.float64 if tensor.dtype == torch.float64 else torch.float32
        digest.update(_text([name, list(tensor.shape), str(wide)]))
        digest.update(tensor.detach().to("cpu", wide).contiguous().numpy())
    if isinstance(processor, SiglipImageProcessor):
        digest.update(_text(asdict(processor.settings)))
    elif processor is not None:
        texts = asdict(processor.tokenizer.settings)
        del texts["templates"]  # which texts are encoded, not how
        digest.update(_text([asdict(processor.image_processor.settings), texts]))
        digest.update(processor.tokenizer.vocab_file.read_bytes())
    return digest.hexdigest()


# weights below this are hashed in less than a tenth of a second
_REMEMBERED_BYTES = 2**26


def files_key(source: StrPath, **hub: Unpack[HubOptions]) -> str | None:
    """A name for the state of a checkpoint's files, by their names, sizes and times of change.

    None where a fingerprint should not be remembered: small files are read as fast, and files changed in the last
    seconds might change again within the same tick of the clock.
    """
    path = resolve(source, **{**hub, "local_files_only": True})
    folder = path if path.is_dir() else path.parent
    states = sorted((file.name, file.stat()) for file in folder.iterdir() if file.is_file())
    newest_s = max(state.st_mtime for _, state in states)
    if sum(state.st_size for _, state in states) < _REMEMBERED_BYTES or time.time() - newest_s < 5:
        return None
    facts = [(name, state.st_size, state.st_mtime_ns) for name, state in states]
    return hashlib.sha256(_text([__version__, str(path.resolve()), *facts])).hexdigest()


def remembered_fingerprint(key: str, compute: Callable[[], str]) -> str:
    """What `compute` said when the files had this key, from the cache folder; computed and kept if it is not there.

    The fingerprint itself is kept, so it is that of every device and dtype.
    """
    note = cache_folder("fingerprints") / key
    with suppress(OSError, UnicodeDecodeError):
        if re.fullmatch("[0-9a-f]{64}", known := note.read_text(encoding="ascii")):
            return known
    found = compute()
    with suppress(OSError):  # a cache folder that cannot be written costs the time only
        write_text(note, found)
    return found


def _config(model: Any) -> list[Any]:
    """What of the configuration has a say in the numbers."""
    kind = kind_of(model)
    config = kind.whole_config(model.config)
    if kind.writes_text:
        return [config.to_dict()]
    said: list[Any] = []
    for tower in kind.towers:
        tower_config = getattr(config, f"{tower}_config")
        values = asdict(tower_config)
        del values["attention_dropout"]
        if isinstance(tower_config, SiglipTextConfig):
            values["projection_size"] = tower_config.embedding_size
        said.append(values)
    return [*said, list(config.id2label.values())] if kind.has_classes else said


def _text(values: object) -> bytes:
    return json.dumps(values, sort_keys=True).encode()
