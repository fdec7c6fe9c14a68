"""Synthetic speech: sentences, voices, rooms, and exact phone times."""
