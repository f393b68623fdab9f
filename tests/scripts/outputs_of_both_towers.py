import torch
from PIL import Image
from transformers import SiglipModel, SiglipProcessor

model = SiglipModel.from_pretrained(MODEL)
processor = SiglipProcessor.from_pretrained(MODEL)
inputs = processor(text=["a cat"], images=Image.open(PICTURES[0]), padding="max_length", return_tensors="pt")
with torch.no_grad():
    outputs = model(**inputs, output_hidden_states=True)
patches = outputs.vision_model_output.last_hidden_state
tokens = outputs.text_model_output.last_hidden_state
result = [patches, tokens, outputs.vision_model_output.hidden_states[-2], outputs.text_model_output.hidden_states[1]]
