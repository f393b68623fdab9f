"""Pictures and texts that belong together: the sigmoid loss, and recall both ways."""

import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from typing import ClassVar

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn

from siglip.config import SiglipConfig
from siglip.data import Batch, Source
from siglip.data.source import plain
from siglip.distributed import all_gather, all_gather_object, rank, world_size
from siglip.errors import BrokenSample, DataError, clip
from siglip.evaluation.metrics import recall_at
from siglip.evaluation.retrieval import matches, search
from siglip.losses import ring_sigmoid_loss
from siglip.model import SiglipModel
from siglip.processing import AnyProcessor, SiglipProcessor
from siglip.training.accumulate import accumulate
from siglip.training.config import TrainConfig
from siglip.training.frozen import ImageCache
from siglip.training.setup import check_vocabulary, choose_trainable, fresh_processor, from_checkpoint, take_image_tower
from siglip.training.tasks.task import broken_among, held_out_batches
from siglip.training.towers import Pairs, Towers, hold_back, spread

# samples whose captions are measured before a run begins
_LOOKED_AT = 256
# false negatives a picture from which on it is told
_MANY = 0.1


def equals_in_a_batch(captions: Sequence[str], batch_size: int) -> float:
    """How many others of a batch have the caption of a sample, on average, where those drawn are as these."""
    pairs = len(captions) * (len(captions) - 1)
    equal = sum(count * (count - 1) for count in Counter(captions).values())
    return (batch_size - 1) * equal / pairs if pairs else 0.0


