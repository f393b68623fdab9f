import torch
from PIL import Image
from transformers import pipeline

classify = pipeline(task="zero-shot-image-classification", model=MODEL, dtype=torch.float32, batch_size=4)
found = classify([Image.open(path) for path in PICTURES[:3]], candidate_labels=["penguin", "bicycle", "a pot of tea"])
result = [(row["label"], row["score"]) for rows in found for row in rows]
