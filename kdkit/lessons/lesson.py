"""What only the notebooks need: their opening, the display and storage of results, and the models they load.

A lesson is a :class:`kdkit.lessons.results.Results` that also displays: ``lesson.figure(...)`` shows the figure under
the cell and saves it in the run folder. Any notebook can run alone: a model comes from the run folder if an earlier
notebook left it there, otherwise from the kit. Each model's origin is printed and recorded.
"""

from __future__ import annotations

import json
import os
import platform
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
import torchaudio
from IPython.display import HTML, Audio, Markdown, display
from torch import Tensor

from kdkit import teachers
from kdkit.common.errors import CheckpointError, ConfigError
from kdkit.common.files import write_text
from kdkit.common.machine import best_device, training_precision
from kdkit.common.statistics import verdict
from kdkit.lessons import live
from kdkit.lessons.experiments import (
    Finding,
    compare,
    names_in,
    shipped_findings,
    shipped_scores,
    study_rows,
    summary,
)
from kdkit.lessons.machines import check_machine, expectation
from kdkit.lessons.plots.style import in_numbers
from kdkit.lessons.profiles import get_profile
from kdkit.lessons.results import SOURCES, Results
from kdkit.lessons.world_files import AUTO, find_world
from kdkit.lessons.worlds import LIBRISPEECH, TOY
from kdkit.model.speech_model import SpeechModel, parameter_count
from kdkit.recognition.ctc import CTCModel, load_recogniser
from kdkit.speech.frames import SAMPLE_RATE
from kdkit.speech.manifest import Utterance, subset
from kdkit.teachers import Teacher, load_model, load_teacher, save_model