class PairTask:
    """The sigmoid loss over the pairs of all processes."""

    score: ClassVar[str] = "text_to_image/recall@1"

    @classmethod
    def build(cls, config: TrainConfig, labels: Sequence[str]) -> tuple[nn.Module, AnyProcessor]:
        spec = config.model
        if spec.source is not None:
            model, processor = from_checkpoint(SiglipModel, spec)
        else:
            assert isinstance(spec.config, SiglipConfig)
            model = SiglipModel(spec.config, generator=torch.Generator().manual_seed(config.seed))
            take_image_tower(model.vision_model, spec)
            processor = fresh_processor(spec, spec.config)
        if spec.initial_bias is not None:
            nn.init.constant_(model.logit_bias, spec.initial_bias)
        check_vocabulary(processor, model.config)
        choose_trainable(model, (model.vision_model, model.text_model), config)
        return model, processor

    @classmethod
    def row_flops(cls, model: nn.Module) -> float:
        assert isinstance(model, SiglipModel)
        tokens = model.config.vision_config.num_patches, model.config.text_config.max_position_embeddings
        towers = model.vision_model, model.text_model
        return sum(
            6.0 * count * sum(weight.numel() for weight in tower.encoder.parameters())
            for count, tower in zip(tokens, towers, strict=True)
        )

    @classmethod
    def begin(
        cls, model: nn.Module, processor: AnyProcessor, config: TrainConfig, source: Source, device: torch.device
    ) -> None:
        """Say it where captions are cut, or are the same: of the first samples, since reading all would cost a pass."""
        assert isinstance(processor, SiglipProcessor)
        tokenizer, captions, main = processor.tokenizer, list[str](), list[str]()
        for index in source.order(config.seed, 0)[:_LOOKED_AT].tolist() if rank() == 0 else ():
            with suppress(BrokenSample):
                found = source.sample(index, image=False).captions
                captions += found
                main.append(plain(found[0]))
        wrong = equals_in_a_batch(main, config.batch_size)
        if config.data.positives == "pairs" and wrong >= _MANY:
            print(
                f"siglip: the first {len(main)} samples have {len(set(main))} different captions, so in a batch of "
                f"{config.batch_size} a picture meets its own caption about {wrong:.1f} times beside other pictures, "
                'where it counts as wrong; data.positives="equal" counts equal captions as right',
                file=sys.stderr,
            )
        length = tokenizer.settings.context_length
        cut = [caption for caption in captions if tokenizer.count(caption) > length]
        if cut:
            print(
                f"siglip: {len(cut)} of the first {len(captions)} captions are longer than the {length} tokens this "
                f"model reads, and cut, such as {clip(cut[0])!r}",
                file=sys.stderr,
            )

    def __init__(
        self,
        model: nn.Module,
        processor: AnyProcessor,
        config: TrainConfig,
        device: torch.device,
        cache: ImageCache | None,
    ) -> None:
        assert isinstance(model, SiglipModel)
        for tower in (model.vision_model, model.text_model):
            tower.encoder.gradient_checkpointing = config.gradient_checkpointing
        model.vision_model.embeddings.patch_dropout = config.patch_dropout
        self._model, self._processor, self._config, self._device, self._cache = model, processor, config, device, cache
        self._towers = spread(Towers(model, processor.image_processor, config.precision), config, device)
        model.to(device)

    def backward(self, batch: Batch) -> Float[Tensor, ""]:
        images = self._cache.rows(batch.indices) if self._cache is not None else batch.pixels
        assert images is not None
        batch = batch.to(self._device)
        rows = Pairs(images.to(self._device, non_blocking=True), batch.input_ids)
        ids = (batch.image_ids, batch.text_ids) if self._config.data.positives == "equal" else (None, None)
        scale, bias = self._model.logit_scale, self._model.logit_bias

        def loss(images: Tensor, texts: Tensor) -> Tensor:
            return ring_sigmoid_loss(
                images, texts, logit_scale=scale, logit_bias=bias, image_ids=ids[0], text_ids=ids[1]
            )

        self._towers.train()
        micro_batches = rows.split(self._config.micro_batch_size or len(batch))
        value = accumulate(self._towers, loss, micro_batches, no_sync=lambda: hold_back(self._towers))
        for parameter in (scale, bias):
            # outside of the towers, so nobody else averages them
            if parameter.grad is not None and world_size() > 1:
                dist.all_reduce(parameter.grad)
                parameter.grad /= world_size()
        return value

    def numbers(self) -> dict[str, float]:
        return {"t": self._model.logit_scale.exp().item(), "b": self._model.logit_bias.item()}

    @torch.inference_mode()
    def held_out(self, model: nn.Module, source: Source) -> dict[str, float]:
        """Recall of a caption's picture and a picture's caption, as `siglip evaluate` takes it with main captions."""
        assert isinstance(model, SiglipModel)
        towers = Towers(model, self._processor.image_processor, self._config.precision).to(self._device).eval()
        width = model.config.vision_config.hidden_size
        # on the CPU, where there is room for all of them
        shares = torch.empty(0, width), torch.empty(0, width)
        captions: list[str] = []
        for batch in held_out_batches(source, self._processor, self._config):
            assert batch.pixels is not None
            pair = towers(Pairs(batch.pixels.to(self._device), batch.input_ids.to(self._device)))
            shares = tuple(torch.cat((share, side.cpu())) for share, side in zip(shares, pair, strict=True))
            captions += batch.captions
        images, captioned = (all_gather(share).numpy() for share in shares)
        if not len(images):
            raise DataError(f"no sample of {self._config.data.held_out} could be read; leave data.held_out out")
        captions = [caption for share in all_gather_object(captions) for caption in share]
        first, texts_of, images_of = matches([(caption,) for caption in captions])
        texts = captioned[first]
        ways = {"image_to_text": (images, texts, texts_of), "text_to_image": (texts, images, images_of)}
        found: dict[str, float] = {}
        for way, (queries, items, right) in ways.items():
            here = slice(*(len(queries) * (rank() + end) // world_size() for end in (0, 1)))
            places = all_gather(torch.from_numpy(search(queries[here], items, right[here])[0])).numpy()
            found |= {f"{way}/{name}": share for name, share in recall_at(places).items()}
        return found | broken_among(source, len(images))

    def baseline(self, source: Source) -> dict[str, float]:
        return {}
