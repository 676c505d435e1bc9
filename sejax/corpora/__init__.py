"""Corpora on disk, read into lists of utterances."""
