"""Names of the hub are fetched from a hub that runs on this machine; and what is said when none answers."""

import hashlib
import json
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch

from siglip import AutoModel, AutoProcessor, SiglipConfig, SiglipModel
from siglip.checkpoints import convert, resolve
from siglip.errors import CheckpointError, DownloadError, NotYetSupported

NAME = "someone/tiny"
PRIVATE = "someone/secret"


class Hub(ThreadingHTTPServer):
    """The part of the hub's interface that its client uses to list and fetch the files of a repository."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        # repository -> revision -> folder
        self.repositories: dict[str, dict[str, Path]] = {}
        self.fetched: list[str] = []
        self.requests = 0


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *_: Any) -> None:
        """Keep the test's output quiet."""

    def do_GET(self) -> None:
        self.server.requests += 1
        parts = self.path.partition("?")[0].strip("/").split("/")
        if parts[:2] == ["api", "models"] and len(parts) == 6:
            name, (action, revision) = "/".join(parts[2:4]), parts[4:]
            folder = self._folder(name, revision)
            if folder is not None and action == "revision":
                self._answer(json.dumps({"id": name, "sha": commit(name, folder), "siblings": []}).encode())
            elif folder is not None:
                files = [
                    {"type": "file", "path": file.name, "size": file.stat().st_size, "oid": digest(file.read_bytes())}
                    for file in folder.iterdir()
                ]
                self._answer(json.dumps(files).encode())
        elif len(parts) == 5 and parts[2] == "resolve":
            name, revision, file = "/".join(parts[:2]), parts[3], parts[4]
            folder = self._folder(name, revision)
            if folder is not None:
                self.server.fetched += [file] if self.command == "GET" else []
                data = (folder / file).read_bytes()
                self._answer(data, {"X-Repo-Commit": commit(name, folder), "ETag": f'"{digest(data)}"'})
        else:
            self._refuse(404, "EntryNotFound")

    do_HEAD = do_GET

    def _folder(self, name: str, revision: str) -> Path | None:
        folders = self.server.repositories.get(name)
        if folders is None or (name == PRIVATE and self.headers["Authorization"] != "Bearer open-sesame"):
            return self._refuse(401, "RepoNotFound")
        folders = folders | {commit(name, folder): folder for folder in folders.values()}
        return folders[revision] if revision in folders else self._refuse(404, "RevisionNotFound")

    def _refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _answer(self, data: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(200)
        for key, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)


