import torch
from PIL import Image
from transformers import AutoImageProcessor, SiglipTextModel, SiglipVisionModel

vision = SiglipVisionModel.from_pretrained(MODEL)
text = SiglipTextModel.from_pretrained(MODEL)
tables = [vision.get_input_embeddings().weight, text.get_input_embeddings().weight]
vision.requires_grad_(False)


class Adapted(torch.nn.Module):
    """A layer and a change of low rank beside it, which starts as nothing."""

    def __init__(self, base, rank):
        super().__init__()
        self.base = base
        self.down, self.up = (torch.nn.Linear(*size, bias=False) for size in ((48, rank), (rank, 48)))
        torch.nn.init.constant_(self.down.weight, 0.01)
        torch.nn.init.constant_(self.up.weight, 0.02)

    def forward(self, x):
        return self.base(x) + self.up(self.down(x))


for layer in vision.encoder.layers:
    layer.self_attn.q_proj = Adapted(layer.self_attn.q_proj, 4)
    layer.self_attn.v_proj = Adapted(layer.self_attn.v_proj, 4)
pixels = AutoImageProcessor.from_pretrained(MODEL)(Image.open(PICTURES[0]), return_tensors="pt").pixel_values
output = vision(pixels).pooler_output
output.sum().backward()
result = [*tables, output, vision.encoder.layers[0].self_attn.v_proj.up.weight.grad, vision.num_parameters()]
