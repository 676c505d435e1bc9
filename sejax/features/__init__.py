"""Acoustic features of utterances. This package does not import jax, because worker processes import it."""
