"""Speech emotion recognition in JAX: discrete and dimensional emotion in one model, evaluated honestly."""
