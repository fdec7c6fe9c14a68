"""Cuts pieces out of long recordings and writes them as files, because manifests name whole files."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from kdkit.common.errors import AudioError
from kdkit.common.parallel import each
from kdkit.common.progress import tqdm
from kdkit.speech.audio import read_audio, write_audio
from kdkit.speech.corpora.prepare import Found, is_much
from kdkit.speech.frames import SAMPLE_RATE

_NAME = 60  # characters of a folder's name: systems allow 255 bytes
_LATE = 0.1  # seconds by which a piece may end after its recording: times are often rounded up


@dataclass(frozen=True)
class Piece:
    """From ``start`` to ``end`` seconds of a recording; None: to its end."""

    start: float
    end: float | None = None

    def __str__(self) -> str:
        return f"{self.start:.3f}-{'' if self.end is None else f'{self.end:.3f}'}"

    def of(self, found: Found) -> FoundPiece:
        """A recording of which this piece is wanted."""
        return FoundPiece(**vars(found), piece=self)


@dataclass(frozen=True)
class FoundPiece(Found):
    """A row that is not a whole recording. ``audio`` is the recording, until :func:`cut_out` has cut the piece."""

    piece: Piece = Piece(0.0)


@contextmanager
def cut_out(splits: Mapping[str, Sequence[Found]], folder: str | Path) -> Iterator[dict[str, list[Found]]]:
    """The same splits with every piece in a file of its own: FOLDER/RECORDING/START-END.wav (16 kHz, 16 bit).

    Each recording is read once, on all cores if there are many. A piece beyond the end of its recording is rejected.
    When the body of the ``with`` statement raises an error, the new files are deleted.
    """
    wanted: dict[Path, dict[Piece, Path]] = {}
    names: dict[str, Path] = {}
    for item in (item for found in splits.values() for item in found):
        if isinstance(item, FoundPiece) and not item.trouble and os.path.isfile(item.audio):
            name = _below(Path(item.id.rpartition("#")[0]))
            while names.setdefault(name, item.audio) != item.audio:  # talk.wav beside talk.mp3
                name += "_"
            target = Path(folder) / name / f"{str(item.piece).replace('.', '')}.wav"
            wanted.setdefault(item.audio, {})[item.piece] = target
    tasks = [(audio, list(pieces.items())) for audio, pieces in wanted.items()]
    targets = [target for pieces in wanted.values() for target in pieces.values()]
    new = [target for target in targets if not os.path.exists(target)]
    folders = {place for target in new for place in target.parents if not place.exists()}
    folders = sorted(folders, key=lambda place: -len(place.parts))  # the deepest first
    jobs = None if is_much([Found("", audio) for audio in wanted], quick=False) else 1
    troubles: dict[tuple[Path, Piece], str] = {}
    try:
        with tqdm(total=len(targets), desc="cutting", unit="piece", disable=not targets) as bar:
            for (audio, pieces), answers in zip(tasks, each(_cut, tasks, jobs), strict=True):
                troubles |= {(audio, piece): said for (piece, _), said in zip(pieces, answers, strict=True)}
                bar.update(len(pieces))

        def whole(item: Found) -> Found:
            if not isinstance(item, FoundPiece) or item.trouble or item.audio not in wanted:
                return item  # take_in reports a missing recording
            trouble = troubles[item.audio, item.piece]
            return replace(item, audio=wanted[item.audio][item.piece], trouble=trouble)

        yield {split: list(map(whole, found)) for split, found in splits.items()}
    except BaseException:
        for target in new:
            target.unlink(missing_ok=True)
        for place in folders:
            with suppress(OSError):  # not made yet
                place.rmdir()
        raise


def _below(path: Path) -> str:
    """Folder for the pieces of a recording: its path without ending, shortened, and without ".."."""
    parts = [part[:_NAME] for part in (*path.parent.parts, path.stem) if part not in (path.anchor, "", "..")]
    return "/".join(parts) or "recording"


def _cut(task: tuple[Path, list[tuple[Piece, Path]]]) -> list[str]:
    """Writes the pieces of one recording; returns for each why it cannot be cut, or ""."""
    audio, pieces = task
    try:
        wave = read_audio(audio)
    except AudioError as error:
        return [str(error)] * len(pieces)
    seconds = len(wave) / SAMPLE_RATE
    answers = []
    for piece, target in pieces:
        end = seconds if piece.end is None else piece.end
        if piece.start >= seconds or end > seconds + _LATE:
            answers.append(
                f"{audio}: {piece} s is wanted, but it lasts {seconds:.2f} s (milliseconds? name the column ..._ms)"
            )
            continue
        write_audio(target, wave[round(piece.start * SAMPLE_RATE) : round(end * SAMPLE_RATE)])
        answers.append("")
    return answers
