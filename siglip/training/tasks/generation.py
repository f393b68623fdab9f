"""Pictures, prefixes and suffixes: cross-entropy of the suffix that a PaliGemma is to write, and how often it does."""

from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from dataclasses import replace
from math import exp
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn

from siglip.config_paligemma import PaliGemmaConfig
from siglip.data import Batch, Source
from siglip.distributed import all_gather, world_size
from siglip.errors import BrokenSample, ConfigError, DataError
from siglip.model import PaliGemmaForConditionalGeneration
from siglip.model.generate import Choice, generate
from siglip.processing import AnyProcessor, PaliGemmaProcessor, SiglipImageProcessor
from siglip.training.config import TrainConfig
from siglip.training.frozen import ImageCache
from siglip.training.lora import add_low_rank
from siglip.training.setup import choose_trainable, fresh_processor, take_image_tower
from siglip.training.tasks.task import broken_among, held_out_batches
from siglip.training.towers import hold_back, spread

# tokens of a text, for the estimate of a step's cost
_USUAL_TEXT = 16


class GenerationTask:
    """The loss of PaliGemma: mean over the tokens of a suffix with its EOS, then over rows."""

    score: ClassVar[str] = "likelihood"

    @classmethod
    def build(cls, config: TrainConfig, labels: Sequence[str]) -> tuple[nn.Module, AnyProcessor]:
        spec = config.model
        if spec.source is not None:
            model = PaliGemmaForConditionalGeneration.from_pretrained(spec.source, image_size=spec.image_size)
            processor = PaliGemmaProcessor.from_pretrained(spec.source)
            settings = replace(processor.image_processor.settings, image_size=model.config.vision_config.image_size)
            images, tokenizer = SiglipImageProcessor(settings), processor.tokenizer
        else:
            assert isinstance(spec.config, PaliGemmaConfig)
            model = PaliGemmaForConditionalGeneration(spec.config, generator=torch.Generator().manual_seed(config.seed))
            take_image_tower(model.vision_tower, spec)
            fresh = fresh_processor(spec, spec.config)
            images, tokenizer = fresh.image_processor, fresh.tokenizer
        processor = PaliGemmaProcessor(images, tokenizer, model.config.vision_config.num_patches)
        _check_tokens(processor, model.config)
        choose_trainable(model, (model.vision_tower, model.language_model), config)
        if config.trainable == "lora":
            add_low_rank(model.language_model, config.lora, config.seed)
        return model, processor

    @classmethod
    def begin(
        cls, model: nn.Module, processor: AnyProcessor, config: TrainConfig, source: Source, device: torch.device
    ) -> None:
        pass

    @classmethod
    def row_flops(cls, model: nn.Module) -> float:
        assert isinstance(model, PaliGemmaForConditionalGeneration)
        patches = model.config.vision_config.num_patches
        sides = ((patches, model.vision_tower.encoder), (patches + _USUAL_TEXT, model.language_model.layers))
        return sum(6.0 * tokens * sum(weight.numel() for weight in part.parameters()) for tokens, part in sides)

    def __init__(
        self,
        model: nn.Module,
        processor: AnyProcessor,
        config: TrainConfig,
        device: torch.device,
        cache: ImageCache | None,
    ) -> None:
        assert isinstance(model, PaliGemmaForConditionalGeneration) and isinstance(processor, PaliGemmaProcessor)
        model.vision_tower.encoder.gradient_checkpointing = config.gradient_checkpointing
        model.language_model.gradient_checkpointing = config.gradient_checkpointing
        self._processor, self._config, self._device, self._cache = processor, config, device, cache
        self._longest, self._cut = model.config.text_config.max_position_embeddings, 0
        self._loss = spread(_SuffixLoss(model, processor.image_processor, config), config, device)

    def backward(self, batch: Batch) -> Float[Tensor, ""]:
        pictures = self._cache.rows(batch.indices) if self._cache is not None else batch.pixels
        assert pictures is not None
        inputs = self._joined(batch)
        # padding is on the left, so a whole row ends in EOS
        self._cut += int((inputs["input_ids"][:, -1] != self._processor.eos_token_id).sum())
        rows = self._config.micro_batch_size or len(batch)
        # rows of like length together: a micro batch is only as wide as its longest
        lengths = inputs["attention_mask"].sum(dim=1)
        parts = [
            (
                *(
                    inputs[name][part, -int(lengths[part].max()) :]
                    for name in ("input_ids", "labels", "attention_mask")
                ),
                pictures[part],
            )
            for part in lengths.argsort(stable=True).split(rows)
        ]
        share = world_size() / self._config.batch_size
        total = torch.zeros((), device=self._device)
        self._loss.train()
        for index, part in enumerate(parts):
            with hold_back(self._loss) if index + 1 < len(parts) else nullcontext():
                loss = self._loss(*(column.to(self._device) for column in part)) * (len(part[0]) * share)
                loss.backward()
            total += loss.detach()
        return total

    def numbers(self) -> dict[str, float]:
        return {"cut_texts": float(self._cut)} if self._cut else {}

    @torch.inference_mode()
    def held_out(self, model: nn.Module, source: Source) -> dict[str, float]:
        """Loss of the first text of each sample, its likelihood a token, and how often greedy writing gives it.

        Texts are compared as the vocabulary reads them.
        """
        assert isinstance(model, PaliGemmaForConditionalGeneration)
        task = _SuffixLoss(model, self._processor.image_processor, replace(self._config, label_smoothing=0.0))
        task.to(self._device).eval()
        losses, exact = 0.0, 0
        read = 0
        for batch in held_out_batches(source, self._processor, self._config):
            assert batch.pixels is not None
            inputs = self._joined(batch).to(self._device)
            pixels = batch.pixels.to(self._device)
            loss = task(inputs["input_ids"], inputs["labels"], inputs["attention_mask"], pixels)
            losses += float(loss) * len(batch)
            exact += sum(self._written_exactly(model, batch, pixels))
            read += len(batch)
        sums = all_gather(torch.tensor([[losses, float(exact), float(read)]], dtype=torch.float64)).sum(dim=0).tolist()
        if not sums[2]:
            raise DataError(f"no sample of {self._config.data.held_out} could be read; leave data.held_out out")
        loss = sums[0] / sums[2]
        found = {"likelihood": exp(-loss), "loss": loss, "exact": sums[1] / sums[2]}
        return found | broken_among(source, int(sums[2]))

    def baseline(self, source: Source) -> dict[str, float]:
        """The share of the most frequent text: what is right without looking or reading."""
        counts: Counter[str] = Counter()
        for index in range(len(source)):
            with suppress(BrokenSample):
                counts[source.sample(index, image=False).captions[0]] += 1
        return {"most_frequent": max(counts.values()) / counts.total()} if counts else {}

    def _joined(self, batch: Batch):
        return self._processor.join(self._prefixes(batch), batch.captions, most=self._longest)

    def _prefixes(self, batch: Batch) -> list[str]:
        return [prefix or self._config.data.prefix for prefix in batch.prefixes]

    def _written_exactly(
        self, model: PaliGemmaForConditionalGeneration, batch: Batch, pixels: UInt8[Tensor, "batch size size 3"]
    ) -> list[bool]:
        processor = self._processor
        wanted = [processor.encode(text) for text in batch.captions]
        inputs = processor.join(self._prefixes(batch)).to(self._device)
        # one more than the longest: what has not ended by then is another text
        most = min(max(map(len, wanted)) + 1, self._longest - inputs["input_ids"].shape[1])
        choice = Choice(eos=processor.eos_token_id, pad=processor.pad_token_id, max_new_tokens=most)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._config.precision == "bfloat16"):
            pixel_values = processor.image_processor.normalize(pixels)
            prompt = model.prompt(inputs["input_ids"], pixel_values, inputs["attention_mask"])
            rows = generate(model.language_model, prompt, choice).tokens.tolist()
        eos = processor.eos_token_id
        return [row[: len(ids) + 1] == [*ids, eos] for row, ids in zip(rows, wanted, strict=True)]


