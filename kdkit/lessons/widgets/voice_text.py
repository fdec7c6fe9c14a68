"""Your voice in a recogniser (notebook 04): what it emits, writes, and when, beside a synthetic voice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from kdkit.lessons.plots.speech import draw_emissions
from kdkit.lessons.widgets import drawing
from kdkit.lessons.widgets.own_voice import OwnVoice, Said
from kdkit.lessons.widgets.panel import choice, marked_edits
from kdkit.recognition.decode import greedy, text_of
from kdkit.recognition.network import Network, log_probs_of, vocabulary_of
from kdkit.recognition.transcribe import Word, locate_words
from kdkit.recognition.wer import EQUAL, word_edits
from kdkit.speech.text import Vocabulary
from kdkit.speech.transcripts import clean


@dataclass(frozen=True)
class Heard:
    """What a recogniser makes of a voice: log-probabilities (frames, symbols), the text and its words."""

    who: str
    log_probs: Tensor
    text: str
    words: list[Word]
    edits: list[tuple[str, str, str]]  # (kind, said, written) of each word

    @property
    def errors(self) -> str:
        """ "2 of 7 words wrong"."""
        wrong = sum(kind != EQUAL for kind, _, _ in self.edits)
        return f"{wrong} of {sum(bool(said) for _, said, _ in self.edits)} words wrong"


class VoiceText(OwnVoice):
    """Emissions, text and word times of your voice and of a synthetic one; ``recognisers``: {name: network}."""

    title = "Your voice, written"

    def __init__(self, recognisers: Mapping[str, Network], text: str, folder: str | Path, first: str = ""):
        self.recognisers = dict(recognisers)
        super().__init__(text, folder, recogniser=choice("recogniser", list(self.recognisers), first or None))

    @property
    def vocabulary(self) -> Vocabulary:
        return vocabulary_of(self.recognisers[self.state["recogniser"]])

    def changed(self, name: str) -> None:
        super().changed(name)
        if name == "recogniser":
            self.listen()

    def listen(self) -> None:
        self.heard = [self._hear(said) for said in (self.own, self.synthetic)]

    def _hear(self, said: Said) -> Heard:
        log_probs = log_probs_of(self.recognisers[self.state["recogniser"]], said.wave)
        text = text_of(greedy, log_probs, self.vocabulary)
        words = locate_words(log_probs, text, vocabulary=self.vocabulary)
        reference = clean(self.text, vocabulary=self.vocabulary)
        return Heard(said.who, log_probs, text, words, word_edits(reference, text))

    def layout(self) -> Figure:
        figure = self.paper(7.2, 7.2)
        left, right = (0.13, 0.97) if self.narrow else (0.06, 0.985)
        grid = figure.add_gridspec(2, 1, left=left, right=right, top=0.95, bottom=0.075, hspace=0.2)
        for place in grid:
            rows = place.subgridspec(2, 1, height_ratios=(5, 1.1), hspace=0.05)
            emitted, written = (figure.add_subplot(row) for row in rows)
            emitted.tick_params(labelbottom=False)
            written.set(yticks=[], ylim=(0, 1))
            drawing.place_labels(emitted, 34)
            drawing.place_labels(written, 8)
        written.set_xlabel("time (s)")
        return figure

    def draw(self, *axes: Axes) -> None:
        peaks = np.maximum(*(heard.log_probs.exp().numpy().max(0) for heard in self.heard))
        # the same rows for both
        used = sorted({self.vocabulary.blank, *np.flatnonzero(peaks > 0.1).tolist()})
        symbols = [self.vocabulary[k] for k in used]
        for heard, said, emitted, written in zip(
            self.heard, (self.own, self.synthetic), axes[::2], axes[1::2], strict=True
        ):
            draw_emissions(emitted, heard.log_probs[:, used].exp().numpy(), symbols, said.phones)
            emitted.set_ylabel(heard.who)
            drawing.draw_words(written, heard.words, 7 if self.narrow else 10)
            if not heard.words:
                drawing.say(written, "nothing is written")
        longest = max(said.seconds for said in (self.own, self.synthetic))
        for each in axes:
            each.set_xlim(0, longest)

    def sentence(self) -> str:
        own, synthetic = self.heard
        return f"{self.state['recogniser']} gets {own.errors} from {own.who}, {synthetic.errors} from {synthetic.who}."

    def words(self) -> str:
        return f"{escape(self.sentence())}{self.table()}{self.players()}"

    def table(self) -> str:
        """HTML: what was written of both voices, errors in colour, and the words' times and scores."""
        rows = []
        for heard in self.heard:
            times = ", ".join(
                f"{escape(w.word)} {w.start:.2f} to {w.end:.2f} s ({w.score:.2f})" for w in heard.words
            )
            rows.append(
                f"<tr style='text-align: left; vertical-align: top'><th scope='row'>{escape(heard.who)}</th>"
                f"<td style='padding-left: 1em'>{marked_edits(heard.edits)}"
                f"<br><small>{times or 'nothing'}</small></td></tr>"
            )
        about = f"“{escape(self.text)}” is written as, with times and scores of the words:"
        return f"<table><caption style='text-align: left'>{about}</caption>{''.join(rows)}</table>"

    def alt(self) -> str:
        written = "; ".join(f"{heard.who}: “{heard.text}”, {heard.errors}" for heard in self.heard)
        return f"{self.title}: “{self.text}” by {self.state['recogniser']}. {written}."
