"""Configurations are checked when made, and every published checkpoint can be built."""

import dataclasses

import pytest
import torch
import transformers

from siglip.config import ImageSettings, SiglipConfig, SiglipTextConfig, SiglipVisionConfig, TextSettings
from siglip.config_paligemma import PaliGemmaConfig
from siglip.errors import ConfigError, NotYetSupported
from siglip.model import SiglipModel
from siglip.releases import RELEASES, Release, find_release


def test_all_27_published_checkpoints_are_listed_once() -> None:
    assert len({release.name for release in RELEASES}) == len(RELEASES) == 27
    assert sum(release.version == 1 for release in RELEASES) == 10
    assert sum(release.naflex for release in RELEASES) == 2


@pytest.mark.parametrize("release", [r for r in RELEASES if not r.naflex], ids=lambda release: release.name)
def test_a_published_checkpoint_has_its_published_number_of_parameters(release: Release) -> None:
    with torch.device("meta"):
        model = SiglipModel(release.config)
    millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    assert millions == pytest.approx(release.parameters_millions, abs=0.055)


@pytest.mark.parametrize("release", [r for r in RELEASES if r.naflex], ids=lambda release: release.name)
def test_naflex_checkpoints_say_not_yet_and_name_another(release: Release) -> None:
    with pytest.raises(NotYetSupported, match=r"NaFlex.*google/siglip2-"):
        _ = release.config


def test_so400m_patch14_384_sees_27_by_27_patches_and_so400m_224_reads_16_tokens() -> None:
    assert find_release("siglip-so400m-patch14-384").config.vision_config.num_patches == 729
    assert find_release("google/siglip-so400m-patch14-224").config.text_config.max_position_embeddings == 16


def test_only_the_gemma_vocabulary_is_merely_lower_cased() -> None:
    assert {release.version for release in RELEASES if release.clean == "lower"} == {2}
    assert all(release.clean == "lower" for release in RELEASES if release.version == 2)


def test_an_unknown_release_names_its_neighbours() -> None:
    with pytest.raises(ConfigError, match=r"did you mean .google/siglip-base-patch16-2"):
        find_release("siglip-base-patch16-225")


def test_a_configuration_survives_its_own_dictionary() -> None:
    config = find_release("google/siglip2-giant-opt-patch16-256").config.with_labels(["cat", "dog"])
    assert SiglipConfig.from_dict(config.to_dict()) == config


def test_from_dict_fills_what_is_missing_with_base_16_224() -> None:
    config = SiglipConfig.from_dict({"text_config": {"hidden_size": 48, "num_attention_heads": 4}})
    assert config.text_config == SiglipTextConfig(hidden_size=48, num_attention_heads=4)
    assert config.vision_config == SiglipVisionConfig()


