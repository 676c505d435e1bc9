"""The machine that sejax runs on: worker processes, files written whole, progress bars, words of its messages."""
