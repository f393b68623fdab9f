import torch
from accelerate import Accelerator
from PIL import Image
from transformers import AutoImageProcessor, SiglipForImageClassification

accelerator = Accelerator(cpu=True)
processor = AutoImageProcessor.from_pretrained(CLASSIFIER)
model = SiglipForImageClassification.from_pretrained(CLASSIFIER)
optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
model, optimizer = accelerator.prepare(model, optimizer)
batch = processor([Image.open(path) for path in PICTURES], return_tensors="pt")
batch["labels"] = torch.arange(len(PICTURES)) % 3
model.train()
for _ in range(2):
    loss = model(**batch).loss
    accelerator.backward(loss)
    optimizer.step()
    optimizer.zero_grad()
unwrapped = accelerator.unwrap_model(model)
unwrapped.save_pretrained(
    OUT,
    is_main_process=accelerator.is_main_process,
    save_function=accelerator.save,
    state_dict=accelerator.get_state_dict(model),
)
again = SiglipForImageClassification.from_pretrained(OUT).eval()
result = [loss.item(), again(batch["pixel_values"]).logits]
