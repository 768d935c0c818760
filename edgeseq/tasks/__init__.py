"""Tasks, one per file: how its data becomes batches, what is minimised, and how success is counted."""
