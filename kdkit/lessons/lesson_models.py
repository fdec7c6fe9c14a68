"""The models and findings that a lesson asks for: from the run folder, from the kit, or trained now.

Any notebook can run alone: a model comes from the run folder if an earlier notebook left it there, otherwise from the
kit. Each model's origin is printed and recorded.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import torch

from kdkit import teachers
from kdkit.common.errors import CheckpointError
from kdkit.common.files import write_text
from kdkit.lessons import live
from kdkit.lessons.display import Display
from kdkit.lessons.experiments import Finding, shipped_findings, shipped_scores
from kdkit.lessons.profiles import Profile
from kdkit.lessons.records import SOURCES
from kdkit.lessons.worlds import TOY, World
from kdkit.model.speech_model import SpeechModel
from kdkit.recognition.ctc import CTCModel, load_recogniser
from kdkit.teachers import Teacher, load_model, load_teacher, save_model


class LessonModels(Display):
    """The models of a lesson; its settings are those of :class:`kdkit.lessons.lesson.Lesson`."""

    world: World
    size: Profile
    seed: int
    device: torch.device

    @property
    def ships(self) -> bool:
        """Are there models and findings of this world that were made before: the toy world's, which ship with the kit,
        or those in the folder that KDKIT_ASSETS names, whose world.txt names the world.
        """
        marker = teachers.ASSETS / WORLD
        about = marker.read_text(encoding="utf-8").strip() if marker.is_file() else TOY.name
        return self.world.name == about

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
            self.note("origin of teacher", f"Teacher {teacher}.")
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

        What was trained for longer comes first: students made before this run, then published ones. A student of
        another world that is nowhere is distilled now; one of the toy world is a :class:`CheckpointError`.
        """
        shipped, kept = _asset(preset), self.student_path(preset)
        ours = self.ships and shipped.is_file()
        if not ours and (model := self.world.finished_student(preset)) is not None:
            source = self.world.finished[preset]
            self.note(f"origin of {preset}", f"{preset}: {source}, published, not trained in this run.")
            print(f"{preset}: {source}, published, not trained in this run")
            self.uses_model(preset, teachers.fingerprint(model))
            return model.to(self.device), {"steps": "published", "origin": "published"}
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
            self.note(f"{name} is missing", f"{name} is of the toy world: left out in {self.world.name}.")
            return []
        try:
            return shipped_findings(name)
        except CheckpointError:
            if "KDKIT_ASSETS" not in os.environ:
                raise
            self.note(
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
        if not self.ships:
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

    def _say_origin(self, what: str, origin: str, meta: dict, details: str = "") -> None:
        steps = f" ({details}{meta['steps']} training steps)" if "steps" in meta else ""
        words = "trained in this run folder"
        if origin == "shipped":
            words = f"{SOURCES['shipped']}, not trained in this run"
        self.note(f"origin of {what}", f"{what}: {words}{steps}.")
        print(f"{what}: {words}{steps}")


WORLD = "world.txt"  # beside models that were made for another world than the toy one


def _asset(preset: str) -> Path:
    return teachers.ASSETS / f"{preset.replace('-', '_')}.safetensors"
