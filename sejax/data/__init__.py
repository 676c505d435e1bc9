"""From a corpus to arrays: features are computed, stored in shards (TFDS, array_record), and read in batches."""
