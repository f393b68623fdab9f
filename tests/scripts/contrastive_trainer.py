from PIL import Image
from transformers import AutoModel, AutoProcessor

from transformers import Trainer, TrainingArguments  # isort: skip

model = AutoModel.from_pretrained(MODEL)
processor = AutoProcessor.from_pretrained(MODEL)
pairs = [{"image": path, "text": f"picture number {number}"} for number, path in enumerate(PICTURES)]


def collate(rows):
    images = [Image.open(row["image"]) for row in rows]
    inputs = processor(text=[row["text"] for row in rows], images=images, padding="max_length", return_tensors="pt")
    return {**inputs, "return_loss": True}


arguments = TrainingArguments(
    output_dir=OUT,
    learning_rate=1e-4,
    per_device_train_batch_size=4,
    per_device_eval_batch_size=4,
    max_steps=3,
    logging_steps=1,
    gradient_checkpointing=True,
    remove_unused_columns=False,
    report_to="none",
    disable_tqdm=True,
    use_cpu=True,
    seed=1,
)
trainer = Trainer(model=model, args=arguments, train_dataset=pairs, eval_dataset=pairs, data_collator=collate)
trainer.train()
losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
model.save_pretrained(OUT)
inputs = processor(text=["a bird"], images=Image.open(PICTURES[0]), padding="max_length", return_tensors="pt")
again = AutoModel.from_pretrained(OUT)
result = [losses, trainer.evaluate()["eval_loss"], again(**inputs).logits_per_image.detach()]
