from transformers import SiglipConfig, SiglipModel, SiglipTextConfig, SiglipVisionConfig

sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
text = SiglipTextConfig(vocab_size=100, max_position_embeddings=16, **sizes)
vision = SiglipVisionConfig(image_size=32, patch_size=8, **sizes)
config = SiglipConfig(text_config=text, vision_config=vision)
config.save_pretrained(OUT)
again = SiglipConfig.from_pretrained(OUT)
model = SiglipModel(again)
result = [
    model.num_parameters(),
    again.text_config.to_dict()["hidden_size"],
    again.vision_config.to_dict()["patch_size"],
    SiglipVisionConfig.from_pretrained(OUT).num_hidden_layers,
    model.config.text_config.model_type,
]
