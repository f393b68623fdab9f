import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModel

model = AutoModel.from_pretrained(MODEL).eval()
processor = AutoImageProcessor.from_pretrained(MODEL)
inputs = processor(images=[Image.open(path) for path in PICTURES], return_tensors="pt")
with torch.no_grad():
    features = model.get_image_features(**inputs).pooler_output
features = features / features.norm(p=2, dim=-1, keepdim=True)
result = features @ features.T
