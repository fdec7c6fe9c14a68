"""From hidden states to words: CTC, fine-tuning, decoding, scores, transcripts."""
