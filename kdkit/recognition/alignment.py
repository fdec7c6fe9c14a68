"""Where the words of a text are in a recogniser's emissions: the best CTC path that spells it.

Phone times for speech that has only a transcript (LibriSpeech): estimates, by forced alignment.

1. A recogniser of letters gives log-probabilities every 20 ms: torchaudio's alignment bundle (MMS_FA, downloaded), or a
   recogniser of kdkit's.
2. The most probable path through the letters of the transcript tells where each word begins and ends.
3. The phones of a word are eSpeak NG's, with eSpeak's durations, stretched to the word.

On synthetic speech, where phone times are exact, this can be judged: :func:`agreement`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
import torchaudio
import torchaudio.functional as AF
from torch import Tensor
from torchaudio.functional import TokenSpan
from tqdm import tqdm

from kdkit.common.downloads import download
from kdkit.common.errors import KdkitError, TextError
from kdkit.common.files import cache_folder
from kdkit.speech.audio import SAMPLE_RATE, read_audio
from kdkit.speech.corpora.synthetic import espeak
from kdkit.speech.corpora.synthetic.phones import SILENCE, normalise
from kdkit.speech.frames import HOP, RECEPTIVE_FIELD, num_frames
from kdkit.speech.manifest import Utterance, frame_phones
from kdkit.speech.text import Vocabulary, frames_needed
from kdkit.speech.transcripts import clean


def frame_time(frame: int) -> float:
    """Where a frame begins, in seconds. It hears samples 320 t to 320 t + 400 and stands for the 20 ms around their
    middle, from 320 t + 40 on; before that the frame before it is nearer.
    """
    return (HOP * frame + (RECEPTIVE_FIELD - HOP) / 2) / SAMPLE_RATE


def timed_words(
    log_probs: Tensor, words: Sequence[str], vocabulary: Vocabulary, start: int = 0
) -> list[tuple[float, float, float]]:
    """(start, end, score) of each word, in seconds, by :func:`word_spans`: from its first letter to its last, and the
    mean probability of its letters. ``start``: frames that went before (T, V)."""
    return [
        (
            frame_time(start + spans[0].start),
            frame_time(start + spans[-1].end),
            sum(span.score for span in spans) / len(spans),
        )
        for spans in word_spans(log_probs, words, vocabulary)
    ]


def word_spans(log_probs: Tensor, words: Sequence[str], vocabulary: Vocabulary) -> list[list[TokenSpan]]:
    """For each word the spans of its letters, on the best path through log-probabilities (T, V) that spells them all.

    A span has ``start`` and ``end`` (frames) and ``score``, the mean probability of its letter. Raises
    :class:`TextError` for characters outside the vocabulary, and for words that do not fit into so many frames.
    """
    spelled = [vocabulary.encode(word) for word in words]
    between = [] if vocabulary.boundary is None else [vocabulary.boundary]
    numbers = [n for i, word in enumerate(spelled) for n in [*(between if i else ()), *word]]
    if not numbers:
        return []
    if frames_needed(numbers) > len(log_probs):
        raise TextError(f"{len(numbers)} letters do not fit into {len(log_probs)} frames")
    targets = torch.tensor([numbers], dtype=torch.int32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchaudio announces its own future
        path, scores = AF.forced_align(log_probs[None].contiguous(), targets, blank=vocabulary.blank)
        spans = iter(AF.merge_tokens(path[0], scores[0].exp(), blank=vocabulary.blank))
    found = []
    for i, word in enumerate(spelled):
        if i and between:
            next(spans)
        found.append([next(spans) for _ in word])
    return found


_MARGIN = 0.04  # seconds that a word is longer than its letters' peaks, on either side where there is room


@dataclass(frozen=True)
class Aligner:
    """A model of letters: ``log_probs(wave (S,)) -> (T, symbols)``; ``name`` says where the times come from."""

    name: str
    log_probs: Callable[[Tensor], Tensor]
    vocabulary: Vocabulary


def bundle_aligner(name: str = "MMS_FA", device: torch.device | str = "cpu") -> Aligner:
    """torchaudio's forced-alignment bundle (1.2 GB, downloaded on first use; its weights are CC-BY-NC 4.0)."""
    bundle = getattr(torchaudio.pipelines, name)
    folder = cache_folder() / "aligners" / name
    download(bundle._path, folder / bundle._path.rsplit("/", 1)[1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchaudio announces its own future
        model = bundle.get_model(
            with_star=False, dl_kwargs={"model_dir": str(folder), "weights_only": True}
        ).to(device)

    @torch.inference_mode()
    def log_probs(wave: Tensor) -> Tensor:
        return model(wave[None].to(device))[0][0].cpu()

    return Aligner(f"torchaudio's {name}", log_probs, Vocabulary(bundle.get_labels(star=None), boundary=None))


def recogniser_aligner(recogniser, name: str = "kdkit's recogniser") -> Aligner:
    """A :class:`kdkit.recognition.ctc.CTCModel` as the model of letters."""
    device = next(recogniser.parameters()).device

    @torch.inference_mode()
    def log_probs(wave: Tensor) -> Tensor:
        logits, _ = recogniser.eval()(wave[None].to(device), torch.tensor([len(wave)], device=device))
        return logits[0].float().log_softmax(-1).cpu()

    return Aligner(name, log_probs, recogniser.vocabulary)


def word_times(log_probs: Tensor, words: Sequence[str], aligner: Aligner) -> list[tuple[float, float]]:
    """Start and end of each word in seconds. Raises :class:`KdkitError` when the words cannot be in that sound."""
    unknown = aligner.vocabulary.outside(" ".join(words))
    if unknown or not words:
        raise KdkitError(f"letters that {aligner.name} does not know: {unknown}" if unknown else "no words")
    peaks = [(start, end) for start, end, _ in timed_words(log_probs, words, aligner.vocabulary)]
    times, end = [], frame_time(len(log_probs))
    for i, (start, stop) in enumerate(peaks):
        before = start - peaks[i - 1][1] if i else 2 * start
        after = peaks[i + 1][0] - stop if i + 1 < len(peaks) else 2 * (end - stop)
        # words that follow at once share what lies between their peaks
        times.append((start - min(_MARGIN, before / 2), stop + min(_MARGIN, after / 2)))
    return times


@lru_cache(maxsize=100_000)
def pronunciation(word: str) -> tuple[tuple[float, str], ...]:
    """eSpeak's phones of a word, each with the share of the word's length that lies before it."""
    wave, events = espeak.synthesise(word, "en-us")
    spoken = [(sample, normalise(ipa)) for sample, ipa in events]
    first = next((i for i, (_, symbol) in enumerate(spoken) if symbol), None)
    if first is None:
        raise KdkitError(f"eSpeak NG has no phones for {word!r}")
    last = max(i for i, (_, symbol) in enumerate(spoken) if symbol)
    begin = spoken[first][0]
    end = spoken[last + 1][0] if last + 1 < len(spoken) else len(wave)
    return tuple(((sample - begin) / (end - begin), symbol) for sample, symbol in spoken[first : last + 1])


def estimate_phones(utterance: Utterance, aligner: Aligner) -> Utterance:
    """The utterance with estimated phone times."""
    words = clean(utterance.text, vocabulary=aligner.vocabulary).split()
    phones, now = [(0.0, SILENCE)], 0.0
    for word, (start, end) in zip(
        words, word_times(aligner.log_probs(read_audio(utterance.audio)), words, aligner), strict=True
    ):
        if start - now > HOP / SAMPLE_RATE:
            phones.append((round(now, 4), SILENCE))
        phones += [(round(start + share * (end - start), 4), symbol) for share, symbol in pronunciation(word)]
        now = end
    return replace(utterance, phones=(*phones, (round(now, 4), SILENCE)))


def add_phones(utterances: Sequence[Utterance], aligner: Aligner) -> list[Utterance]:
    """Utterances with phone times: their own, or estimates; those that cannot be aligned stay as they are.

    Prints how many were estimated, by what, and the first that failed.
    """
    done, failed = [], []
    for utterance in tqdm(utterances, desc="aligning", unit="utt", mininterval=1.0):
        try:
            done.append(utterance if utterance.phones else estimate_phones(utterance, aligner))
        except KdkitError as error:
            failed.append(f"{utterance.id}: {error}")
            done.append(utterance)
    estimated = sum(bool(new.phones) and not old.phones for new, old in zip(done, utterances, strict=True))
    print(
        f"phone times of {estimated} utterances are estimates: letters aligned by {aligner.name}, phones by eSpeak NG"
    )
    if failed:
        print(f"{len(failed)} could not be aligned, the first: {failed[0]}")
    return done


def agreement(exact: Sequence[Utterance], estimated: Sequence[Utterance]) -> float:
    """Share of the frames that are speech in ``exact`` whose estimated phone is the same."""
    same = total = 0
    for truth, guess in zip(exact, estimated, strict=True):
        frames = num_frames(round(truth.duration * 16_000))
        for a, b in zip(frame_phones(truth, frames), frame_phones(guess, frames), strict=True):
            same, total = same + (a == b and a != SILENCE), total + (a != SILENCE)
    return same / max(1, total)
