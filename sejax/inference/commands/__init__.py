"""The commands around a trained model: thin, over `sejax.inference`."""
