"""What audio files are made of, and how they break."""