class _SuffixLoss(nn.Module):
    """The model with its loss: what is wrapped for many devices."""

    def __init__(
        self, model: PaliGemmaForConditionalGeneration, images: SiglipImageProcessor, config: TrainConfig
    ) -> None:
        super().__init__()
        self.model = model
        self._normalize = images.normalize
        self._half, self._smoothing = config.precision == "bfloat16", config.label_smoothing
        self._locked = not any(parameter.requires_grad for parameter in model.vision_tower.parameters())

    def forward(
        self,
        input_ids: Int[Tensor, "batch tokens"],
        labels: Int[Tensor, "batch tokens"],
        attention_mask: Int[Tensor, "batch tokens"] | Bool[Tensor, "batch tokens"],
        pictures: UInt8[Tensor, "batch size size 3"] | Float[Tensor, "batch patches width"],
    ) -> Float[Tensor, ""]:
        """The loss of these rows; pictures are bytes, or patch tokens of a locked tower."""
        with torch.autocast(input_ids.device.type, torch.bfloat16, enabled=self._half):
            if pictures.ndim == 3:
                tokens = pictures.float()
            else:
                with torch.set_grad_enabled(torch.is_grad_enabled() and not self._locked):
                    tokens = self.model.vision_tower(self._normalize(pictures)).last_hidden_state
            return self.model.loss(
                input_ids, labels, attention_mask=attention_mask, patch_tokens=tokens, label_smoothing=self._smoothing
            )

    def train(self, mode: bool = True) -> "_SuffixLoss":
        """As every module; a locked image tower stays as it is used, without dropout."""
        super().train(mode)
        if self._locked:
            self.model.vision_tower.eval()
        return self


def _check_tokens(processor: PaliGemmaProcessor, config: PaliGemmaConfig) -> None:
    """Raise ConfigError if the ids of the vocabulary are not those of the model."""
    needed = max(processor.tokenizer.vocab_size, processor.bos_token_id + 1, processor.separator_token_id + 1)
    expected = (processor.image_token_id, processor.eos_token_id, processor.pad_token_id)
    if (config.image_token_index, config.eos_token_id, config.pad_token_id) != expected:
        raise ConfigError(
            "with this vocabulary model.config needs image_token_index, eos_token_id and pad_token_id "
            f"{', '.join(map(str, expected))}, got {config.image_token_index}, {config.eos_token_id} and "
            f"{config.pad_token_id}"
        )
    if needed > config.text_config.vocab_size:
        raise ConfigError(
            f"the vocabulary needs {needed} rows in the table of the decoder, which has "
            f"{config.text_config.vocab_size}; set model.config.text_config.vocab_size to at least as many"
        )
