"""The speech model: front-end, encoder, checkpoints, costs."""
