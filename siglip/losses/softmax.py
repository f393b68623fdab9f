"""The softmax (InfoNCE) loss, in one process or over many: the baseline the sigmoid loss is compared with."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from siglip.distributed import Group, all_gather, all_gather_ints, rank
from siglip.losses.sigmoid import Pairs


def softmax_loss(
    image_embeds: Float[Tensor, "images image_dim"],
    text_embeds: Float[Tensor, "texts text_dim"],
    *,
    logit_scale: Float[Tensor, "..."],
    group: Group | None = None,
) -> Float[Tensor, ""]:
    """Mean cross-entropy of finding the text of an image and the image of a text, in nats.

    Source: arXiv 2303.15343, Section 3.1. All images and texts of `group` (None: the default group) are gathered, so
    memory grows with the world; use it to compare, not to scale. The scaling is that of `ring_sigmoid_loss`: the mean
    over processes, of values and of gradients, is that of the whole batch. Raises ShapeError as `sigmoid_loss` does.
    """
    pairs = Pairs.checked(image_embeds, text_embeds, logit_scale, logit_scale.new_zeros(()), None, None)
    sizes = [size for (size,) in all_gather_ints([pairs.batch_size()], image_embeds.device, group)]
    first = sum(sizes[: rank(group)])
    with torch.autocast(image_embeds.device.type, enabled=False):
        images, texts = all_gather(pairs.images, group), all_gather(pairs.texts, group)
        answers = torch.arange(first, first + pairs.batch_size(), device=image_embeds.device)
        of_images = F.cross_entropy(pairs.images @ texts.T * pairs.logit_scale.exp(), answers, reduction="sum")
        of_texts = F.cross_entropy(pairs.texts @ images.T * pairs.logit_scale.exp(), answers, reduction="sum")
        return (of_images + of_texts) * (len(sizes) / sum(sizes) / 2)
