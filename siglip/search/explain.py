"""A picture and texts -> heat f32[texts, rows, columns]: where in the picture the model sees what a text says.

The towers are run once, at up to twice their resolution. Then the pooling head, which turns patch tokens into the
vector, is run again with a window of tokens left out, once for every place of the window. What the cosine with the text
loses there, compared with what everyday words lose, is the heat. It tells what this model's vector rests on; it is no
segmentation, and tokens have looked at each other before, so edges are soft.
"""

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float32
from PIL import Image
from torch import Tensor

from siglip.embedder import Embedder
from siglip.errors import InputError
from siglip.search.null import everyday_words

# everyday words that say what any text loses
_WORDS = 100
# rows of patches that are enough to see where something is
_ENOUGH_ROWS = 12


@torch.inference_mode()
def heat_maps(embedder: Embedder, image: Image.Image, texts: list[str]) -> Float32[np.ndarray, "texts rows columns"]:
    """Heat of each text, not negative; each map sums to 1, or is 0 everywhere where no place says more than another.

    `image` is an RGB picture of any shape; rows and columns are patches of the picture as the model sees it, squashed
    to a square. Raises InputError for a model without pooling head, and for no text.
    """
    model = embedder.model
    if model.vision_model.head is None:
        raise InputError("this model has no pooling head, so its vector cannot be traced back to patches")
    if not texts:
        raise InputError("expected at least one text to look for, got none")
    vectors = embedder.embed_labels([*texts, *everyday_words()[:_WORDS]], "{}")
    pooled, rows = _windows_left_out(embedder, image)
    lost = pooled @ torch.from_numpy(vectors).T  # [1 + places, texts and words]: the whole picture first
    lost = lost[:1] - lost[1:]
    heat = lost[:, : len(texts)] - lost[:, len(texts) :].mean(dim=1, keepdim=True)
    heat = (heat - heat.mean(dim=0)).clamp_min(0.0)
    heat = heat / heat.sum(dim=0).clamp_min(1e-12)
    return heat.T.unflatten(1, (rows, rows)).float().numpy()


def _windows_left_out(embedder: Embedder, image: Image.Image) -> tuple[Float32[Tensor, "places dim"], int]:
    """Unit vectors of the whole picture, then without each window; and the number of rows of windows."""
    tower = embedder.model.vision_model.float().eval()
    assert tower.head is not None
    size = tower.config.image_size
    if size // tower.config.patch_size < _ENOUGH_ROWS:
        size *= 2
    preparation = embedder.processor.image_processor
    pixels = torch.from_numpy(np.asarray(image.resize((size, size), Image.Resampling.BICUBIC)).copy())
    pixel_values = preparation.normalize(pixels.unsqueeze(0)).to(tower.device)
    tokens = tower(pixel_values, interpolate_pos_encoding=size != tower.config.image_size).last_hidden_state[0]
    rows = size // tower.config.patch_size
    reach = rows // 4
    place = torch.arange(rows)
    near = (place[:, None] - place).abs() <= reach  # [window, row]
    pooled = [tower.head(tokens.unsqueeze(0))]
    for y in range(rows):
        for x in range(rows):
            window = near[y][:, None] & near[x]
            pooled.append(tower.head(tokens[~window.flatten()].unsqueeze(0)))
    return F.normalize(torch.cat(pooled), dim=-1).cpu(), rows


def heat_over(image: Image.Image, heat: Float32[np.ndarray, "rows columns"]) -> Image.Image:
    """The picture in pale grey with its heat over it, from yellow to red; where there is none the picture is kept."""
    top = float(heat.max())
    levels = np.uint8(255 * (heat / top if top > 0 else heat))
    strength = Image.fromarray(levels).resize(image.size, Image.Resampling.BICUBIC)
    pale = Image.blend(image.convert("RGB"), Image.new("RGB", image.size, "white"), 0.35)
    red, none = Image.new("L", image.size, 235), Image.new("L", image.size, 0)
    warm = Image.merge("RGB", (red, strength.point([200 - level * 3 // 4 for level in range(256)]), none))
    return Image.composite(warm, pale, strength.point([level * 7 // 10 for level in range(256)]))
