import torch
from PIL import Image
from transformers import AutoProcessor, SiglipVisionModel

model = SiglipVisionModel.from_pretrained(MODEL).eval()
pixels = AutoProcessor.from_pretrained(MODEL)(
    images=[Image.open(p) for p in PICTURES], return_tensors="pt"
).pixel_values
batch = torch.export.Dim("batch", min=1, max=64)
program = torch.export.export(model, (pixels[:2],), dynamic_shapes={"pixel_values": {0: batch}})
result = program.module()(pixels).pooler_output
