import torch
from PIL import Image
from transformers import AutoModel, AutoProcessor

model = AutoModel.from_pretrained(MODEL)
processor = AutoProcessor.from_pretrained(MODEL)
texts = ["a red square", "a blue circle"]
inputs = processor(text=texts, images=Image.open(PICTURES[0]), padding="max_length", return_tensors="pt")
with torch.no_grad():
    outputs = model(**inputs)
result = torch.sigmoid(outputs.logits_per_image)
