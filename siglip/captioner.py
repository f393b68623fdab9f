"""Pictures and a prompt -> texts with their probability, or the probability of given answers; batched, on any device.

Pictures are decoded in threads while the decoder writes, a bounded number ahead.
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice, repeat
from typing import Any, TypedDict, TypeVar, Unpack

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from siglip.devices import find_device
from siglip.download import fetched
from siglip.errors import Failure, InputError, UnreadableImage, clip, did_you_mean, warn
from siglip.keywords import LoadOptions, accepted, chosen_dtype, unknown
from siglip.model import PaliGemmaForConditionalGeneration
from siglip.model.generate import Choice, Prompt, generate, score
from siglip.pictures import cores
from siglip.pretrained import StrPath
from siglip.processing import ImageInput, PaliGemmaProcessor, image_name
from siglip.streaming import Pace, checked_batch_size

# the words that the prompts of the published models begin with (Beyer et al. 2024, section 3.2.5 and appendix B)
TASK_WORDS = ("caption", "describe", "answer", "question", "ocr", "detect", "segment")

_Outcome = TypeVar("_Outcome")


def told_task(prompt: str) -> str:
    """The prompt as it is; a SiglipWarning says where it begins with none of the task words, and what may be meant."""
    task = next(iter(prompt.split()), None)
    if task is not None and task not in TASK_WORDS:
        near = did_you_mean(task, TASK_WORDS)
        warn(
            f"the prompt begins with {clip(task)}, which is none of PaliGemma's tasks ({', '.join(TASK_WORDS)})"
            f"{f'; did you mean {near!r}?' if near else '; a model only understands what it was trained on'}"
        )
    return prompt


class GenerateOptions(TypedDict, total=False):
    """How tokens are chosen, see siglip.model.generate.Choice."""

    max_new_tokens: int
    num_beams: int
    temperature: float
    top_p: float
    seed: int


@dataclass(frozen=True, slots=True)
class Text:
    """What was written about the picture at `index`, and the probability of the whole text."""

    index: int
    text: str
    probability: float


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """The log-probability of each given answer for the picture at `index`."""

    index: int
    log_probabilities: Float32[np.ndarray, " answers"]


class Captioner:
    """A PaliGemma and its processor, ready to write. `batch_size` is pictures at a time.

    `device`: "auto" is the first GPU or other accelerator, else the CPU. `dtype` is "float32", "bfloat16", ... or
    "auto" (as stored). Raises InputError for a device that is not there, else as `from_pretrained` of the model.
    """

    def __init__(
        self, model: PaliGemmaForConditionalGeneration, processor: PaliGemmaProcessor, *, batch_size: int = 8
    ) -> None:
        batch_size = checked_batch_size(batch_size)
        self.model = model
        self.processor = processor
        self.batch_size = batch_size

    @classmethod
    def from_pretrained(
        cls,
        source: StrPath,
        *,
        device: torch.device | str | int = "auto",
        dtype: torch.dtype | str | None = None,
        batch_size: int = 8,
        **options: Unpack[LoadOptions],
    ) -> "Captioner":
        """The Captioner of a local folder or file, or of a hub name such as "google/paligemma2-3b-mix-224"."""
        hub = accepted(options, "Captioner.from_pretrained", known=("device", "dtype", "batch_size"))
        dtype = chosen_dtype(dtype, hub.pop("dtype", None)) or "float32"
        # before gigabytes are read for what cannot be
        found, batch_size = find_device(device), checked_batch_size(batch_size)
        model = PaliGemmaForConditionalGeneration.from_pretrained(source, dtype=dtype, device_map=found, **hub)
        return cls(model, PaliGemmaProcessor.from_pretrained(source, **hub), batch_size=batch_size)

    def write(
        self,
        items: Iterable[ImageInput],
        prompt: str | Iterator[str],
        *,
        batch_size: int | None = None,
        timeout_s: float | None = None,
        **options: Unpack[GenerateOptions],
    ) -> Generator[Text | Failure, None, None]:
        """A text for each picture, or a Failure in its place, in order; `items` need not end.

        This call may have another `batch_size`, and a `timeout_s` for web addresses.

        An iterator of prompts gives that of each picture, after the picture was taken; one that is empty or too long
        makes its picture a Failure. Raises InputError for one prompt of that kind, or strange options.
        """
        processor, known = self.processor, list(GenerateOptions.__annotations__)
        for name in options:
            if name not in known:
                raise unknown(name, "writing", known)
        choice = Choice(eos=processor.eos_token_id, pad=processor.pad_token_id, **options)

        def texts(prompted: Prompt) -> list[tuple[str, float]]:
            written = generate(self.model.language_model, prompted, choice)
            chances: list[float] = written.log_probability.exp().tolist()
            return list(zip(processor.batch_decode(written.tokens.cpu()), chances, strict=True))

        pace = Pace(batch_size=batch_size, timeout_s=timeout_s)
        stream = self._stream(items, prompt, choice.max_new_tokens, texts, pace)
        return (item if isinstance(item, Failure) else Text(item[0], *item[1]) for item in stream)

    def draw(
        self,
        items: Iterable[ImageInput],
        prompt: str,
        *,
        count: int,
        seed: int = 0,
        temperature: float = 1.0,
        top_p: float = 0.9,
        max_new_tokens: int = 32,
    ) -> Generator[list[Text] | Failure, None, None]:
        """For each picture the likeliest text and `count` drawn ones, equal ones once; else as `write`.

        What is drawn depends on `seed` and the picture. The picture is looked at once for all of them.
        """
        processor = self.processor
        likeliest = Choice(eos=processor.eos_token_id, pad=processor.pad_token_id, max_new_tokens=max_new_tokens)
        drawn = replace(likeliest, temperature=temperature, top_p=top_p)
        choices = [likeliest, *(replace(drawn, seed=seed * count + number) for number in range(count))]

        def texts(prompted: Prompt) -> list[dict[str, float]]:
            found: list[dict[str, float]] = [{} for _ in range(len(prompted.valid))]
            for choice in choices:
                written = generate(self.model.language_model, prompted, choice)
                chances: list[float] = written.log_probability.exp().tolist()
                for texts, text, chance in zip(
                    found, processor.batch_decode(written.tokens.cpu()), chances, strict=True
                ):
                    texts.setdefault(text, chance)
            return found

        for item in self._stream(items, prompt, max_new_tokens, texts, Pace()):
            yield item if isinstance(item, Failure) else [Text(item[0], *pair) for pair in item[1].items()]

    def score(
        self, items: Iterable[ImageInput], prompt: str, answers: Sequence[str], **pace: Unpack[Pace]
    ) -> Generator[Scores | Failure, None, None]:
        """The log-probability of each answer for each picture, or a Failure in its place, in order; `pace` as `write`.

        Raises InputError for no answers, a blank or a repeated one, else as `write`.
        """
        blank = any(not answer.strip() for answer in answers)
        if isinstance(answers, str) or not answers or blank or len(set(answers)) < len(answers):
            raise InputError(f"answers must be a list of texts, none of them blank or repeated, got {clip(answers)}")
        ids = [self.processor.encode(answer) for answer in answers]
        eos = self.processor.eos_token_id

        def scores(prompted: Prompt) -> list[np.ndarray]:
            return list(score(self.model.language_model, prompted, ids, eos=eos).cpu().numpy())

        stream = self._stream(items, prompt, max(map(len, ids)) + 1, scores, pace)
        return (item if isinstance(item, Failure) else Scores(*item) for item in stream)

    def _stream(
        self,
        items: Iterable[ImageInput],
        prompt: str | Iterator[str],
        room: int,
        finish: Callable[[Prompt], list[_Outcome]],
        pace: Pace,
    ) -> Generator[tuple[int, _Outcome] | Failure, None, None]:
        if isinstance(prompt, str) and (wrong := self._fault_of(prompt, room)):
            raise InputError(wrong)
        prompts = repeat(prompt) if isinstance(prompt, str) else prompt
        return self._decoded(enumerate(zip(items, prompts, strict=False)), room, finish, pace)

    def _decoded(
        self,
        source: Iterator[tuple[int, tuple[ImageInput, str]]],
        room: int,
        finish: Callable[[Prompt], list[_Outcome]],
        pace: Pace,
    ) -> Generator[tuple[int, _Outcome] | Failure, None, None]:
        asked, timeout_s = pace.get("batch_size"), pace.get("timeout_s")
        size = self.batch_size if asked is None else checked_batch_size(asked)
        with ThreadPoolExecutor(cores(), thread_name_prefix="siglip-decode") as pool:
            waiting = [pool.submit(self._decode, *item, room, timeout_s) for item in islice(source, size)]
            while waiting:
                decoded = [future.result() for future in waiting]
                waiting = [pool.submit(self._decode, *item, room, timeout_s) for item in islice(source, size)]
                good = [item for item in decoded if not isinstance(item, Failure)]
                outcomes = iter(self._finished(good, finish) if good else ())
                for item in decoded:
                    yield item if isinstance(item, Failure) else (item.index, next(outcomes))

    def _decode(
        self, index: int, item: tuple[ImageInput, str], room: int, timeout_s: float | None
    ) -> "_Decoded | Failure":
        picture, prompt = item
        try:
            if wrong := self._fault_of(prompt, room):
                return Failure(image_name(picture, index), wrong, index)
            return _Decoded(index, self.processor.image_processor.pixels(fetched(picture, timeout_s)), prompt)
        except UnreadableImage as error:
            return Failure(image_name(picture, index), error.reason, index)

    def _fault_of(self, prompt: str, room: int) -> str:
        """What is wrong with a prompt before so many new tokens; empty if nothing is."""
        if not prompt.strip():
            return 'the prompt is empty; ask for something, such as "caption en" or "answer en what is this?"'
        context = self.model.config.text_config.max_position_embeddings
        # BOS and the separator are around it
        tokens = self.processor.num_patches + len(self.processor.encode(prompt)) + 2
        if tokens + room <= context:
            return ""
        return (
            f"picture and prompt are {tokens} tokens and the new text up to {room}, and this decoder reads {context}; "
            "shorten the prompt, or ask for fewer new tokens"
        )

    @torch.inference_mode()
    def _finished(self, decoded: "list[_Decoded]", finish: Callable[[Prompt], list[_Outcome]]) -> list[_Outcome]:
        device = self.model.device
        pictures = torch.from_numpy(np.stack([item.pixels for item in decoded])).to(device)
        pixels: Tensor = self.processor.image_processor.normalize(pictures)
        inputs: Any = self.processor.join([item.prompt for item in decoded]).to(device)
        return finish(self.model.prompt(inputs["input_ids"], pixels, inputs["attention_mask"]))


@dataclass(frozen=True, slots=True, eq=False)
class _Decoded:
    index: int
    pixels: np.ndarray
    prompt: str
