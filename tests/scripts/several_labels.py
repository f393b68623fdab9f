import torch
from PIL import Image
from transformers import AutoImageProcessor, SiglipForImageClassification

model = SiglipForImageClassification.from_pretrained(CLASSIFIER, problem_type="multi_label_classification")
processor = AutoImageProcessor.from_pretrained(CLASSIFIER)
inputs = processor(images=[Image.open(path) for path in PICTURES[:2]], return_tensors="pt")
outputs = model(**inputs, labels=torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]]))
outputs.loss.backward()
result = [outputs.loss, torch.sigmoid(outputs.logits), model.classifier.weight.grad]
