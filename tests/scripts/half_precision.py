import torch
from PIL import Image
from transformers import AutoModel, AutoProcessor

model = AutoModel.from_pretrained(MODEL, torch_dtype=torch.bfloat16, device_map="cpu", low_cpu_mem_usage=True)
processor = AutoProcessor.from_pretrained(MODEL, use_fast=False)
inputs = processor(text=["a cat"], images=Image.open(PICTURES[0]), padding="max_length", return_tensors="pt")
inputs = inputs.to(model.device, model.dtype)
with torch.no_grad():
    outputs = model(**inputs)
result = [outputs.image_embeds.float(), outputs.text_embeds.float()]
tolerance = 0.02
