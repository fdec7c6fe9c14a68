"""Corpora: where speech comes from. All of them end as a list of utterances (kdkit.speech.manifest)."""
