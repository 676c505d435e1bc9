"""Containers of audio: for each, what its header promises, compared with what the file holds."""
