import torch
from PIL import Image
from transformers import SiglipModel, SiglipProcessor

model = SiglipModel.from_pretrained(MODEL)
processor = SiglipProcessor.from_pretrained(MODEL)
model.train()
for parameter in model.vision_model.parameters():
    parameter.requires_grad = False
optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=1e-4)
inputs = processor(
    text=[f"number {n}" for n in range(4)], images=[Image.open(p) for p in PICTURES[:4]], padding="max_length",
    return_tensors="pt",
)  # fmt: skip
result = []
for _ in range(3):
    loss = model(**inputs, return_loss=True).loss
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    result.append(loss.item())
