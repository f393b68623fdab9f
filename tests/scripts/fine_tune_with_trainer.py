import numpy as np
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification

from transformers import Trainer, TrainingArguments, set_seed  # isort: skip

set_seed(0)
labels = ["bird", "fish", "plant"]
processor = AutoImageProcessor.from_pretrained(CLASSIFIER)
model = AutoModelForImageClassification.from_pretrained(
    CLASSIFIER, label2id={name: str(i) for i, name in enumerate(labels)}, id2label=dict(enumerate(labels))
)


class Pictures(torch.utils.data.Dataset):
    def __len__(self):
        return len(PICTURES)

    def __getitem__(self, index):
        inputs = processor(Image.open(PICTURES[index]), return_tensors="pt")
        return {"pixel_values": inputs["pixel_values"][0], "labels": index % 3}


def compute_metrics(prediction):
    logits, answers = prediction
    return {"accuracy": float((np.argmax(logits, axis=1) == answers).mean())}


arguments = TrainingArguments(
    output_dir=OUT,
    learning_rate=1e-3,
    per_device_train_batch_size=4,
    num_train_epochs=2,
    weight_decay=0.01,
    logging_steps=1,
    eval_strategy="epoch",
    save_strategy="epoch",
    load_best_model_at_end=True,
    metric_for_best_model="accuracy",
    remove_unused_columns=False,
    report_to="none",
    disable_tqdm=True,
    use_cpu=True,
)
trainer = Trainer(
    model=model,
    args=arguments,
    train_dataset=Pictures(),
    eval_dataset=Pictures(),
    processing_class=processor,
    compute_metrics=compute_metrics,
)
trainer.train()
predictions = trainer.predict(Pictures())
losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
# what the Trainer saves of a model that is not of its own library is the weights, which a configuration makes whole
middle = AutoModelForImageClassification.from_pretrained(f"{OUT}/checkpoint-3", config=model.config)
model.save_pretrained(OUT)
processor.save_pretrained(OUT)
again = AutoModelForImageClassification.from_pretrained(OUT)
inputs = AutoImageProcessor.from_pretrained(OUT)(Image.open(PICTURES[0]), return_tensors="pt")
result = [
    *(losses, predictions.predictions, predictions.metrics["test_accuracy"]),
    *(again(**inputs).logits.detach(), again.config.id2label[1]),
    *(middle(**inputs).logits.detach(), middle.config.id2label[1]),
]
