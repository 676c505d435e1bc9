"""Pretrained speech models in Flax: families, checkpoints, hidden states as features, and fine-tuning."""

MODES = ("frozen", "lora", "full")
"""How a checkpoint inside the joint model is fine-tuned: `finetune.Tuning.mode`."""

STREAMS = {
    "hubert": "facebook/hubert-base-ls960",
    "wav2vec2": "facebook/wav2vec2-base",
    "wavlm": "microsoft/wavlm-base",
    "whisper": "openai/whisper-base",
}
"""The streams of pretrained models and the checkpoint of each, unless the config names another."""

CONTEXTS = ("utterance", "padded")
"""What a frame may see; `base.Backbone.CONTEXTS` says which of them a family has."""

LORA_TARGETS = ("q_proj", "k_proj", "v_proj", "out_proj", "intermediate", "output")
"""The linear layers of a Transformer layer that can have adapters, named alike in every family: `base.Lora.targets`."""
