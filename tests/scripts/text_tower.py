import torch
from transformers import AutoTokenizer, SiglipTextModel

model = SiglipTextModel.from_pretrained(MODEL)
tokenizer = AutoTokenizer.from_pretrained(MODEL)
inputs = tokenizer(["a photo of a cat"], padding="max_length", return_tensors="pt")
with torch.no_grad():
    outputs = model(**inputs)
result = [outputs.last_hidden_state, outputs.pooler_output, list(outputs.keys())]
