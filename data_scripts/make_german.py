"""A small German corpus, spoken by eSpeak NG: the worked example of another language (docs/languages.md).

    python data_scripts/make_german.py --out data/german
    kdkit finetune tiny-sw-fbank --data data/german/train.jsonl ...

Counted things ("drei äpfel und zwölf bücher"), 23 words with ä, ö, ü and ß; voices of dev and test are not in train. No
phone times: fine-tuning needs none.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import soxr

from kdkit.commands.running import run
from kdkit.speech.audio import write_audio
from kdkit.speech.corpora.synthetic import espeak
from kdkit.speech.corpora.synthetic.voices import SPEAKERS, Speaker
from kdkit.speech.frames import SAMPLE_RATE
from kdkit.speech.manifest import Utterance, write_manifest

NUMBERS = (
    "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun", "zehn", "elf", "zwölf", "zwanzig", "dreißig",
)  # fmt: skip
THINGS = ("äpfel", "bäume", "bücher", "häuser", "schlüssel", "straßen", "türen", "vögel", "wörter")
SPLITS = {"train": "train", "dev": "dev", "test": "test-clean"}  # ours: whose speakers they have


def sentence(rng: random.Random) -> str:
    """One or two counted things."""
    counted = [f"{rng.choice(NUMBERS)} {rng.choice(THINGS)}" for _ in range(rng.randint(1, 2))]
    return " und ".join(counted)


def spoken(text: str, speaker: Speaker, path: Path) -> float:
    """Writes ``text`` in a German voice to ``path``; returns the seconds."""
    wave, _ = espeak.synthesise(text, f"de+{speaker.variant}", speaker.rate, speaker.pitch)
    wave = soxr.resample(wave, espeak.RATE_HZ * speaker.tract, SAMPLE_RATE)
    write_audio(path, wave)
    return len(wave) / SAMPLE_RATE


def make_german(out: Path, minutes: dict[str, float], seed: int = 0) -> dict[str, list[Utterance]]:
    """Audio files and manifests of every split, {split: utterances}."""
    made = {}
    for split, length in minutes.items():
        rng, utterances = random.Random(f"{split}/{seed}"), []
        while sum(u.duration for u in utterances) < 60 * length:
            text, speaker = sentence(rng), rng.choice(SPEAKERS[SPLITS[split]])
            path = out / split / f"{len(utterances):04d}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            seconds = spoken(text, speaker, path)
            utterances.append(Utterance(f"{split}-{len(utterances)}", path, seconds, text, speaker.id))
        write_manifest(out / f"{split}.jsonl", utterances)
        made[split] = utterances
    return made


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("data/german"))
    parser.add_argument("--minutes", type=float, default=6.0, help="of train; dev and test have 1 and 2")
    args = parser.parse_args()
    for split, made in make_german(args.out, {"train": args.minutes, "dev": 1.0, "test": 2.0}).items():
        seconds = sum(u.duration for u in made)
        print(f"{args.out / split}.jsonl: {len(made)} utterances, {seconds / 60:.1f} minutes")


if __name__ == "__main__":
    run(main)
