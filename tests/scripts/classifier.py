import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification

processor = AutoImageProcessor.from_pretrained(CLASSIFIER)
model = AutoModelForImageClassification.from_pretrained(CLASSIFIER)
inputs = processor(Image.open(PICTURES[2]).convert("RGB"), return_tensors="pt")
with torch.no_grad():
    logits = model(**inputs).logits
result = [logits, model.config.id2label[logits.argmax(-1).item()], model.config.num_labels]
