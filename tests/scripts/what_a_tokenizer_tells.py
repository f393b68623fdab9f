from transformers import AutoProcessor, AutoTokenizer

processor = AutoProcessor.from_pretrained(MODEL)
tokenizer = AutoTokenizer.from_pretrained(MODEL)
texts = ["a photo of two cats", "the sea!"]
inputs = processor(
    text=texts, padding="max_length", truncation=True, max_length=64, return_tensors="pt", add_special_tokens=True,
    return_attention_mask=False,
)  # fmt: skip
result = [
    processor.batch_decode(inputs["input_ids"], skip_special_tokens=True),
    tokenizer.decode(inputs.input_ids[0], skip_special_tokens=True),
    *(tokenizer.vocab_size, len(tokenizer), tokenizer.model_max_length, len(tokenizer.get_vocab())),
    *(tokenizer.eos_token_id, tokenizer.eos_token, tokenizer.pad_token, tokenizer.padding_side),
    tokenizer.model_input_names,
    tokenizer.encode("two cats"),
    tokenizer.convert_tokens_to_ids(tokenizer.tokenize("two cats")),
]
