"""The files that say how a checkpoint prepares pictures and texts; they lie beside the weights of every layout.

`preprocessor_config.json` (or `processor_config.json`, which nests it), `tokenizer_config.json`, and the vocabulary:
`spiece.model` or `tokenizer.json`. Our own keys in `tokenizer_config.json`: "clean" names the cleaning of text,
"templates" lists the sentences that labels are put into.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from siglip.checkpoints.huggingface import read_json, write_json
from siglip.config import Clean, ImageSettings, Resample
from siglip.errors import CheckpointError, NotYetSupported, SiglipError, clip
from siglip.processing import SiglipTokenizer

IMAGE, NESTED, TEXT = "preprocessor_config.json", "processor_config.json", "tokenizer_config.json"
ADDED = "added_tokens.json"
VOCABULARIES = ("spiece.model", "tokenizer.json")

# PIL's numbers for its filters
_FILTERS: dict[Any, Resample] = {2: "bilinear", 3: "bicubic"}
_MUST_BE = {"do_resize": True, "do_rescale": True, "do_center_crop": False, "do_pad": False}
_SENTENCEPIECE = {
    "tokenizer_class": "SiglipTokenizer",
    "eos_token": "</s>",
    "pad_token": "</s>",
    "unk_token": "<unk>",
}
_GEMMA = {
    "tokenizer_class": "GemmaTokenizer",
    "add_bos_token": False,
    "add_eos_token": True,
    "bos_token": "<bos>",
    "eos_token": "<eos>",
    "pad_token": "<pad>",
    "unk_token": "<unk>",
}


def read_image_settings(folder: Path) -> ImageSettings | None:
    """The settings stored in a folder, None if there are none; raises CheckpointError for what SigLIP never does."""
    values = read_json(folder / NESTED).get("image_processor") if (folder / NESTED).is_file() else None
    if not isinstance(values, dict):
        if not (folder / IMAGE).is_file():
            return None
        values = read_json(folder / IMAGE)
    try:
        return _image_settings(folder, values)
    except SiglipError:
        raise
    except (AttributeError, TypeError, ValueError) as error:
        raise CheckpointError(f"{folder}: the image processor's file is broken ({error}); get it again") from error


def stored_image_size(folder: Path) -> int | None:
    """The image size in pixels that the files of a folder say, None if they say none."""
    settings = read_image_settings(folder)
    return None if settings is None else settings.image_size


def write_image_settings(folder: Path, settings: ImageSettings) -> None:
    """Write the file that `read_image_settings` and transformers read."""
    values = {
        "image_processor_type": "SiglipImageProcessor",
        "processor_class": "SiglipProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"height": settings.image_size, "width": settings.image_size},
        "resample": next(number for number, name in _FILTERS.items() if name == settings.resample),
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": settings.image_mean,
        "image_std": settings.image_std,
    }
    write_json(folder / IMAGE, values)


def mark_paligemma(folder: Path, num_patches: int) -> None:
    """Say in the image processor's file that it is one of PaliGemma, which transformers wants to know."""
    values = read_json(folder / IMAGE) | {"processor_class": "PaliGemmaProcessor", "image_seq_length": num_patches}
    write_json(folder / IMAGE, values)


def read_tokenizer(folder: Path, context_length: int | None, *, may_have_more: bool = False) -> SiglipTokenizer:
    """The tokenizer of a folder; `context_length` is what the model reads, None to believe the folder's files.

    Raises CheckpointError if there is no vocabulary, one whose cleaning we do not have, or, unless it `may_have_more`,
    one that tokens were added to: PaliGemma's holds places and pictures, which are never read from a text.
    """
    vocabulary = next((folder / name for name in VOCABULARIES if (folder / name).is_file()), None)
    if vocabulary is None:
        raise CheckpointError(
            f"{folder} has no {' or '.join(VOCABULARIES)}; "
            "copy it there from the Hugging Face checkpoint of the same name"
        )
    tokenizer = SiglipTokenizer(vocabulary)
    values = read_json(folder / TEXT) if (folder / TEXT).is_file() else {}
    unread = tokenizer.unread_tokens or _tokens_beyond(folder, values, tokenizer)
    if unread and not may_have_more:
        raise CheckpointError(
            f"{folder}: {len(unread)} tokens were added to the vocabulary, such as {clip(repr(unread[0]))}, which are "
            "not read here: ids would differ from those it was trained with; use transformers for it, or a vocabulary "
            "without them"
        )
    if values.get("do_lower_case") is False and "clean" not in values and tokenizer.pad_token_id != 0:
        raise CheckpointError(
            f'{folder / TEXT}: "do_lower_case": false drops punctuation and keeps capitals, which no published SigLIP '
            'was trained with; add "clean": "none" (text as it is), "lower" or "canonicalize-hf"'
        )
    clean = values.get("clean", tokenizer.settings.clean)
    if clean not in get_args(Clean):
        raise CheckpointError(
            f'{folder / TEXT}: "clean" is {clip(repr(clean))}, expected one of {", ".join(get_args(Clean))}'
        )
    if context_length is None and values.get("model_max_length", 0) in range(2, 100_000):
        context_length = values["model_max_length"]
    length = context_length or tokenizer.settings.context_length
    texts: Any = values.get("templates", list(tokenizer.settings.templates))
    if not (isinstance(texts, list) and texts and all(isinstance(text, str) and "{}" in text for text in texts)):
        raise CheckpointError(
            f'{folder / TEXT}: "templates" is {texts!r:.80}, expected a list of texts, each with {{}} where the label '
            "goes"
        )
    tokenizer.settings = replace(tokenizer.settings, clean=clean, context_length=length, templates=tuple(texts))
    return tokenizer


