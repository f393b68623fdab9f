"""Fine-tune a PaliGemma on captions or answers of your own: --set data.train=ROWS data.held_out=ROWS.

The values are those that the authors found best for COCO captions at 224 pixels (big_vision, the function `sweep_best`
of its configuration): everything learns, 5 passes over 113,287 pictures. Of their weight decay of 1e-6, which is not
multiplied by the learning rate, 0.1 is left here, and the decoder has none. Questions are rows with a prefix such as
"answer en what is on the table?"; 10 passes for VQAv2, 5e-6 for OKVQA. 3 billion parameters take 48 GB with AdamW; with
`trainable=text` the tower and its share of that are left out, and with `trainable=lora optimizer.lr=2e-4` it is 12 GB.
"""

from siglip.training import DataSpec, ModelSpec, OptimizerSpec, TrainConfig


def recipe() -> TrainConfig:
    return TrainConfig(
        task="generation",
        model=ModelSpec(source="google/paligemma-3b-pt-224"),
        data=DataSpec(train="dataset_coco.json#train+restval", held_out="dataset_coco.json#val", workers=8),
        optimizer=OptimizerSpec(
            lr=1e-5, beta1=0.9, beta2=0.999, weight_decay=0.1, text_weight_decay=0.0, warmup_steps=110
        ),
        steps=2_212,
        batch_size=256,
        micro_batch_size=8,
        precision="bfloat16",
        gradient_checkpointing=True,
        evaluate_every=1_106,
    )
