import numpy as np
import torch
from PIL import Image
from transformers import AutoProcessor, SiglipModel

processor = AutoProcessor.from_pretrained(MODEL)
image_processor, tokenizer = processor.image_processor, processor.tokenizer
mean, std = np.array(image_processor.image_mean), np.array(image_processor.image_std)
size = (image_processor.size["height"], image_processor.size["width"])
pixels = (np.asarray(Image.open(PICTURES[0]).resize(size, Image.BICUBIC)) / 255.0 - mean) / std
pixel_values = torch.tensor(pixels, dtype=torch.float32).permute(2, 0, 1)[None]
model = SiglipModel.from_pretrained(MODEL)
ids = tokenizer("a small red square", padding="max_length", return_tensors="pt").input_ids
with torch.no_grad():
    logits = model(input_ids=ids, pixel_values=pixel_values).logits_per_image
result = [
    logits,
    tokenizer.convert_ids_to_tokens(ids[0].tolist()),
    tokenizer.pad_token_id,
    tokenizer.tokenize("red cats"),
]
