"""Your own voice beside a synthetic one that says the same text: what both panels of it share."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from itertools import count
from pathlib import Path

import ipywidgets
import numpy as np
import torch
from torch import Tensor

from kdkit.common.errors import ConfigError, KdkitError
from kdkit.common.files import writing
from kdkit.lessons.widgets.panel import Panel, choice, named, player
from kdkit.lessons.widgets.recorder import Recorder
from kdkit.speech.audio import read_audio, write_audio
from kdkit.speech.corpora.synthetic.saying import say
from kdkit.speech.corpora.synthetic.voices import SPEAKERS
from kdkit.speech.frames import SAMPLE_RATE
from kdkit.speech.recording import Recording, at_level_of, check_recording
from kdkit.speech.stream import blocks_of_array

VOICES = {speaker.variant: speaker for speaker in SPEAKERS["test-clean"]}  # never heard in training
SHOWN = ("f4", "rob", "linda", "Storm")
STAND_IN = "steph3"  # speaks where nobody has recorded anything, as in the report
USUAL = "we saw the old boat on monday"  # where the text that is wished for cannot be said
_LONGEST_TEXT = 200  # characters


@dataclass(frozen=True)
class Said:
    """Somebody's words: ``who``, ``wave`` (samples,), where they are known ``phones``: (start in seconds, symbol)."""

    who: str
    wave: Tensor
    phones: tuple[tuple[float, str], ...] = ()

    @property
    def seconds(self) -> float:
        return len(self.wave) / SAMPLE_RATE


class OwnVoice(Panel):
    """A recorder, a text and a synthetic voice that says it; until something is recorded, another synthetic voice
    stands in.

    ``text``: what to say first, if an English voice can; then what the synthetic voice says. ``own``, ``synthetic``:
    the two voices. ``folder``: where *Save* writes; nothing is written before. ``use`` takes a file or samples without
    the page, ``save`` and ``forget`` do what the buttons do. A subclass writes ``listen``.
    """

    def __init__(self, text: str, folder: str | Path, **controls: ipywidgets.ValueWidget):
        self.folder, self.recording = Path(folder), None
        self.recorder = Recorder(self._recorded, self.save, self.forget)
        line = ipywidgets.Text(value=text, description="text", continuous_update=False)
        line.layout.width = "min(34rem, 100%)"
        super().__init__(
            text=named(line, "what you say, and the synthetic voice too"),
            voice=choice("synthetic voice", SHOWN),
            **controls,
        )
        try:
            self._speak()
        except KdkitError:  # another language, no transcript at hand
            self.update(text=USUAL)

    # --- what a subclass writes -------------------------------------------------------------------------------

    def listen(self) -> None:
        """Hook: one of the voices is new; computes what all states of the controls draw."""

    # --- the two voices ---------------------------------------------------------------------------------------

    @property
    def recorded(self) -> bool:
        return self.recording is not None

    def use(self, audio: str | Path | np.ndarray | Tensor, rate: float = SAMPLE_RATE) -> str:
        """Takes an audio file (a path), or samples (n,) with their rate in Hz, as a recording.

        Returns what is said of it. Raises :class:`KdkitError` for what cannot be read or used; then the recording
        before it stays.
        """
        wave = read_audio(audio) if isinstance(audio, (str, Path)) else _at_16k(audio, rate)
        said = self._take(check_recording(wave))
        self.recorder.answer(lambda: said)
        return said

    def save(self, path: str | Path | None = None) -> str:
        """Writes the recording, as it was recorded but for the silence around it, as wav; returns a sentence that says
        where. Raises :class:`ConfigError` where there is none.
        """
        if not self.recorded:
            raise ConfigError("nothing has been recorded yet, so there is nothing to save")
        numbered = (self.folder / f"own_voice_{n}.wav" for n in count(1))
        path = next(p for p in numbered if not p.exists()) if path is None else Path(path)
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        write_audio(path, self.recording.wave)
        return f"Saved as {path.resolve()}, on the machine of the kernel."

    def forget(self) -> str:
        """Drops the recording; the stand-in speaks again."""
        self.recording = None
        self._renewed()
        self.redraw()
        return "Forgotten; a synthetic voice stands in again."

    def _recorded(self, samples: np.ndarray, rate: float, seconds: float) -> str:
        return self._take(check_recording(_at_16k(samples, rate), seconds))

    def _take(self, recording: Recording) -> str:
        self.recording = recording
        self._renewed()
        self.redraw()
        kept = "It is in the kernel's memory only, until you press Save."
        return " ".join([f"{recording.seconds:.1f} s of speech.", *recording.notes, kept])

    def _speak(self) -> str:
        """The synthetic voice and the stand-in say the text."""
        text = self.state["text"]
        if len(text) > _LONGEST_TEXT:
            raise ConfigError(
                f"the text has {len(text)} characters; give a sentence, {_LONGEST_TEXT} at most"
            )
        self.synthetic, self._stand_in = self._say(text, self.state["voice"]), self._say(text, STAND_IN)
        self.text = text
        self._renewed()
        return f"{self.synthetic.who} says the text. Record it in your own voice, or choose a file."

    @staticmethod
    def _say(text: str, voice: str) -> Said:
        wave, phones = say(text, VOICES[voice])
        return Said(f"synthetic voice {voice}", torch.from_numpy(wave), tuple(phones))

    def _renewed(self) -> None:
        self.own = self._stand_in
        if self.recorded:
            self.own = Said("your voice", at_level_of(self.recording.wave, self.synthetic.wave))
        self.recorder.has_sound = self.recorded
        self.listen()

    def changed(self, name: str) -> None:
        if name in ("text", "voice"):
            self.recorder.answer(self._speak)

    # --- what is shown ----------------------------------------------------------------------------------------

    def extra(self) -> list[ipywidgets.Widget]:
        return [self.recorder]

    def players(self) -> str:
        """HTML with the sound of the synthetic voices. That of a recording stays out of the notebook: the recorder's
        own player has it.
        """
        spoken = [self.synthetic] if self.recorded else [self.own, self.synthetic]
        return "".join(player(said.wave, label=f"{said.who}:") for said in spoken)

    def sentence(self) -> str:
        """What the picture says, in a sentence."""
        raise NotImplementedError

    def words(self) -> str:
        return f"{escape(self.sentence())}{self.players()}"


def _at_16k(samples, rate: float) -> Tensor:
    return torch.from_numpy(np.concatenate(list(blocks_of_array(samples, rate))).astype(np.float32))