def _tokens_beyond(folder: Path, values: dict[str, Any], tokenizer: SiglipTokenizer) -> list[str]:
    """The tokens that files beside a vocabulary add to it, or put in the place of its own."""
    ids: dict[str, Any] = read_json(folder / ADDED) if (folder / ADDED).is_file() else {}
    listed = values.get("added_tokens_decoder") or {}
    try:
        ids |= {str(token.get("content")): int(index) for index, token in listed.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise CheckpointError(
            f'{folder / TEXT}: "added_tokens_decoder" is broken ({error}), expected tokens by id; get it again'
        ) from error
    moved = [token for token, index in ids.items() if isinstance(index, int) and tokenizer.piece_to_id(token) != index]
    more = values.get("additional_special_tokens") or [], values.get("extra_special_tokens") or []
    named = [values.get(f"{name}_token") for name in ("bos", "eos", "pad", "unk")]
    for tokens in more:
        named += tokens.values() if isinstance(tokens, dict) else tokens
    contents = [token.get("content") if isinstance(token, dict) else token for token in named]
    unknown = [token for token in contents if isinstance(token, str) and tokenizer.piece_to_id(token) is None]
    return list(dict.fromkeys(moved + unknown))


def write_tokenizer(folder: Path, tokenizer: SiglipTokenizer) -> None:
    """Copy the vocabulary, and write `tokenizer_config.json` with what the one beside the vocabulary says."""
    (name,) = tokenizer.save_vocabulary(folder)
    beside = tokenizer.vocab_file.parent / TEXT
    template = _GEMMA if Path(name).name == "tokenizer.json" else _SENTENCEPIECE
    settings = {
        "model_max_length": tokenizer.settings.context_length,
        "do_lower_case": tokenizer.settings.clean != "none",
        "clean": tokenizer.settings.clean,
        "templates": list(tokenizer.settings.templates),
        # without it other libraries make a mask too, and their models then hide the padding
        "model_input_names": ["input_ids"],
    }
    write_json(folder / TEXT, {**(read_json(beside) if beside.is_file() else template), **settings})


def _image_settings(folder: Path, values: dict[str, Any]) -> ImageSettings:
    if "Siglip2" in str(values.get("image_processor_type")):
        raise NotYetSupported(
            f"{folder} prepares pictures for a NaFlex SigLIP 2, which this version does not run yet; "
            "use a fixed-resolution one such as google/siglip2-base-patch16-256"
        )
    for key, expected in _MUST_BE.items():
        # null stands for the default
        if values.get(key) not in (None, expected):
            raise _strange(folder, key, values[key], expected)
    if abs(values.get("rescale_factor", 1 / 255) * 255 - 1) > 1e-6:
        raise _strange(folder, "rescale_factor", values["rescale_factor"], 1 / 255)
    resample = values.get("resample", 3)
    if resample not in _FILTERS:
        raise _strange(folder, "resample", resample, "2 (bilinear) or 3 (bicubic)")
    normalize = values.get("do_normalize", True)
    return ImageSettings(
        image_size=_size(folder, values),
        resample=_FILTERS[resample],
        image_mean=tuple(values.get("image_mean", (0.5, 0.5, 0.5))) if normalize else (0.0, 0.0, 0.0),
        image_std=tuple(values.get("image_std", (0.5, 0.5, 0.5))) if normalize else (1.0, 1.0, 1.0),
    )


def _size(folder: Path, values: dict[str, Any]) -> int:
    size = values.get("size")
    if isinstance(size, int):
        return size
    if isinstance(size, dict) and isinstance(size.get("height"), int) and size["height"] == size.get("width"):
        return size["height"]
    raise _strange(folder, "size", size, "one height and width in pixels")


def _strange(folder: Path, key: str, got: object, expected: object) -> CheckpointError:
    return CheckpointError(
        f"{folder}: the image processor has {key} {clip(repr(got))}, expected {expected!r}; "
        "this is not how SigLIP was trained, so use the files of a SigLIP checkpoint"
    )
