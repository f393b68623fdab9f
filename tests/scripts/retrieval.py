import torch
from PIL import Image
from torch.utils.data import DataLoader
from transformers import AutoModel, AutoProcessor

model = AutoModel.from_pretrained(MODEL)
processor = AutoProcessor.from_pretrained(MODEL)
loader = DataLoader(PICTURES, batch_size=4, collate_fn=lambda paths: processor(
    images=[Image.open(path).convert("RGB") for path in paths], return_tensors="pt"))  # fmt: skip
with torch.no_grad():
    images = torch.cat([model.get_image_features(**batch).pooler_output for batch in loader])
    length = model.config.text_config.max_position_embeddings
    query = processor(
        text=["a circle"], padding="max_length", max_length=length, truncation=True, return_tensors="pt"
    )  # fmt: skip
    text = model.get_text_features(**query).pooler_output
scores = torch.nn.functional.cosine_similarity(text, images)
result = [scores, scores.topk(3).indices]
