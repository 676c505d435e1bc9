"""Wav2Vec 2.0, HuBERT and WavLM in Flax: modules, checkpoints, features and fine-tuning."""

MODES = ("frozen", "lora", "full")
"""How a model inside the joint one is fine-tuned: `finetune.Tuning.mode`."""

LORA_TARGETS = ("q_proj", "k_proj", "v_proj", "out_proj", "intermediate", "output")
"""The linear layers of a Transformer layer that may have adapters: `modules.Lora.targets`."""
