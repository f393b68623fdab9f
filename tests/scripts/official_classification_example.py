from PIL import Image
from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageClassification

labels = ["a", "b", "c", "d"]
label2id = {label: str(number) for number, label in enumerate(labels)}
id2label = {str(number): label for number, label in enumerate(labels)}
hub = {"cache_dir": None, "revision": "main", "token": None, "trust_remote_code": False}
config = AutoConfig.from_pretrained(
    MODEL, num_labels=4, label2id=label2id, id2label=id2label, finetuning_task="image-classification", **hub
)
model = AutoModelForImageClassification.from_pretrained(MODEL, config=config, ignore_mismatched_sizes=True, **hub)
processor = AutoImageProcessor.from_pretrained(MODEL, **hub)
size = processor.size["shortest_edge"] if "shortest_edge" in processor.size else processor.size["height"]
logits = model(**processor(Image.open(PICTURES[0]), return_tensors="pt")).logits
result = [size, *model.config.id2label.values(), model.num_labels, logits.shape]
