"""From records to a published index. Writes; never ranks."""
