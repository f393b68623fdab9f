import torch
from PIL import Image
from transformers import SiglipModel, SiglipProcessor

model = SiglipModel.from_pretrained(MODEL)
processor = SiglipProcessor.from_pretrained(MODEL)
inputs = processor(text=["a cat", "a dog"], images=Image.open(PICTURES[0]), padding="max_length", return_tensors="pt")
with torch.no_grad():
    logits_per_image, logits_per_text, text_embeds, image_embeds, *towers = model(**inputs, return_dict=False)
result = [logits_per_image, logits_per_text, text_embeds, image_embeds, towers[0][0], towers[1][1]]
