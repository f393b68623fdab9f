import torch
from PIL import Image
from transformers import AutoProcessor, SiglipVisionModel

model = SiglipVisionModel.from_pretrained(MODEL, dtype=torch.float32)
processor = AutoProcessor.from_pretrained(MODEL)
inputs = processor(images=Image.open(PICTURES[1]), return_tensors="pt").to(model.device)
with torch.inference_mode():
    outputs = model(**inputs)
result = [outputs.last_hidden_state, outputs.pooler_output, outputs[1]]