class Lesson(Results):
    """Opens a notebook: prints versions, device, seed and run folder, and seeds torch.

    ``profile`` "auto" selects "colab" on a GPU and "quick" elsewhere; ``world`` as
    :func:`kdkit.lessons.world_files.find_world` takes it. Raises :class:`ConfigError`, before anything is written,
    where the machine has not the disk or memory for them.

    Attributes: ``world`` (:class:`kdkit.lessons.worlds.World`), ``size`` (:class:`kdkit.lessons.profiles.Profile`),
    ``profile`` (its name), ``seed``, ``device``, ``out`` (absolute run folder).
    """

    def __init__(
        self, notebook: str, title: str, profile: str, seed: int, out: str | Path, world: str = "toy"
    ):
        self.device, self._started = best_device(), time.perf_counter()
        profile, why = choose_profile(profile, self.device)
        self.size = get_profile(profile)  # rejects an unknown name before anything is written
        small = world == AUTO and profile == "smoke"  # which asks whether everything runs
        self.world = TOY if small else find_world(world, self.device)
        splits = ("unlabelled", "train", "dev", *self.world.tests)
        check_machine(self.world, splits, self.size.seconds_per_batch, self.device)
        super().__init__(Path(out).resolve(), notebook, title, profile, seed)
        self.profile, self.seed = profile, seed
        torch.manual_seed(seed)
        precision = training_precision("auto", self.device)
        where = torch.cuda.get_device_name() if self.device.type == "cuda" else f"{os.cpu_count()} cores"
        print(
            f"Python {platform.python_version()}, torch {torch.__version__}, torchaudio {torchaudio.__version__}"
        )
        print(f"device {self.device} ({where}, {torch.get_num_threads()} threads), trains in {precision}")
        print(f"profile {profile}, {why} ({self.size.purpose}), seed {seed}")
        print(f"world {self.world.name} ({self.world.purpose})")
        for told in filter(None, (expectation(self.world, self.size, notebook), self._drive())):
            print(told)
        print(f"run folder {self.out}")
        if os.environ.get("KDKIT_ASSETS"):
            note = 'What this notebook calls "shipped" was made before it and comes from the folder that '
            note += "KDKIT_ASSETS names: nothing that ships with the kit is in this run."
            super().text("shipped", note)
            print(f"{note} ({teachers.ASSETS})")

    def _drive(self) -> str:
        """On Colab, what keeps downloads and runs when the machine disconnects."""
        if "COLAB_RELEASE_TAG" not in os.environ or self.out.is_relative_to("/content/drive"):
            return ""
        return (
            "To go on after a disconnect, mount a Drive (google.colab.drive.mount('/content/drive')) and set out to a "
            "folder on it. Speech is read faster from the local disk; to keep it as well, set $KDKIT_CACHE to a folder "
            "on the Drive."
        )

    @property
    def ships(self) -> bool:
        """Are there models and findings of this world that ship with the kit?"""
        return self.world is TOY

    @property
    def jobs(self) -> int | None:
        """How many trainings of a study run at the same time: one; in a long profile on a CPU, one for each core."""
        return None if self.size.overnight and self.device.type == "cpu" else 1

    # --- speech and models ------------------------------------------------------------------------------------

    def corpus(self, *splits: str) -> tuple[list[Utterance], ...]:
        """Splits of the world's speech at the profile's length, made or downloaded on first use."""
        minutes = self.size.corpus_minutes
        speech = {
            split: self.world.speech(split, minutes.get(split, self.size.test_minutes)) for split in splits
        }
        for split, utterances in speech.items():
            total, voices = sum(u.duration for u in utterances) / 60, len({u.speaker for u in utterances})
            print(f"{split}: {len(utterances)} utterances, {total:.1f} minutes, {voices} voices")
            self.uses_speech(split, utterances)
        return tuple(speech[split] for split in splits)

    def speech(self, where: str = "", teacher: str = "") -> tuple[list[Utterance], list[Utterance]]:
        """Speech to train probes on, and speech of other voices to test them on.

        ``where``: "synthetic", "librispeech" (dev-clean and test-clean, downloaded), or two manifests,
        "train.jsonl,test.jsonl"; "" is the world's own, but LibriSpeech for another ``teacher`` than the toy world's.
        Real speech is sampled, voice by voice, to the profile's length. Missing phone times are estimated by forced
        alignment, which is printed and recorded.
        """
        world = self.world
        if where == "librispeech" or (not where and world is TOY and teacher not in ("", TOY.teacher)):
            world = LIBRISPEECH
        elif where == "synthetic":
            world = TOY
        elif where:
            manifests = where.split(",")
            if len(manifests) != 2:
                raise ConfigError(f"{where}: name two manifests of different voices, train.jsonl,test.jsonl")
            world = replace(world, name=where, probing=tuple((path,) for path in manifests), folder=Path())
        if world is TOY:
            return self.corpus("train", "test-clean")
        where = world.name
        minutes = (self.size.probe_train_minutes, self.size.probe_test_minutes)
        parts = world.probe_speech((float("inf"), float("inf")))
        train, test = (subset(_in_turns(part, self.seed), m) for part, m in zip(parts, minutes, strict=True))
        train, test = self.with_phones(train, where), self.with_phones(test, where)
        for name, part in (("probe train", train), ("probe test", test)):
            self.uses_speech(name, part)
        return train, test

    def probe_tests(self) -> dict[str, list[Utterance]]:
        """The world's test sets with phone times; of real speech some voices, as much as the profile probes."""
        tests = dict(zip(self.world.tests, self.corpus(*self.world.tests), strict=True))
        if self.world is TOY:
            return tests
        minutes = self.size.probe_test_minutes
        return {n: self.with_phones(subset(_in_turns(s, self.seed), minutes), n) for n, s in tests.items()}

    def with_phones(self, utterances: Sequence[Utterance], where: str = "") -> list[Utterance]:
        """Utterances with phone times: their own, or estimates, which is said and kept."""
        if all(utterance.phones for utterance in utterances):
            return list(utterances)
        from kdkit.recognition.alignment import add_phones, bundle_aligner

        aligner = bundle_aligner(device=self.device)
        where = where or self.world.name
        note = (
            f"Phone times of {where} are estimates: letters aligned by {aligner.name}, phones by eSpeak NG."
        )
        super().text("phone times", note)
        return add_phones(utterances, aligner)

    def teacher(self, source: str = "") -> Teacher:
        """The world's teacher, or whatever :func:`kdkit.load_teacher` takes, on this run's device.

        The world's has a codebook: k-means centroids serve where its file has none, which is said.
        """
        source = source or self.world.teacher
        own = source == self.world.teacher
        teacher = (self.world.load_teacher() if own else load_teacher(source)).to(self.device)
        self.uses_model(f"teacher {source}", teachers.fingerprint(teacher.model))
        if source == "tiny":
            self._say_origin("teacher", "shipped", teacher.meta)
        else:
            super().text("origin of teacher", f"Teacher {teacher}.")
            print(teacher)
        return live.with_codebook(teacher, self.world, self.size, self._models, self.seed) if own else teacher

    def keep_layers(self, layers: Sequence[int], teacher: str = "") -> None:
        """Saves the teacher layers that the learner chose in notebook 01, for notebook 02."""
        teacher = teacher or self.world.teacher
        kept = {"teacher": teacher, "layers": [int(layer) for layer in layers]}
        write_text(self._layers_path, json.dumps(kept) + "\n")
        print(f"kept layers {kept['layers']} of {teacher} in {self._layers_path}")

    def layers(self, teacher: str = "", default: Sequence[int] = (4, 8, 12)) -> tuple[int, ...]:
        """Teacher layers for prediction heads: those saved by notebook 01 in this run folder, else ``default``."""
        chosen, where = tuple(default), "DistilHuBERT's choice"
        if self._layers_path.is_file():
            kept = json.loads(self._layers_path.read_text(encoding="utf-8"))
            if kept["teacher"] == (teacher or self.world.teacher):
                chosen, where = tuple(kept["layers"]), "chosen in notebook 01 of this run"
        print(f"prediction heads learn from layers {list(chosen)}, {where}")
        return chosen

    @property
    def _layers_path(self) -> Path:
        return self.out / "training" / "layers.json"

    @property
    def _models(self) -> Path:
        return self.out / "training" / "students"

    def student_path(self, preset: str) -> Path:
        """Path of the student of this structure that this run distilled itself."""
        return self._models / f"{preset.replace('-', '_')}.safetensors"

    def keep_student(self, preset: str, student: SpeechModel, meta: dict) -> None:
        """Saves a student distilled in this run, for the notebooks that follow."""
        save_model(self.student_path(preset), student, meta)
        print(f"kept {preset} in {self.student_path(preset)}")

    def student(self, preset: str) -> tuple[SpeechModel, dict]:
        """A distilled student and its description, with ``origin``: "shipped", "published" or "run".

        What was trained for longer comes first: the toy world's shipped students, another world's published ones. A
        student of another world that is nowhere is distilled now; one of the toy world is a :class:`CheckpointError`.
        """
        if (model := self.world.finished_student(preset)) is not None:
            source = self.world.finished[preset]
            super().text(f"origin of {preset}", f"{preset}: {source}, published, not trained in this run.")
            print(f"{preset}: {source}, published, not trained in this run")
            self.uses_model(preset, teachers.fingerprint(model))
            return model.to(self.device), {"steps": "published", "origin": "published"}
        shipped, kept = _asset(preset), self.student_path(preset)
        ours = self.world is TOY and shipped.is_file()
        if not ours and not kept.is_file():
            if self.world is TOY:
                raise CheckpointError(
                    f"no distilled {preset}: neither {shipped} nor {kept} is there; run notebook 02 with this run "
                    "folder, or make the shipped students with data_scripts"
                )
            live.distil(self.world, preset, self.teacher(), self.size, self._models, self.seed)
        origin, path = ("shipped", shipped) if ours else ("run", kept)
        model, _, meta = load_model(path)
        self._say_origin(preset, origin, meta)
        self.uses_model(preset, teachers.fingerprint(model))
        return model.to(self.device), meta | {"origin": origin}

    def shipped(self, name: str) -> list[Finding]:
        """Findings that ship with the kit (:func:`kdkit.lessons.experiments.shipped_findings`).

        None, which is said, where KDKIT_ASSETS names a folder without them, and in another world than the toy one, of
        which they tell nothing.
        """
        if not self.ships:
            super().text(f"{name} is missing", f"{name} is of the toy world: left out in {self.world.name}.")
            return []
        try:
            return shipped_findings(name)
        except CheckpointError:
            if "KDKIT_ASSETS" not in os.environ:
                raise
            super().text(
                f"{name} is missing", f"The models of this run come without {name}.json: it is left out."
            )
            return []

    def scores(self) -> list[dict]:
        """:func:`kdkit.lessons.experiments.shipped_scores` in the toy world; none in another one."""
        return shipped_scores() if self.ships else []

    def recognisers(self) -> dict[str, tuple[CTCModel, dict]]:
        """Every fine-tuned recogniser of the world, by file name: (recogniser, description): those that ship with the
        kit; of another world two that are fine-tuned now, or were in this run folder.
        """
        if self.world is not TOY:
            student, _ = self.student(self.world.student("sw", "waveform"))
            folder = self.out / "training" / "recognisers"
            found = live.recognisers(self.world, student, self.size, folder, self.seed)
            for name, (_, meta) in found.items():
                self._say_origin(
                    name, "run", meta, f"{meta['start']}, {meta['minutes']:g} labelled minutes, "
                )
            return found
        paths = sorted(teachers.ASSETS.glob("recogniser_*.safetensors"))
        if not paths:
            raise CheckpointError(
                f"{teachers.ASSETS}: no recogniser_*.safetensors; make them with data_scripts"
            )
        found = {path.stem.removeprefix("recogniser_"): load_recogniser(path) for path in paths}
        for name, (_, meta) in found.items():
            self._say_origin(
                name, "shipped", meta, f"{meta['start']}, {meta['minutes']:g} labelled minutes, "
            )
        return found

    # --- what is shown is kept --------------------------------------------------------------------------------

    def figure(self, name: str, figure, caption: str, alt: str = "", **options) -> None:
        """Shows a matplotlib figure under the cell and saves it for the report."""
        alt = alt or f"{caption} {in_numbers(figure)}".strip()
        super().figure(name, figure, caption, alt, **options)
        _close(figure)
        display(figure, metadata={"image/png": {"alt": alt}})

    def audio(self, name: str, wave: Tensor, caption: str) -> None:
        """A player under the cell, and the sound for the report. ``wave`` (samples,) at 16 kHz."""
        super().audio(name, wave, caption)
        display(Markdown(caption), Audio(wave.numpy(), rate=SAMPLE_RATE))

    def table(self, name: str, rows: Sequence[Mapping[str, object]], caption: str) -> None:
        """A table under the cell and in the report: one mapping per row, the first one's keys are the columns."""
        super().table(name, rows, caption)
        lines = [
            list(rows[0]),
            ["---"] * len(rows[0]),
            *([row.get(key, "") for key in rows[0]] for row in rows),
        ]
        text = "\n".join(
            "| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines
        )
        display(Markdown(f"{caption}\n\n{text}"))

    def page(self, name: str, fragment: str, caption: str) -> None:
        """A piece of HTML under the cell and in the report."""
        super().page(name, fragment, caption)
        display(HTML(fragment))

    def widget(self, name: str, panel, caption: str) -> None:
        """A :class:`kdkit.lessons.widgets.Panel` under the cell; its initial picture for the report."""
        figure = panel.figure()
        super().figure(name, figure, f"{caption} In the notebook it moves.", alt=panel.alt())
        display(panel)

    def verdict(self, name: str, outcome: str, text: str) -> None:
        """A conclusion that a cell computed (of a comparison: :meth:`compare`): shown, and kept for the report."""
        super().verdict(name, outcome, text)
        display(Markdown(f"**{name}: {outcome}.** {text}"))

    def study(self, name: str, findings: Sequence[Finding], caption: str, source: str = "run") -> None:
        """The trials of an experiment as a table: each one's measure over its seeds, and what it changes against the
        first trial, with the verdict.

        Kept as metrics: ``name/TRIAL`` and ``name/TRIAL against FIRST``.
        """
        if not findings:
            return
        first, *others = names_in(findings)
        for trial in (first, *others):
            found = summary(findings, trial)
            self.metric(f"{name}/{trial}", found.value, found.interval, "share", source)
        for trial in others:
            self.difference(f"{name}/{trial} against {first}", compare(findings, trial, first), source)
        self.table(name, study_rows(findings), caption)

    def text(self, name: str, text: str) -> None:
        super().text(name, text)
        display(Markdown(text))

    def finish(self) -> None:
        """For the last cell: records the run time and prints where the results are."""
        seconds = time.perf_counter() - self._started
        self.metric("seconds", seconds, unit="s", timing=True)
        print(f"{seconds / 60:.1f} minutes; figures, sound and numbers are in {self.out}")

    def _say_origin(self, what: str, origin: str, meta: dict, details: str = "") -> None:
        steps = f" ({details}{meta['steps']} training steps)" if "steps" in meta else ""
        words = "trained in this run folder"
        if origin == "shipped":
            words = f"{SOURCES['shipped']}, not trained in this run"
        super().text(f"origin of {what}", f"{what}: {words}{steps}.")
        print(f"{what}: {words}{steps}")


