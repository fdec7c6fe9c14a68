"""CTC viewer and error browser (notebook 04): what a recogniser emits, writes, nearly wrote, and got wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from itertools import cycle, groupby
from operator import itemgetter

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kdkit.common.errors import TextError
from kdkit.lessons import plots
from kdkit.lessons.plots.speech import draw_emissions
from kdkit.lessons.widgets import drawing
from kdkit.lessons.widgets.panel import Panel, choice, marked_edits, player, slider
from kdkit.recognition.decode import BeamSearch
from kdkit.recognition.evaluate import Emissions, evaluate
from kdkit.recognition.network import Network
from kdkit.recognition.transcribe import Word, locate_words
from kdkit.recognition.wer import Score, word_edits
from kdkit.speech.audio import read_audio
from kdkit.speech.manifest import Utterance

ORDERS = ("as given", "worst first", "best first")


class CTCViewer(Panel):
    """Emissions, blanks, best path, alternatives of a beam search and word times of one utterance after the other.

    ``recognisers``: {name: network}. ``search``: a :class:`kdkit.recognition.decode.BeamSearch` for the alternatives,
    or None. The utterances come ``as given`` or by their share of wrong words; ``place`` 1 is the first of them.
    """

    title = "CTC viewer"

    def __init__(
        self,
        recognisers: Mapping[str, Network],
        utterances: Sequence[Utterance],
        search: BeamSearch | None = None,
    ):
        self.recognisers, self.speech, self.search = dict(recognisers), list(utterances), search
        # all: no wait later
        self._heard = {name: self._hear(network) for name, network in self.recognisers.items()}
        super().__init__(
            recogniser=choice("recogniser", list(self.recognisers)),
            order=choice("order", ORDERS),
            place=slider("utterance", 1, 1, len(self.speech)),
            words_of=choice("word times of", ["hypothesis", "reference"]),
        )

    def _hear(self, network: Network) -> tuple[Emissions, Score]:
        found = evaluate(network, self.speech)
        return found.emissions, found.score

    def heard(self) -> tuple[Emissions, Score]:
        """Emissions and greedy score of the chosen recogniser on all utterances."""
        return self._heard[self.state["recogniser"]]

    @property
    def index(self) -> int:
        """The chosen utterance, counted as given."""
        _, result = self.heard()
        rates = np.divide(result.word_errors, np.maximum(1, result.word_counts))
        order = np.arange(len(rates))
        if self.state["order"] != "as given":
            order = np.argsort(-rates if self.state["order"] == "worst first" else rates, kind="stable")
        return int(order[min(self.state["place"], len(order)) - 1])

    @property
    def hypothesis(self) -> str:
        return self.heard()[1].hypotheses[self.index]

    def alternatives(self) -> list[tuple[str, float]]:
        """What the beam search would write, best first, with its scores; empty without a search."""
        found, _ = self.heard()
        if self.search is None:
            return []
        return self.search.alternatives(found.log_probs[self.index], vocabulary=found.vocabulary)

    def word_times(self) -> list[Word]:
        """When the words of hypothesis or reference are said, by the best path that spells them; empty if none can."""
        found, result = self.heard()
        texts = result.hypotheses if self.state["words_of"] == "hypothesis" else result.references
        try:
            return locate_words(found.log_probs[self.index], texts[self.index], vocabulary=found.vocabulary)
        except TextError:  # more letters than frames
            return []

    def layout(self) -> Figure:
        figure = self.paper(5.6, 5.6)
        left, right = (0.13, 0.97) if self.narrow else (0.06, 0.985)
        grid = figure.add_gridspec(
            3, 1, height_ratios=(5, 1.2, 0.55), left=left, right=right, top=0.93, bottom=0.09, hspace=0.12
        )
        top, middle, low = (figure.add_subplot(place) for place in grid)
        middle.set(ylabel="blank (%)", ylim=(-5, 140), yticks=(0, 50, 100))
        low.set(xlabel="time (s)", yticks=[], ylim=(0, 1))
        low.set_ylabel("words", fontsize=9)
        for axes in (top, middle):
            axes.tick_params(labelbottom=False)
        for axes, left in ((top, 34), (middle, 34), (low, 8)):
            drawing.place_labels(axes, left)
        return figure

    def draw(self, top: Axes, middle: Axes, low: Axes) -> None:
        found, _ = self.heard()
        utterance, vocabulary = found.utterances[self.index], found.vocabulary
        probabilities = found.log_probs[self.index].exp().numpy()
        best = probabilities.argmax(1)
        used = sorted(
            {vocabulary.blank, *best.tolist(), *np.flatnonzero(probabilities.max(0) > 0.05).tolist()}
        )
        draw_emissions(top, probabilities[:, used], [vocabulary[k] for k in used], utterance.phones)
        seconds = 0.0125 + 0.02 * np.arange(len(probabilities))
        middle.plot(seconds, 100 * probabilities[:, vocabulary.blank], color=plots.BLUE)
        size, heights = (7, cycle((105, 122))) if self.narrow else (9, cycle((108,)))
        for symbol, times in groupby(zip(seconds, best.tolist(), strict=True), key=itemgetter(1)):
            if symbol != vocabulary.blank:  # frames of the same letter in a row are one letter
                place = np.mean([t for t, _ in times]), next(heights)
                middle.text(*place, vocabulary[symbol], ha="center", fontsize=size)
        drawing.draw_words(low, self.word_times(), size)
        for axes in (middle, low):
            axes.set_xlim(top.get_xlim())

    def words(self) -> str:
        found, result = self.heard()
        i, utterance = self.index, found.utterances[self.index]
        marked = marked_edits(word_edits(result.references[i], result.hypotheses[i]))
        wrong = f"{result.word_errors[i]} of {result.word_counts[i]} words wrong"
        lines = [
            f"<b>{escape(utterance.id)}</b>, {escape(utterance.speaker)}: {wrong}; all: {escape(str(result))}",
            f"said, and in colour what was written instead: {marked}",
        ]
        rows = "".join(
            f"<tr><td>{escape(text) or '(nothing)'}</td><td>{value:.1f}</td></tr>"
            for text, value in self.alternatives()
        )
        if rows:
            lines.append(f"<table><tr><th>beam search would write</th><th>score</th></tr>{rows}</table>")
        return "<br>".join(lines) + player(read_audio(utterance.audio))

    def alt(self) -> str:
        found, result = self.heard()
        return (
            f"CTC viewer: {self.state['recogniser']} on {found.utterances[self.index].id}. "
            f"Said: “{result.references[self.index]}”. Written: “{self.hypothesis}”."
        )