def digest(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()


def commit(name: str, folder: Path) -> str:
    return digest(f"{name} {folder.name}".encode())


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    with Hub() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        address = f"http://127.0.0.1:{server.server_port}"
        for name, value in {
            "ENDPOINT": address,
            "HUGGINGFACE_CO_URL_TEMPLATE": address + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HUB_CACHE": str(tmp_path / "cache"),
        }.items():
            monkeypatch.setattr(huggingface_hub.constants, name, value)
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def repository(hub: Hub, folder: Path) -> Path:
    """A folder with what we read and what we do not."""
    AutoProcessor.from_pretrained("nano").save_pretrained(folder)
    for name in ("README.md", "pytorch_model.bin", "flax_model.msgpack", "open_clip_pytorch_model.bin", "run.py"):
        (folder / name).write_text("never read")
    hub.repositories[NAME] = {"main": folder}
    return folder


def test_a_model_is_fetched_by_its_name_and_nothing_else_of_its_repository(
    hub: Hub, repository: Path, tiny_model: SiglipModel
) -> None:
    model = AutoModel.from_pretrained(NAME)
    assert torch.equal(model.vision_model.head.probe, tiny_model.vision_model.head.probe)
    assert sorted(hub.fetched) == ["config.json", "model.safetensors"]


def test_a_processor_and_a_configuration_fetch_no_weights(hub: Hub, repository: Path) -> None:
    assert SiglipConfig.from_pretrained(NAME).text_config.vocab_size == 100
    assert hub.fetched == ["config.json"]
    assert AutoProcessor.from_pretrained(NAME).tokenizer.settings.context_length == 16
    expected = ["config.json", "preprocessor_config.json", "spiece.model", "tokenizer_config.json"]
    assert sorted(hub.fetched) == expected


def test_shards_are_fetched(hub: Hub, tiny_model: SiglipModel, tmp_path: Path) -> None:
    tiny_model.save_pretrained(tmp_path / "sharded", max_shard_bytes=60_000)
    hub.repositories[NAME] = {"main": tmp_path / "sharded"}
    assert torch.equal(AutoModel.from_pretrained(NAME).logit_bias, tiny_model.logit_bias)
    assert len(hub.fetched) > 4


@pytest.mark.parametrize("layout", ["big_vision", "open_clip"])
def test_other_layouts_are_fetched(hub: Hub, folder: Path, tmp_path: Path, layout: str) -> None:
    hub.repositories[NAME] = {"main": convert(folder, tmp_path / layout, layout)}
    assert SiglipConfig.from_pretrained(NAME) == SiglipConfig.from_pretrained(folder)
    assert AutoModel.from_pretrained(NAME).config == SiglipConfig.from_pretrained(folder)


def test_a_state_dict_is_fetched_only_where_there_is_nothing_better(hub: Hub, folder: Path, tmp_path: Path) -> None:
    source = convert(folder, tmp_path / "open_clip", "open_clip")
    shutil.copy(source / "open_clip_model.safetensors", source / "open_clip_pytorch_model.bin")
    hub.repositories[NAME] = {"main": source}
    AutoModel.from_pretrained(NAME)
    assert "open_clip_pytorch_model.bin" not in hub.fetched


def test_a_revision_is_another_state_of_the_repository(hub: Hub, repository: Path, tmp_path: Path) -> None:
    changed = SiglipModel.from_pretrained(repository)
    with torch.no_grad():
        changed.logit_bias.fill_(-1.5)
    changed.save_pretrained(tmp_path / "changed")
    hub.repositories[NAME]["v2"] = tmp_path / "changed"
    assert AutoModel.from_pretrained(NAME, revision="v2").logit_bias.item() == -1.5
    assert AutoModel.from_pretrained(NAME).logit_bias.item() == -10.0
    with pytest.raises(DownloadError, match="Check the name, the revision"):
        AutoModel.from_pretrained(NAME, revision="v3")


def test_a_private_model_needs_its_token(hub: Hub, repository: Path) -> None:
    hub.repositories[PRIVATE] = {"main": repository}
    with pytest.raises(DownloadError, match="the token"):
        AutoModel.from_pretrained(PRIVATE, token=False)
    assert AutoModel.from_pretrained(PRIVATE, token="open-sesame").config.text_config.vocab_size == 100


def test_what_was_fetched_once_loads_without_network(hub: Hub, repository: Path, tmp_path: Path) -> None:
    first = resolve(NAME, cache_dir=tmp_path / "mine")
    assert tmp_path / "mine" in first.parents
    requests = hub.requests
    assert resolve(NAME, cache_dir=tmp_path / "mine", local_files_only=True) == first
    assert AutoModel.from_pretrained(NAME, cache_dir=tmp_path / "mine", local_files_only=True).training is False
    assert hub.requests == requests


def test_a_repository_that_does_not_exist_is_an_error_that_names_it(hub: Hub) -> None:
    with pytest.raises(DownloadError, match="'someone/nothing' is not a folder here and could not be fetched"):
        AutoModel.from_pretrained("someone/nothing")


def test_without_network_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(DownloadError, match=r"copy the folder to this machine and give its path.*HF_HUB_OFFLINE=1"):
        AutoModel.from_pretrained("google/siglip-base-patch16-224", cache_dir=tmp_path)


def test_naflex_checkpoints_are_refused_before_anything_is_fetched(hub: Hub) -> None:
    with pytest.raises(NotYetSupported, match="NaFlex"):
        AutoModel.from_pretrained("google/siglip2-base-patch16-naflex")
    assert hub.requests == 0


@pytest.mark.parametrize("source", ["no/such/folder", "./missing", "a/model.npz", "", "../x", "resnet50"])
def test_what_is_neither_a_path_nor_a_name_is_an_error(source: str) -> None:
    with pytest.raises(CheckpointError, match=rf"no model '{source}': expected 'nano', a folder or file that exists"):
        resolve(source)


@pytest.mark.parametrize(
    ("source", "nearest"),
    [
        ("nanno", "nano"),
        ("Nano", "nano"),
        ("siglip-base-patch16-224", "google/siglip-base-patch16-224"),
        ("siglip-base-patch16-2224", "google/siglip-base-patch16-224"),
    ],
)
def test_a_misspelt_model_name_is_answered_with_the_nearest_that_would_load(source: str, nearest: str) -> None:
    with pytest.raises(CheckpointError) as error:
        AutoModel.from_pretrained(source)
    assert str(error.value).endswith(f"; did you mean {nearest!r}?")


def test_a_model_that_would_be_refused_is_not_suggested() -> None:
    with pytest.raises(CheckpointError, match=r"did you mean 'google/siglip2-so400m-patch16-\d+'\?$"):
        resolve("siglip2-so400m-patch16-naflx")


def test_a_path_of_this_machine_is_itself(folder: Path) -> None:
    assert resolve(folder) == folder
    assert resolve(str(folder / "model.safetensors")) == folder / "model.safetensors"
    assert (resolve("nano") / "MODEL_CARD.md").is_file()
