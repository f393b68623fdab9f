import torch
from PIL import Image
from torch.nn.functional import interpolate
from transformers import AutoProcessor, SiglipVisionModel

model = SiglipVisionModel.from_pretrained(MODEL, attn_implementation="sdpa")
pixels = AutoProcessor.from_pretrained(MODEL)(images=Image.open(PICTURES[0]), return_tensors="pt")["pixel_values"]
larger = interpolate(pixels, scale_factor=2.0)
with torch.no_grad():
    result = model(larger, interpolate_pos_encoding=True).last_hidden_state
