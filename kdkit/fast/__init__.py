"""Faster twins of parts of the models, for GPUs: the same functions, tested against the readable ones."""
