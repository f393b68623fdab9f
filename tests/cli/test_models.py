import json
from pathlib import Path

import pytest

from siglip import PaliGemmaForConditionalGeneration, SiglipModel
from siglip.cli.main import main
from siglip.releases import PALIGEMMA_RELEASES, RELEASES
from tests.captioners import captioner
from tests.conftest import ROOT


def test_the_table_holds_the_built_in_models_and_every_release(capsys: pytest.CaptureFixture[str]):
    assert main(["models"]) == 0
    heading, *rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert heading == ["model", "size", "px", "patch", "ctx", "dim", "top1"]
    assert [row[0] for row in rows] == [
        "nano",
        "nano-caption",
        *(release.name for release in (*RELEASES, *PALIGEMMA_RELEASES)),
    ]
    assert ["google/siglip-so400m-patch14-224", "877.4", "224", "14", "16", "1152", "82.2"] in rows
    assert ["google/siglip2-giant-opt-patch16-384", "1872", "384", "16", "64", "1536", "85.0"] in rows
    assert ["google/paligemma2-10b-pt-448", "9663", "448", "14", "8192", "-", "-"] in rows
    assert ["google/siglip2-base-patch16-naflex", "375.2", "-", "16", "64", "768", "78.5"] in rows


def test_the_built_in_models_are_described_from_their_own_files(capsys: pytest.CaptureFixture[str]):
    assert main(["models", "--json"]) == 0
    nano, writer = json.loads(capsys.readouterr().out)["models"][:2]
    captioner = PaliGemmaForConditionalGeneration.from_pretrained("nano-caption")
    assert writer["parameters_millions"] == pytest.approx(captioner.num_parameters() / 1e6, abs=0.005)
    assert writer["context_length"] == captioner.config.text_config.max_position_embeddings
    model = SiglipModel.from_pretrained("nano")
    parameters = sum(parameter.numel() for parameter in model.parameters())
    assert nano["parameters_millions"] == pytest.approx(parameters / 1e6, abs=0.005)
    assert nano["image_size"] == model.config.vision_config.image_size
    assert nano["embedding_size"] == model.config.text_config.embedding_size


def test_info_tells_temperature_bias_and_preparation_of_a_model(capsys: pytest.CaptureFixture[str]):
    assert main(["info", "nano", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    model = SiglipModel.from_pretrained("nano")
    assert facts["on_this_machine"] is True
    assert facts["temperature_t"] == pytest.approx(model.logit_scale.exp().item(), rel=1e-6)
    assert facts["bias_b"] == pytest.approx(model.logit_bias.item(), rel=1e-6)
    stored = json.loads((ROOT / "siglip" / "assets" / "nano" / "tokenizer_config.json").read_text())
    assert facts["texts"] == {"context_length": 16, "clean": "canonicalize-hf", "templates": stored["templates"]}
    assert facts["pictures"]["image_size"] == facts["vision_config"]["image_size"]
    assert facts["parameters"] == sum(parameter.numel() for parameter in model.parameters())


def test_info_knows_a_model_that_writes(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    model, _ = captioner()
    model.save_pretrained(tmp_path)
    assert main(["info", str(tmp_path), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    assert (facts["patches"], facts["text_config"]["hidden_size"]) == (36, 16)


@pytest.mark.parametrize("name", ["google/siglip2-base-patch16-256", "google/siglip2-so400m-patch16-naflex"])
def test_info_of_a_release_that_is_not_here_uses_no_network(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert main(["info", name, "--jsonl"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["on_this_machine"] is False
    assert (facts["model"], facts["vocab_size"]) == (name, 256000)
    assert facts["supported"] is ("naflex" not in name)


def test_info_of_an_unknown_hub_name_is_an_error_in_one_line(capsys: pytest.CaptureFixture[str]):
    assert main(["info", "nobody/nothing"]) == 1
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith("siglip: error: 'nobody/nothing' ")


def test_convert_writes_each_format_with_the_same_numbers(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.chdir(tmp_path)

    def fingerprint(model: str) -> str:
        assert main(["info", model, "--json"]) == 0
        return json.loads(capsys.readouterr().out)["fingerprint"]

    before = fingerprint("nano")
    source = "nano"
    for form in ("open_clip", "big_vision", "huggingface"):
        assert main(["convert", source, form, "--to", form, "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == {"written": form, "format": form}
        source = f"./{form}"
    assert fingerprint(source) == before