def test_towers_that_do_not_meet_are_refused_with_the_remedy() -> None:
    text, vision = SiglipTextConfig(hidden_size=48, num_attention_heads=4), SiglipVisionConfig()
    with pytest.raises(ConfigError, match="projection_size=768"):
        SiglipConfig.from_text_vision_configs(text, vision)


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (SiglipTextConfig, {"hidden_size": 100, "num_attention_heads": 12}, "multiple of"),
        (SiglipTextConfig, {"num_hidden_layers": 0}, "at least 1, got 0"),
        (SiglipTextConfig, {"hidden_act": "relu"}, "gelu_pytorch_tanh"),
        (SiglipTextConfig, {"text_use_head": False, "projection_size": 5}, "without a head"),
        (SiglipVisionConfig, {"image_size": 8, "patch_size": 16}, "at most image_size"),
        (SiglipVisionConfig, {"attention_dropout": 1.0}, "at least 0 and below 1"),
        (SiglipConfig, {"id2label": {1: "a"}}, "0, 1, 2"),
        (ImageSettings, {"image_size": 0}, "got 0"),
        (ImageSettings, {"image_std": (0.5, 0.0, 0.5)}, "three numbers above 0"),
        (TextSettings, {"context_length": 1}, "at least 2, got 1"),
    ],
)
def test_what_cannot_be_built_is_refused_when_made(kind: type, values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        kind(**values)


def test_another_models_folder_is_refused() -> None:
    with pytest.raises(ConfigError, match="'clip'"):
        SiglipConfig.from_dict({"model_type": "clip"})
    with pytest.raises(NotYetSupported, match="NaFlex"):
        SiglipConfig.from_dict({"model_type": "siglip2"})


@pytest.mark.parametrize("templates", [(), ("a photo",), ("{}", "{ }")])
def test_templates_have_a_place_for_the_label(templates: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match=r"each with \{\} where the label goes"):
        TextSettings(templates=templates)


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (SiglipTextConfig, {"hiden_size": 3}, "SiglipTextConfig has no key 'hiden_size'; did you mean 'hidden_size'"),
        (SiglipVisionConfig, {"image_size": 30.0}, "image_size must be a whole number, got 30.0"),
        (SiglipVisionConfig, {"layer_norm_eps": float("inf")}, "layer_norm_eps must be a finite number, got inf"),
        (SiglipVisionConfig, {"vision_use_head": 1}, "vision_use_head must be true or false, got 1"),
        (SiglipConfig, {"text_config": {"hidden_size": 3}}, "must be a SiglipTextConfig, got .*from_dict reads"),
        (SiglipConfig, {"id2label": {0: 1}}, "id2label must be texts by number"),
        (SiglipConfig, {"problem_type": "both"}, "problem_type must be 'single_label_classification', "),
        (ImageSettings, {"image_mean": (0.5, 0.5)}, "image_mean must be three numbers"),
        (TextSettings, {"clean": "upper"}, "clean must be 'none', 'lower', "),
        (TextSettings, {"templates": "{}"}, "templates must be texts, got '{}'"),
    ],
)
def test_values_of_another_type_are_refused(kind: type, values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        kind(**values)


def test_a_misspelt_key_of_a_file_is_refused_and_foreign_ones_pass() -> None:
    for part in ("text_config", "vision_config"):
        with pytest.raises(ConfigError, match=f"{part} has no key 'hiden_size'; did you mean 'hidden_size'"):
            SiglipConfig.from_dict({part: {"hiden_size": 3}})
    for kind, model_type in ((SiglipConfig, "siglip"), (PaliGemmaConfig, "paligemma")):
        with pytest.raises(ConfigError, match=r"config\.json has no key 'vison_config'; did you mean 'vision_config'"):
            kind.from_dict({"model_type": model_type, "vison_config": {}})
    for part in ("text_config", "vision_config"):
        with pytest.raises(
            ConfigError, match=f"{part} has no key 'num_hiden_layers'; did you mean 'num_hidden_layers'"
        ):
            PaliGemmaConfig.from_dict({"model_type": "paligemma", part: {"num_hiden_layers": 3}})
    with pytest.raises(ConfigError, match=r"config\.json has no key 'hiden_size'; did you mean 'hidden_size'"):
        SiglipConfig.from_dict({"hiden_size": 3})
    with pytest.raises(ConfigError, match="hidden_size belongs to a tower; give it in text_config or vision_config"):
        SiglipConfig.from_dict({"hidden_size": 3})
    foreign = transformers.SiglipConfig(vision_config={"image_size": 64}).to_dict()
    assert SiglipConfig.from_dict(foreign).vision_config == SiglipVisionConfig(image_size=64)
    # what older files of transformers hold besides
    olds = {"bos_token_id": 2, "sep_token_id": None, "decoder_start_token_id": None, "_vocab_size": 257152}
    olds |= {"attention_bias": False, "hidden_activation": None, "forced_bos_token_id": None, "torch_dtype": "bfloat16"}
    assert SiglipConfig.from_dict({**foreign, **olds}) == SiglipConfig.from_dict(foreign)
    writer = transformers.PaliGemmaConfig().to_dict() | olds
    assert PaliGemmaConfig.from_dict(writer | {"text_config": writer["text_config"] | olds}).image_token_index == 256000


def test_a_configuration_says_how_to_change_it() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError, match=r"dataclasses.replace\(model.config, image_size=...\)"):
        SiglipVisionConfig().image_size = 3  # pyright: ignore[reportAttributeAccessIssue]
