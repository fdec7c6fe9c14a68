"""What a notebook hands to the report: numbers, figures, sound, tables and verdicts, saved as they appear.

A notebook opens one collector and calls it for every result::

    results = Results(out, "02_distillation", title="Distillation", profile=profile, seed=seed)
    results.metric("distilled/wer/test-clean", 0.231, interval=(0.215, 0.248), unit="share", source="run")
    results.figure("losses", fig, "Regression loss falls for both structures.")
    results.compare("distilled against scratch", comparison)

Every call writes its files at once and atomically, so a notebook that is stopped leaves what it had. Calling again
with the same kind and name replaces the earlier entry in its place: cells may be run twice. Everything lies in the run
folder: ``metrics/<notebook>.json`` (this collector's record), ``figures/<notebook>/*.png``, ``audio/<notebook>/*.wav``,
``pages/<notebook>/*.html``.
:mod:`kdkit.report` turns the records into ``run.json`` and ``index.html``.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import shutil
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from kdkit.common.errors import ConfigError
from kdkit.common.files import write_atomically, write_text
from kdkit.common.statistics import Comparison
from kdkit.lessons.records import OUTCOMES, ROLES, SOURCES, record_path
from kdkit.speech.manifest import Utterance


class Results:
    """Collector of one notebook's findings in the run folder ``out``; starts empty, removing an earlier run's record.

    ``notebook`` is the file's name without ending ("01_teacher_probing"); ``title`` heads its section of the report;
    ``world`` names what it is about.
    """

    def __init__(
        self,
        out: Path | str,
        notebook: str,
        title: str = "",
        profile: str = "",
        seed: int | None = None,
        world: str = "",
    ):
        self.out, self.notebook = Path(out), _checked_name(notebook)
        for kind in ("figures", "audio", "pages"):
            shutil.rmtree(self.out / kind / notebook, ignore_errors=True)
        self._record = {
            "notebook": notebook,
            "title": title or notebook,
            "profile": profile,
            "seed": seed,
            "world": world,
            "metrics": {},
            "systems": [],
            "items": [],
            "data": {},
            "models": {},
        }
        self._save()

    def metric(
        self,
        name: str,
        value: float | str,
        interval: Sequence[float] | None = None,
        unit: str = "",
        source: str = "run",
        timing: bool = False,
        note: str = "",
    ) -> None:
        """One number for ``run.json``. Rates and WERs are shares (0.23), times are seconds, sizes are counts.

        ``interval`` is (low, high), 95 % unless ``note`` says otherwise; (nan, nan), that of a single utterance, is
        left out. ``source`` is "run" for what this run measured, "shipped" for what a model card says, "published" for
        a paper's figure. ``timing`` marks numbers that differ from run to run on one machine (seconds, speeds).
        ``unit`` is how a page shows it: "share" (shown in per cent), "s", "parameters", "x real time", ...

        Raises :class:`ConfigError` for a value that is not finite or an interval whose low end is above its high end.
        """
        entry = {"value": _plain(value, name), "source": _one_of(source, SOURCES, "source")}
        entry |= _interval(interval, name)
        entry |= {key: text for key, text in (("unit", unit), ("note", note)) if text}
        if timing:
            entry["timing"] = True
        self._record["metrics"][_checked_name(name)] = entry
        self._save()

    def difference(self, name: str, comparison: Comparison, source: str = "run") -> None:
        """A paired comparison as metric ``name``: difference, interval, difference of each seed, and the verdict that
        every page of the report shows.
        """
        self.metric(
            name, comparison.difference, comparison.interval, "share", source, note=comparison.measure
        )
        entry = self._record["metrics"][name] | {"verdict": comparison.verdict}
        self._record["metrics"][name] = entry | {"seeds": [float(v) for v in comparison.seeds.values()]}
        self._save()

    def compare(self, name: str, comparison: Comparison, text: str = "", source: str = "run") -> None:
        """A paired comparison as metric ``name`` (:meth:`difference`), and as a conclusion: its verdict, the numbers in
        a sentence, and ``text`` after them.
        """
        self.difference(name, comparison, source)
        self.verdict(name, comparison.verdict, f"{comparison}. {text}".strip())

    def system(
        self,
        name: str,
        role: str,
        wer: Mapping[str, Sequence[float]],
        cer: Mapping[str, Sequence[float]] | None = None,
        parameters: int | None = None,
        speed: float | None = None,
        source: str = "run",
        labels: str = "",
        note: str = "",
        against_scratch: Mapping[str, Comparison] | None = None,
    ) -> None:
        """One row of the report's headline table: a recogniser that was scored.

        Give a network the same ``name`` and ``labels`` whether it was distilled or trained from scratch: the report
        puts the two side by side by that, and compares them by ``against_scratch``, {test set: comparison}.
        ``role``: "teacher", "distilled", "scratch" or "baseline". ``wer`` and ``cer`` map a test set ("test-clean",
        "test-other") to ``(value, low, high)``, shares with a 95 % interval (or ``(value,)``). ``speed`` is seconds of
        speech per second of computing. ``labels`` says what it was fine-tuned on ("10 min"). ``source`` as in
        :meth:`metric`: a shipped, longer-trained model is never shown as trained in this run.
        """
        row = {"name": _checked_name(name), "role": _one_of(role, ROLES, "role"), "labels": labels}
        row["source"] = _one_of(source, SOURCES, "source")
        for key, scores in (("wer", wer), ("cer", cer or {})):
            row[key] = {split: _score(score, f"{name}: {key} on {split}") for split, score in scores.items()}
        row["parameters"] = None if parameters is None else int(parameters)
        row["speed"] = None if speed is None else _plain(speed, f"{name}: speed")
        row["note"] = note
        if against_scratch:
            row["against_scratch"] = {
                split: {"value": c.difference} | _interval(c.interval, name) | {"verdict": c.verdict}
                for split, c in against_scratch.items()
            }
        _put(self._record["systems"], row, ("name", "role", "labels", "source"))
        self._save()

    def uses_speech(self, name: str, utterances: Sequence[Utterance]) -> None:
        """Notes which speech was used: how much, and a hash of its manifest (ids, lengths, texts, voices, phone times).

        Sound itself is not read. A longer manifest that begins in the same way gives the same hash for the same part.
        """
        total = hashlib.sha256()
        for u in utterances:
            total.update(repr((u.id, u.duration, u.text, u.speaker, u.accent, u.phones)).encode())
        minutes = round(sum(u.duration for u in utterances) / 60, 2)
        entry = {"sha256": total.hexdigest(), "utterances": len(utterances), "minutes": minutes}
        self._record["data"][_checked_name(name)] = entry
        self._save()

    def uses_model(self, name: str, fingerprint: str) -> None:
        """Notes which model was used: ``fingerprint`` stands for its weights (:func:`kdkit.teachers.fingerprint`)."""
        self._record["models"][_checked_name(name)] = fingerprint
        self._save()

    def figure(self, name: str, figure, caption: str, alt: str = "", dpi: int = 130) -> None:
        """A matplotlib ``figure`` as PNG. ``alt`` is its description; default: caption and numbers."""
        from kdkit.lessons.plots.style import in_numbers  # here: reading a record must not load matplotlib

        path = self._path("figures", name, ".png")
        options = {"format": "png", "dpi": dpi, "bbox_inches": "tight", "facecolor": "white"}
        write_atomically(
            path, lambda temporary: figure.savefig(temporary, **options, metadata={"Software": None})
        )
        alt = alt or f"{caption} {in_numbers(figure)}".strip()
        self._item("figure", name, caption=caption, alt=alt, file=self._relative(path))

    def audio(self, name: str, wave, caption: str) -> None:
        """Sound to listen to: ``wave`` (samples,) at 16 kHz, float in -1..1, tensor or array."""
        from kdkit.speech.audio import write_audio  # here: reading a record must not load torch

        path = self._path("audio", name, ".wav")
        write_audio(path, wave)
        self._item("audio", name, caption=caption, file=self._relative(path))

    def page(self, name: str, fragment: str, caption: str) -> None:
        """A self-contained piece of HTML, such as :func:`error_browser`: collapsed in the report, and a page of its own
        in the run folder.
        """
        path = self._path("pages", name, ".html")
        head = f'<!doctype html><meta charset="utf-8"><title>{escape(caption)}</title>'
        write_text(path, f"{head}\n{fragment}")
        self._item("page", name, caption=caption, file=self._relative(path))

    def table(self, name: str, rows: Sequence[Mapping[str, object]], caption: str) -> None:
        """A table, one mapping per row; the first row's keys are the columns, values are shown as ``str`` shows them.

        Numbers that matter belong in :meth:`metric` too; here format them as they should be read ("23.1 %").
        """
        columns = list(rows[0]) if rows else []
        cells = [[str(row.get(column, "")) for column in columns] for row in rows]
        self._item("table", name, caption=caption, columns=columns, rows=cells)

    def verdict(self, name: str, outcome: str, text: str) -> None:
        """A conclusion computed from the numbers. ``outcome``: "better", "worse" or "inconclusive" for a comparison
        (see :meth:`compare`), "seen" or "not seen" for something the lesson said to expect.
        """
        self._item("verdict", name, outcome=_one_of(outcome, OUTCOMES, "outcome"), text=text)

    def text(self, name: str, text: str) -> None:
        """A paragraph of plain text, for instance which model was taken from where."""
        self._item("text", name, text=text)

    # ------------------------------------------------------------------------------------------------------------

    def _item(self, kind: str, name: str, **content) -> None:
        _put(self._record["items"], {"kind": kind, "name": _checked_name(name), **content}, ("kind", "name"))
        self._save()

    def _path(self, kind: str, name: str, suffix: str) -> Path:
        path = self.out / kind / self.notebook / (_slug(_checked_name(name)) + suffix)
        for item in self._record["items"]:
            if item.get("file") == self._relative(path) and item["name"] != name:
                raise ConfigError(f"{name!r} would overwrite {item['name']!r} in {path}: choose another name")
        return path

    def _relative(self, path: Path) -> str:
        return path.relative_to(self.out).as_posix()

    def _save(self) -> None:
        text = json.dumps(self._record, indent=1, ensure_ascii=False, allow_nan=False)
        write_text(record_path(self.out, self.notebook), text + "\n")


def _put(entries: list[dict], entry: dict, identity: tuple[str, ...]) -> None:
    """Replaces the entry with the same identity where it stands, or appends."""
    for index, earlier in enumerate(entries):
        if all(earlier[key] == entry[key] for key in identity):
            entries[index] = entry
            return
    entries.append(entry)


def _plain(value, name: str):
    """``value`` as JSON knows it: tensors and numpy scalars become Python numbers."""
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, (bool, str, int)):
        return value
    if not isinstance(value, float) or not math.isfinite(value):
        raise ConfigError(f"{name} is {value!r}: a result must be a finite number, a text or true/false")
    return value


def _interval(interval: Sequence[float] | None, name: str) -> dict:
    """{"interval": [low, high]}; empty for None and for (nan, nan), the interval of a single utterance."""
    if interval is None or all(map(math.isnan, interval)):
        return {}
    low, high = (float(_plain(end, f"{name} (interval)")) for end in interval)
    if low > high:
        raise ConfigError(f"{name}: the interval ({low}, {high}) is upside down")
    return {"interval": [low, high]}


def _score(score: Sequence[float], name: str) -> dict:
    if len(score) not in (1, 3):
        raise ConfigError(f"{name}: give (value,) or (value, low, high), not {tuple(score)}")
    return {"value": float(_plain(score[0], name))} | _interval(score[1:] or None, name)


def _one_of(value: str, allowed: tuple[str, ...], what: str) -> str:
    if value not in allowed:
        raise ConfigError(f"{what} is {value!r}: choose one of {', '.join(allowed)}")
    return value


def _checked_name(name: str) -> str:
    if not _slug(name) or not name.isprintable():
        raise ConfigError(
            f"{name!r} is no good name for a result: one line with at least one letter or digit"
        )
    return name


def _slug(name: str) -> str:
    """``name`` as a file name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")
