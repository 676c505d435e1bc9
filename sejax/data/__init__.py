"""From a corpus to arrays: feature shards (TFDS, array_record) and what is read back from them."""
