"""Pictures in any form -> pixel_values f32[b, 3, size, size], exactly as the checkpoint wants them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal, Unpack

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from PIL import Image
from torch import Tensor

from siglip.config import ImageSettings
from siglip.errors import PreparationError, ShapeError, UnreadableImage, clip
from siglip.fields import expect
from siglip.keywords import ImageOptions, agreed
from siglip.pretrained import PretrainedProcessing
from siglip.processing.decode import DecodedPicture, ImageInput, decode_picture, image_name
from siglip.types import ModelInputs

_FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


class SiglipImageProcessor(PretrainedProcessing):
    """Decode, squash to the square with PIL's antialiasing filter, scale to [0, 1], subtract the mean, divide.

    Values equal those of transformers' PIL path bit for bit, for plain pictures. We differ on purpose where a file is
    not what it looks like stored: EXIF orientation is applied, also to PIL pictures; colours are brought to sRGB; all
    bits of 16-bit grey are scaled; parts that are transparent lie over white, however the picture came.
    """

    # what existing scripts ask; see `preprocess` for what they may say
    do_resize: ClassVar[bool] = True
    do_rescale: ClassVar[bool] = True
    do_normalize: ClassVar[bool] = True
    rescale_factor: ClassVar[float] = 1 / 255
    model_input_names: ClassVar[list[str]] = ["pixel_values"]

    def __init__(self, settings: ImageSettings | None = None) -> None:
        self.settings = settings if settings is not None else ImageSettings()
        expect(self.settings, ImageSettings, "SiglipImageProcessor.settings")

    @property
    def size(self) -> dict[str, int]:
        """Height and width in pixels, as existing scripts read and set them."""
        return {"height": self.settings.image_size, "width": self.settings.image_size}

    @size.setter
    def size(self, size: Mapping[str, int]) -> None:
        self.settings = replace(self.settings, image_size=_side(size))

    @property
    def image_mean(self) -> list[float]:
        """What is subtracted from each channel, after scaling to [0, 1]."""
        return list(self.settings.image_mean)

    @property
    def image_std(self) -> list[float]:
        """What each channel is then divided by."""
        return list(self.settings.image_std)

    @property
    def resample(self) -> int:
        """PIL's number of the filter."""
        return int(_FILTERS[self.settings.resample])

    def __call__(
        self,
        images: ImageInput | Sequence[ImageInput],
        *,
        return_tensors: Literal["pt", "np"] | None = None,
        size: Mapping[str, int] | None = None,
        **options: Unpack[ImageOptions],
    ) -> ModelInputs:
        """The same as `preprocess`."""
        return self.preprocess(images, return_tensors=return_tensors, size=size, **options)

    def preprocess(
        self,
        images: ImageInput | Sequence[ImageInput],
        *,
        return_tensors: Literal["pt", "np"] | None = None,
        size: Mapping[str, int] | None = None,
        **options: Unpack[ImageOptions],
    ) -> ModelInputs:
        """`pixel_values` float32 [batch, 3, size, size] for one picture, a list of them, or a four-dimensional array.

        As "pt" (torch) or "np" (NumPy); without `return_tensors` a list with one NumPy array a picture. See
        `read_image` for the forms a picture may have. `size`, a height and an equal width, is for this call alone; a
        model takes another than the checkpoint's with `interpolate_pos_encoding=True`. The other options are those of
        existing scripts and may say what happens anyway.
        Raises UnreadableImage naming the first picture that is broken, InputError for an option that says else.
        """
        if size is not None and _side(size) != self.settings.image_size:
            other = SiglipImageProcessor(replace(self.settings, image_size=_side(size)))
            return other.preprocess(images, return_tensors=return_tensors, **options)
        if return_tensors not in ("pt", "np", None):
            raise PreparationError(f"return_tensors must be 'pt', 'np' or None, got {clip(repr(return_tensors))}")
        batch: Sequence[ImageInput]
        if isinstance(images, np.ndarray | Tensor):
            batch = list(images) if images.ndim == 4 else [images]
        elif isinstance(images, Sequence) and not isinstance(images, str | bytes):
            batch = images
        else:
            batch = [images]
        self._check_options(options, batch)
        side = self.settings.image_size
        pixels = np.empty((len(batch), side, side, 3), np.uint8)
        for index, image in enumerate(batch):
            try:
                pixels[index] = self.pixels(image)
            except UnreadableImage as error:
                raise UnreadableImage(image_name(image, index), error.reason) from error
        values = self.normalize(torch.from_numpy(pixels))
        if return_tensors == "pt":
            return ModelInputs(pixel_values=values)
        return ModelInputs(pixel_values=values.numpy() if return_tensors == "np" else list(values.numpy()))

    def pixels(self, image: ImageInput | DecodedPicture, *, reduced: bool = False) -> UInt8[np.ndarray, "size size 3"]:
        """Decode one picture, unless it is already, and squash it to the square; safe to call from many threads.

        With `reduced`, JPEG files at least four times larger than the square are decoded at 1/2, 1/4 or 1/8 of their
        size, never below twice the square. Between the embeddings of both ways, for the sample pictures enlarged to
        1024 and 4032 pixels, the cosine was 0.9999 on average and never below 0.9994. A colour profile is applied to
        the square: applied before, it would cost several times the decoding and move pixels by less than a level on
        average. Raises UnreadableImage.
        """
        size = self.settings.image_size
        if not isinstance(image, DecodedPicture):
            image = decode_picture(image, at_least_px=2 * size if reduced else None)
        square = image.plain.picture.resize((size, size), _FILTERS[self.settings.resample])
        return np.array(image.plain._replace(picture=square).rgb())

    def normalize(self, pixels: UInt8[Tensor, "batch height width 3"]) -> Float32[Tensor, "batch 3 height width"]:
        """Bytes to what the image tower takes, on the device of `pixels`; raises ShapeError."""
        if pixels.dtype != torch.uint8 or pixels.ndim != 4 or pixels.shape[3] != 3:
            raise ShapeError(
                f"normalize takes uint8 pixels [batch, height, width, 3], got {pixels.dtype} {list(pixels.shape)}"
            )
        # divisors are tensors on the device: by a Python number, CUDA multiplies with a rounded reciprocal
        scale, mean, std = (
            torch.tensor(numbers, dtype=torch.float32, device=pixels.device).view(-1, 1, 1)
            for numbers in ([255.0], self.settings.image_mean, self.settings.image_std)
        )
        planes = pixels.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
        return planes.div_(scale).sub_(mean).div_(std)

    def _check_options(self, options: ImageOptions, batch: Sequence[ImageInput]) -> None:
        floats = all(isinstance(image, np.ndarray | Tensor) and "float" in str(image.dtype) for image in batch)
        happens: dict[str, list[Any]] = {
            "do_resize": [True, None],
            # arrays of floats from 0 to 1 are taken as they are
            "do_rescale": [True, None, False] if floats else [True, None],
            "do_normalize": [True, None],
            "do_convert_rgb": [True, None],
            "resample": [self.resample, _FILTERS[self.settings.resample], None],
            "rescale_factor": [1 / 255, None],
            "image_mean": [self.image_mean, self.settings.image_mean, None],
            "image_std": [self.image_std, self.settings.image_std, None],
            "data_format": ["channels_first", None],
        }
        agreed(options, happens, "the image processor")


def _side(size: Any) -> int:
    height = size.get("height") if isinstance(size, Mapping) else None
    if type(height) is not int or height < 1 or dict(size) != {"height": height, "width": height}:
        raise PreparationError(
            f"size must be a height and an equal width in pixels, such as {{'height': 224, 'width': 224}}, got "
            f"{clip(repr(size))}"
        )
    return height
