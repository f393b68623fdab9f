import torch
from transformers import AutoConfig, AutoModel, AutoProcessor

model = AutoModel.from_pretrained(MODEL)
model.save_pretrained(OUT, max_shard_size="2MB", safe_serialization=True)
AutoProcessor.from_pretrained(MODEL).save_pretrained(OUT)
again = AutoModel.from_pretrained(OUT)
config = AutoConfig.from_pretrained(OUT)
ids = AutoProcessor.from_pretrained(OUT)(text="a cat", padding="max_length", return_tensors="pt").input_ids
equal = [torch.equal(one, other) for one, other in zip(model.parameters(), again.parameters(), strict=True)]
result = [all(equal), len(equal), config.model_type, config.vision_config.image_size, ids]
