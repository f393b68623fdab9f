import torch
from datasets import Dataset, Image
from transformers import AutoImageProcessor, SiglipVisionModel

columns = {"image": PICTURES, "label": [number % 3 for number in range(len(PICTURES))]}
rows = Dataset.from_dict(columns).cast_column("image", Image())
processor = AutoImageProcessor.from_pretrained(MODEL)
model = SiglipVisionModel.from_pretrained(MODEL).eval()


def transforms(batch):
    inputs = processor([picture.convert("RGB") for picture in batch["image"]], return_tensors="pt")
    inputs["labels"] = batch["label"]
    return inputs


def embed(batch):
    with torch.no_grad():
        return {"vector": model(**processor(batch["image"], return_tensors="pt")).pooler_output.numpy()}


shown = rows.with_transform(transforms)[:3]
vectors = rows.map(embed, batched=True, batch_size=4, remove_columns=["image"])["vector"]
result = [shown["pixel_values"], shown["labels"], torch.tensor(vectors[:])]
