"""The parts of a config as records: the corpus, the streams, the programs. `sejax.build` puts them together."""
