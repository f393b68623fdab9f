import torch
from PIL import Image
from transformers import AutoProcessor, SiglipVisionModel

vision = SiglipVisionModel.from_pretrained(MODEL)
processor = AutoProcessor.from_pretrained(MODEL)
pixel_values = processor(images=[Image.open(path) for path in PICTURES], return_tensors="pt").pixel_values
with torch.no_grad():
    states = vision(pixel_values, output_hidden_states=True).hidden_states
# one vector a layer, for a probe
result = [len(states), vision.config.num_hidden_layers + 1, *(state.mean(dim=1) for state in states)]
