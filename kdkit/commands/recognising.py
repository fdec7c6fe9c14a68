"""``kdkit evaluate`` and ``kdkit transcribe``: error rates and transcripts of a recogniser."""

from __future__ import annotations

import json
import os
import sys
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kdkit.commands import app, say_skipped, speech_of
from kdkit.commands.options import Data, Minutes, file_option
from kdkit.common.errors import ConfigError

if TYPE_CHECKING:
    from kdkit.recognition.decode import BeamSearch
    from kdkit.recognition.evaluate import Evaluation
    from kdkit.recognition.network import Network
    from kdkit.speech.text import Vocabulary

Model = Annotated[
    str,
    typer.Argument(
        help="A recogniser: .safetensors or .onnx file, the name of a shipped one, a folder or hub id of a CTC "
        "model of transformers, or an ASR bundle of torchaudio."
    ),
]


@dataclass
class DecodingOptions:
    """How a recogniser runs, and how its output is decoded."""

    lm: Annotated[Path | None, typer.Option("--lm", help="Beam search with this ARPA file (kdkit lm).")] = (
        None
    )
    lexicon: Annotated[
        Path | None,
        typer.Option(help="Beam search over the words of this text file only; default: those of the LM."),
    ] = None
    lm_weight: Annotated[
        float | None, typer.Option(min=0, help="Weight of the LM's log10 probabilities.")
    ] = None
    word_score: Annotated[float, typer.Option(help="Added for every word, with a lexicon.")] = 0.0
    beam: Annotated[int, typer.Option(min=1, help="Hypotheses kept after every frame.")] = 50
    window: Annotated[
        float | None,
        typer.Option(
            min=0.1,
            max=3600,
            help="Seconds of audio in a window; default: the longest utterance of the fine-tuning, 6 if not known.",
        ),
    ] = None
    precision: Annotated[
        str,
        typer.Option(help="fp32, bf16 (for a GPU, or a CPU with AMX or AVX-512 bf16) or int8 (for CPUs)."),
    ] = "fp32"
    jobs: Annotated[int | None, typer.Option(min=1, help="Processes; default: one for each core.")] = None

    def search(self, vocabulary: Vocabulary) -> BeamSearch | None:
        """The beam search, None for greedy decoding; ``vocabulary``: of the recogniser, for the lexicon."""
        from kdkit.recognition.decode import BeamSearch, with_language_model
        from kdkit.recognition.lm import lexicon

        if self.lm is None and self.lm_weight is not None:
            raise ConfigError("--lm-weight goes with a language model: give --lm too")
        if self.lm is None and self.lexicon is None:
            return None
        words = None if self.lexicon is None else lexicon(self.lexicon, vocabulary)
        weights = {"word_score": self.word_score, "beam": self.beam}
        if self.lm is None:
            return BeamSearch(words, **weights)
        return with_language_model(
            self.lm, words, lm_weight=1.0 if self.lm_weight is None else self.lm_weight, **weights
        )


@app.command(
    epilog="Example: kdkit evaluate runs/recogniser/recogniser.safetensors --split test-other --lm lm.arpa"
)
def evaluate(
    recogniser: Model,
    data: Data = None,
    split: Annotated[str, typer.Option(help="Split of the synthetic speech.")] = "test-clean",
    minutes: Minutes = None,
    dev: Annotated[
        Path | None,
        typer.Option(help="Manifest to choose the LM's weights on; default: synthetic dev speech."),
    ] = None,
    errors: Annotated[Path | None, file_option("Write a page to read and hear the errors on (HTML).")] = None,
    examples: Annotated[int, typer.Option(min=0, help="Transcripts to show.")] = 5,
    *,
    decoding: DecodingOptions,
) -> None:
    """Measure the error rates and the speed of a recogniser.

    Word and character error rate with 95 % intervals over utterances and speakers, and the real-time factor from file
    to text. With a language model, beam search is compared with greedy decoding; its weights are tuned on dev speech,
    never on the test speech, unless --lm-weight is given.
    """
    from kdkit.recognition.error_browser import write_error_browser
    from kdkit.recognition.evaluate import evaluate
    from kdkit.recognition.loading import ready_network
    from kdkit.recognition.network import vocabulary_of

    network = ready_network(recogniser, decoding.precision)
    search = decoding.search(vocabulary_of(network))
    speech, name = speech_of(data, split, minutes, 10), str(data or split)
    if decoding.lm and decoding.lm_weight is None:
        search = _tuned(search, network, data, dev, decoding)
    plain = evaluate(network, speech, name=name, window=decoding.window)
    shown = plain if search is None else evaluate(network, plain.emissions, search, decoding.jobs)
    for utterance, text in list(zip(shown.utterances, shown.score.hypotheses, strict=True))[:examples]:
        print(f"said:  {utterance.text}\nheard: {text}\n")
    _print_scores(shown, None if search is None else plain)
    say_skipped(shown.skipped)
    if errors:
        write_error_browser(errors, shown.score, shown.utterances, title=f"{recogniser} on {name}")
        print(f"errors: {errors}")


