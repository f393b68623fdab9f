import torch
from transformers import AutoModel, AutoTokenizer

model = AutoModel.from_pretrained(MODEL)
tokenizer = AutoTokenizer.from_pretrained(MODEL)
inputs = tokenizer(["a photo of a cat", "a photo of a dog"], padding="max_length", truncation=True, return_tensors="pt")
with torch.no_grad():
    features = model.get_text_features(**inputs).pooler_output
result = [features, inputs["input_ids"]]
