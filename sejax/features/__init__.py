"""Acoustic features of utterances. Nothing here imports jax: worker processes start with it."""
