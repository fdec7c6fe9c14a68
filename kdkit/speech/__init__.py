"""Speech on its way to a model: audio, manifests, text, batches."""