def _print_scores(shown: Evaluation, greedy: Evaluation | None) -> None:
    """Error rates, speed and confusions; ``greedy``: what a beam search is compared with."""
    from kdkit.recognition.wer import compare, confusions, describe_collapse

    result = shown.score
    if greedy is not None:
        print(f"greedy: {greedy.score}; {greedy.cost}")
    print(f"{'greedy' if greedy is None else 'beam search'}: {result}; {shown.cost}")
    print(
        f"{result.substitutions} substitutions, {result.deletions} deletions, {result.insertions} insertions"
    )
    speakers, unknown = set(filter(None, shown.speakers)), shown.speakers.count("")
    if len(speakers) > 1:
        low, high = shown.speaker_interval()
        print(f"over {len(speakers)} speakers: WER {100 * low:.1f} to {100 * high:.1f} %")
    if unknown:
        print(f"the speakers of {unknown} of {len(shown.speakers)} utterances are unknown")
    if greedy is not None:
        change = compare(result, greedy.score)
        print(f"beam search against greedy: {change.verdict}, {change}")
    pairs = ", ".join(f"{said} as {written} ({times})" for said, written, times in confusions(result)[:5])
    if pairs:
        print(f"most often confused: {pairs}")
    if trouble := describe_collapse(result.hypotheses):
        print(trouble)


@app.command(
    epilog="Example: kdkit transcribe tiny_sw_fbank_distilled_60 talk.mp3 recordings/ --format json --out talks.jsonl"
)
def transcribe(
    recogniser: Model,
    audio: Annotated[
        list[Path], typer.Argument(help="Audio files of any format and length, or folders of them.")
    ],
    format: Annotated[str, typer.Option(help="text, or json: with the times of all words.")] = "text",
    out: Annotated[
        Path | None, file_option("File to write, line by line; default: the standard output.")
    ] = None,
    *,
    decoding: DecodingOptions,
) -> None:
    """Transcribe audio files.

    One line a file: its name, a tab and the text; or a JSON object with words, start, end (seconds) and score (the mean
    probability of the letters, 0 to 1; it is not the probability that the word is right). Files that cannot be read are
    reported and left out. If the command is stopped, finished lines are in OUT.part. Exit status: 0, 1 if files were
    left out, 2 for other errors.
    """
    from kdkit.common.files import GrowingFile
    from kdkit.common.progress import tqdm
    from kdkit.recognition.decode import greedy
    from kdkit.recognition.loading import load_network
    from kdkit.recognition.network import vocabulary_of
    from kdkit.recognition.transcribe import Settings, transcribe_all
    from kdkit.speech.text import VOCABULARY

    if format not in ("text", "json"):
        raise ConfigError(f"--format {format}: choose text or json")
    files, closed = _audio_files(audio)
    # with other encodings the output's escapes would not be valid JSON
    ascii_only = out is None and "utf" not in (sys.stdout.encoding or "utf-8").lower()
    # for the letters of a lexicon; without one the recogniser is loaded only in the processes that transcribe
    vocabulary = VOCABULARY if decoding.lexicon is None else vocabulary_of(load_network(recogniser))
    decoder = decoding.search(vocabulary) or greedy
    settings = Settings(recogniser, decoder, decoding.window, decoding.precision)
    bad = len(closed)
    for reason in closed:
        print(f"left out: {reason}", file=sys.stderr)
    written = nullcontext() if out is None else GrowingFile(out)
    with written, tqdm(total=len(files), desc="transcribing", unit="file") as bar:
        for transcript in transcribe_all(settings, files, decoding.jobs):
            bar.update()
            if transcript.error:
                bad += 1
                tqdm.write(f"left out: {transcript.error}", file=sys.stderr)
                continue
            line = f"{transcript.file}\t{transcript.text}"
            if format == "json":
                line = json.dumps(transcript.to_dict(), ensure_ascii=ascii_only)
            if out is None:
                tqdm.write(line, file=sys.stdout)
            else:
                written.add(line + "\n")
    if out is not None:
        print(f"transcripts: {out}")
    if bad:
        print(f"{bad} of {len(files) + len(closed)} files could not be read", file=sys.stderr)
        raise typer.Exit(1)


def _audio_files(places: list[Path]) -> tuple[list[Path], list[str]]:
    """The files, and the audio files in folders, sorted, without repetition; and why folders cannot be read."""
    from kdkit.speech.audio import ENDINGS
    from kdkit.speech.folders import contents

    found: dict[Path, None] = {}
    closed: list[str] = []
    for place in places:
        if os.path.isdir(place):
            inside = contents(place)
            closed += [f"{path}: {reason}" for path, reason in inside.closed]
            if not inside.audio and not inside.closed:
                raise ConfigError(f"{place}: no audio file in this folder ({', '.join(sorted(ENDINGS))})")
            found |= dict.fromkeys(inside.audio)
        else:
            found[place] = None  # a missing file is reported like an unreadable one
    return list(found), closed


def _tuned(
    search: BeamSearch,
    network: Network,
    data: Path | None,
    dev: Path | None,
    decoding: DecodingOptions,
) -> BeamSearch:
    """``search`` with the weights that are best on the dev speech."""
    from kdkit.recognition.evaluate import emissions, labelled
    from kdkit.recognition.network import vocabulary_of
    from kdkit.recognition.tune import tune

    if data is not None and dev is None:
        raise ConfigError("the LM's weight is chosen on dev speech: give --dev MANIFEST, or --lm-weight")
    speech = labelled(speech_of(dev, "dev", None, 5), "dev", vocabulary_of(network))
    tuned = tune(search, emissions(network, speech, window=decoding.window), jobs=decoding.jobs)
    print(f"chosen on dev: {tuned}")
    return tuned.search
