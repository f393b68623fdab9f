"""A name -> a path on this machine: the built-in model, a folder or file, or a repository of the Hugging Face hub."""

from collections.abc import Sequence
from pathlib import Path
from typing import Unpack, cast

from siglip.errors import CheckpointError, DownloadError, clip
from siglip.files import existing, settle
from siglip.keywords import HubOptions, accepted
from siglip.pretrained import StrPath
from siglip.releases import BUILT_IN, BUILT_IN_WRITER, RELEASES, check_model_name

CONFIG_FILES = ("config.json", "open_clip_config.json")
PREPARATION_FILES = (
    *CONFIG_FILES,
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer_config.json",
    "spiece.model",
    "tokenizer.json",
)
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "model-*.safetensors", "open_clip_model.safetensors")
# fetched only where there is none of the above, since many repositories hold the same weights twice
_OTHER_WEIGHTS = ("open_clip_pytorch_model.bin", "*.npz", "preprocessor_config.json", "processor_config.json")
MODEL_FILES = (*CONFIG_FILES, *_WEIGHTS)


def resolve(
    source: StrPath, *, files: Sequence[str] = PREPARATION_FILES + MODEL_FILES, **hub: Unpack[HubOptions]
) -> Path:
    """The folder or file that `source` means: "nano" or "nano-caption", a path that exists, or a hub name "owner/name".

    Of a hub repository only `files` are fetched, into the hub's own cache. A folder whose last save was interrupted is
    put in order. Raises CheckpointError for a source that is none of the three, DownloadError if the hub has no such
    repository or cannot be reached, NotYetSupported for the two NaFlex checkpoints.
    """
    hub = cast("HubOptions", accepted(hub, f"loading {source}"))
    name = str(source)
    if name in (BUILT_IN, BUILT_IN_WRITER):
        return Path(__file__).parents[1] / "assets" / name
    path = Path(source).expanduser()
    if name and existing(path):
        path = _model_of_run(path)
        settle(path if path.is_dir() else path.parent)
        return path
    check_model_name(name)
    for release in RELEASES:
        if release.name == name:
            # a NaFlex one says so before anything is downloaded
            _ = release.config
    folder = _download(name, files, hub)
    if set(_WEIGHTS) <= set(files) and not any(folder.glob("*model*.safetensors*")):
        folder = _download(name, [*files, *_OTHER_WEIGHTS], hub)
    return folder


def _model_of_run(path: Path) -> Path:
    """Of the folder of a training run its exported model; any other path as it is."""
    is_run = path.is_dir() and (path / "checkpoints").is_dir() and not (path / "model.safetensors").exists()
    if is_run and (path / "export").is_dir():
        return path / "export"
    if is_run or (path / "state.safetensors").exists():
        what = "the folder of a run that has not ended" if is_run else "a checkpoint of a run"
        raise CheckpointError(
            f"{path} is {what}, which is not a model yet; `siglip convert {path} DST --to huggingface` makes one"
        )
    return path


def _download(name: str, files: Sequence[str], hub: HubOptions) -> Path:
    # imported here: local folders need neither the library nor its start-up time
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=list(files), **hub))
    # the client also lets errors of its HTTP library through, which is not the same one in all of its versions
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DownloadError(
            f"{clip(repr(name))} is not a folder here and could not be fetched from the hub ({reason}). Check "
            f"the name, the "
            "revision and, for a private or gated model, the token. Without network: download it elsewhere, copy "
            "the folder to this machine and give its path; HF_HUB_OFFLINE=1 uses what the cache already holds"
        ) from error
