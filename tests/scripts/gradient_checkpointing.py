from PIL import Image
from transformers import AutoModel, AutoProcessor

model = AutoModel.from_pretrained(MODEL)
model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
model.config.use_cache = False
model.train()
processor = AutoProcessor.from_pretrained(MODEL)
images = [Image.open(path) for path in PICTURES[:2]]
inputs = processor(text=["one", "two"], images=images, padding="max_length", return_tensors="pt")
loss = model(**inputs, return_loss=True).loss
loss.backward()
result = [loss.item(), model.text_model.encoder.layers[0].mlp.fc1.weight.grad]
