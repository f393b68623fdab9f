import copy
import pickle
from pathlib import Path

import torch
from PIL import Image
from transformers import AutoModelForZeroShotImageClassification, AutoProcessor

Path(OUT).mkdir(exist_ok=True)
model = AutoModelForZeroShotImageClassification.from_pretrained(MODEL)
torch.save(model.state_dict(), OUT + "/weights.pt")
other = AutoModelForZeroShotImageClassification.from_config(model.config)
found = other.load_state_dict(torch.load(OUT + "/weights.pt", weights_only=True))
other.eval()
torch.save(model, OUT + "/model.pt")
models = [other, copy.deepcopy(model), torch.load(OUT + "/model.pt", weights_only=False)]
inputs = AutoProcessor.from_pretrained(MODEL)(
    text=["a cat"], images=Image.open(PICTURES[0]), padding="max_length", return_tensors="pt"
)
again = pickle.loads(pickle.dumps(inputs))
with torch.no_grad():
    result = [str(found), *(one(**again, position_ids=None).logits_per_image for one in models)]