def choose_profile(wanted: str, device: torch.device) -> tuple[str, str]:
    """(name of the profile, reason). On a hosted machine without GPU the reason says how to get one."""
    if wanted != "auto":
        return wanted, "as the parameters say"
    if device.type == "cuda":
        return "colab", "because there is a GPU"
    hint = ""
    if "COLAB_RELEASE_TAG" in os.environ:
        hint = "; for one: Runtime, Change runtime type"
    elif "KAGGLE_KERNEL_RUN_TYPE" in os.environ:
        hint = "; for one: Settings, Accelerator"
    return "quick", f"because there is no GPU{hint}"


def outcome(ours: Sequence[float], baseline: Sequence[float]) -> str:
    """Verdict on two intervals (low, high) of which more is better, where no paired comparison can be made: "better" or
    "worse" when they do not touch, else "inconclusive". A number x is the interval (x, x).
    """
    return verdict((ours[0] - baseline[1], ours[1] - baseline[0]))


def millions(model: torch.nn.Module) -> str:
    """Parameter count for a table: "22.94 M"."""
    return f"{parameter_count(model) / 1e6:.2f} M"


def _asset(preset: str) -> Path:
    return teachers.ASSETS / f"{preset.replace('-', '_')}.safetensors"


def _in_turns(utterances: Sequence[Utterance], seed: int, each: int = 4) -> list[Utterance]:
    """Voices in random order, ``each`` utterances a turn: a speaker probe needs several utterances of a voice."""
    rng, voices = random.Random(seed), {}
    for utterance in rng.sample(list(utterances), len(utterances)):
        voices.setdefault(utterance.speaker, []).append(utterance)
    longest = max(map(len, voices.values()))
    return [
        u for begin in range(0, longest, each) for own in voices.values() for u in own[begin : begin + each]
    ]


def _close(figure) -> None:
    """Closes the figure in pyplot, which would show it a second time."""
    import matplotlib.pyplot as plt

    plt.close(figure)
