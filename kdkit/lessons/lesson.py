"""What a notebook opens: profile, world and device, its speech and its models; what it finds is shown and kept.

``Lesson`` is a :class:`kdkit.lessons.lesson_models.LessonModels`, which is a :class:`kdkit.lessons.display.Display`,
which is a :class:`kdkit.lessons.results.Results`.
"""

from __future__ import annotations

import os
import platform
import random
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from kdkit import teachers
from kdkit.common.errors import ConfigError
from kdkit.common.machine import best_device, training_precision
from kdkit.lessons.lesson_models import LessonModels
from kdkit.lessons.machines import check_machine, expectation, to_fetch
from kdkit.lessons.profiles import PAPER, get_profile
from kdkit.lessons.world_files import AUTO, find_world
from kdkit.lessons.worlds import LIBRISPEECH, TOY, check_voices
from kdkit.model.speech_model import parameter_count
from kdkit.speech.manifest import Utterance, subset


class Lesson(LessonModels):
    """Opens a notebook: prints versions, device, seed and run folder, and seeds torch.

    ``profile`` "auto" selects "colab" on a GPU and "quick" elsewhere; ``world`` as
    :func:`kdkit.lessons.world_files.find_world` takes it. Raises :class:`ConfigError`, before anything is written,
    where the machine has not the disk or memory for them.

    Attributes: ``world`` (:class:`kdkit.lessons.worlds.World`), ``size`` (:class:`kdkit.lessons.profiles.Profile`),
    ``profile`` (its name), ``seed``, ``device``, ``out`` (absolute run folder), ``phone_times`` ("exact", or
    "estimated" from the first utterance on whose phones were aligned).
    """

    phone_times = "exact"

    def __init__(
        self, notebook: str, title: str, profile: str, seed: int, out: str | Path, world: str = "toy"
    ):
        self.device, self._started = best_device(), time.perf_counter()
        profile, why = choose_profile(profile, self.device)
        self.size = get_profile(profile)  # rejects an unknown name before anything is written
        small = world == AUTO and profile == "smoke"  # which asks whether everything runs
        self.world = TOY if small else find_world(world, self.device)
        if self.size is PAPER and self.world is TOY:
            raise ConfigError(
                "profile paper has the sizes of the paper's own teacher and speech: choose world librispeech, or a "
                "world file; the toy world's largest profile is full"
            )
        check_machine(self.world, self._minutes, self.size.seconds_per_batch, self.device)
        self._heard: dict[str, list[Utterance]] = {}  # splits that were asked for
        super().__init__(Path(out).resolve(), notebook, title, profile, seed, self.world.name)
        self.profile, self.seed = profile, seed
        torch.manual_seed(seed)
        precision = training_precision("auto", self.device)
        where = torch.cuda.get_device_name() if self.device.type == "cuda" else f"{os.cpu_count()} cores"
        print(f"Python {platform.python_version()}, torch {torch.__version__}")
        print(f"device {self.device} ({where}, {torch.get_num_threads()} threads), trains in {precision}")
        print(f"profile {profile}, {why} ({self.size.purpose}), seed {seed}")
        print(f"world {self.world.name} ({self.world.purpose})")
        machine = expectation(self.world, self.size, notebook), to_fetch(self.world, self._minutes)
        for told in filter(None, (*machine, self._drive())):
            print(told)
        print(f"run folder {self.out}")
        if os.environ.get("KDKIT_ASSETS"):
            note = 'What this notebook calls "shipped" was made before it and comes from the folder that '
            note += "KDKIT_ASSETS names: nothing that ships with the kit is in this run."
            self.note("shipped", note)
            print(f"{note} ({teachers.ASSETS})")

    @property
    def _minutes(self) -> dict[str, float]:
        """Of each split of the world."""
        return self.size.minutes(self.world.tests)

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
    def jobs(self) -> int | None:
        """How many trainings of a study run at the same time: one; in a long profile on a CPU, one for each core."""
        return None if self.size.overnight and self.device.type == "cpu" else 1

    # --- speech ------------------------------------------------------------------------------------------------

    def corpus(self, *splits: str) -> tuple[list[Utterance], ...]:
        """Splits of the world's speech at the profile's length, made or downloaded on first use.

        Raises :class:`ConfigError` where a test set has speakers of the other splits that were asked for so far.
        """
        minutes = self._minutes
        speech = {split: self.world.speech(split, minutes[split]) for split in splits}
        self._heard |= speech
        check_voices(self._heard)
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

        aligner, self.phone_times = bundle_aligner(device=self.device), "estimated"
        where = where or self.world.name
        note = (
            f"Phone times of {where} are estimates: letters aligned by {aligner.name}, phones by eSpeak NG."
        )
        self.note("phone times", note)
        return add_phones(utterances, aligner)

    def finish(self) -> None:
        """For the last cell: records the run time and prints where the results are."""
        seconds = time.perf_counter() - self._started
        self.metric("seconds", seconds, unit="s", timing=True)
        print(f"{seconds / 60:.1f} minutes; figures, sound and numbers are in {self.out}")


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


def millions(model: torch.nn.Module) -> str:
    """Parameter count for a table: "22.94 M"."""
    return f"{parameter_count(model) / 1e6:.2f} M"


def _in_turns(utterances: Sequence[Utterance], seed: int, each: int = 4) -> list[Utterance]:
    """Voices in random order, ``each`` utterances a turn: a speaker probe needs several utterances of a voice."""
    rng, voices = random.Random(seed), {}
    for utterance in rng.sample(list(utterances), len(utterances)):
        voices.setdefault(utterance.speaker, []).append(utterance)
    longest = max(map(len, voices.values()))
    return [
        u for begin in range(0, longest, each) for own in voices.values() for u in own[begin : begin + each]
    ]
