"""Classical baselines: linear support vector machines on the statistics of utterances, on the folds of a study."""
