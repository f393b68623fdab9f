import numpy as np
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoProcessor

processor = AutoImageProcessor.from_pretrained(MODEL)
picture = Image.open(PICTURES[0]).convert("RGB")
floats = torch.from_numpy(np.asarray(picture)).permute(2, 0, 1).float() / 255
result = [
    processor(picture, do_resize=True, do_rescale=True, do_normalize=True, return_tensors="pt").pixel_values,
    processor(np.asarray(picture), do_convert_rgb=True, return_tensors="pt").pixel_values,
    processor(floats, do_rescale=False, return_tensors="pt").pixel_values,
    processor(picture, size={"height": 64, "width": 64}, return_tensors="pt").pixel_values,
    AutoProcessor.from_pretrained(MODEL)(images=picture, do_convert_rgb=True, return_tensors="pt").pixel_values,
    *(processor.size, processor.resample, processor.image_mean, processor.rescale_factor, processor.do_resize),
]
processor.size = {"height": 32, "width": 32}
result.append(processor(images=[picture, picture], return_tensors="np")["pixel_values"])
