"""The joint model: an encoder per stream, self-attention, co-attention, pooling, fusion and two heads (Flax Linen)."""
