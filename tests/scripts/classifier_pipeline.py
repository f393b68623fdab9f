import torch
from transformers import AutoImageProcessor, AutoModelForImageClassification, pipeline

model = AutoModelForImageClassification.from_pretrained(CLASSIFIER)
processor = AutoImageProcessor.from_pretrained(CLASSIFIER)
classify = pipeline("image-classification", model=model, image_processor=processor, device=-1, dtype=torch.float32)
result = [(row["label"], row["score"]) for rows in classify(PICTURES, top_k=2) for row in rows]
