"""Training: configuration, batches, state on disk and the loop."""
