"""Published emotion models: a pretrained model and the head with which it was fine-tuned, one module per kind of head.

- `linear`: the heads of transformers, and the dimensional one that is as common.
- `odyssey`: the baselines of the Odyssey 2024 challenge.
- `vox_profile`: the emotion models of Vox-Profile.
"""
