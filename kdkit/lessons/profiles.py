"""How big a run is: every notebook reads its sizes from here, so one word changes all of them.

    profile = get_profile("quick")
    corpus = build_synthetic(minutes=profile.corpus_minutes)

``smoke`` proves that everything runs, ``quick`` is the default lesson on a laptop, ``full`` makes every study itself
(``make report PROFILE=full`` the models too, from nothing), ``colab`` trains longer than ``quick`` where there is one
GPU. Results of ``smoke`` are not meant to be good. ``quick`` is the base: the others say what differs.
``paper`` has the sizes of the paper's recipe, in another world than the toy one: ``make report PROFILE=paper`` makes
the models first, on all GPUs, then runs the notebooks with them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from kdkit.common.errors import ConfigError


@dataclass(frozen=True)
class Profile:
    """Sizes of one run. Minutes are minutes of speech; steps are optimiser steps; live = trained in the notebook."""

    name: str
    purpose: str  # one line, shown by the command line and the report
    expected_minutes: float  # wall clock of all notebooks on the machine that it is for

    # speech, minutes per split
    unlabelled_minutes: float
    train_minutes: float
    dev_minutes: float
    test_minutes: float  # of each of test-clean and test-other

    # 01 probing, and the judging of students in 02 and 03
    probe_train_minutes: float
    probe_test_minutes: float
    probe_frames: int  # frames that a probe is trained on; it is judged on half as many

    # 02 and 03 distillation, live
    distill_steps: int
    twin_steps: int  # notebook 03: Fbank student and waveform twin, each
    adaptation_steps: int  # notebook 03: of those, in which the front-end alone learns
    swap_steps: int  # notebook 03: to give a recogniser an Fbank front-end; a third of them adaptation
    seconds_per_batch: float

    # 02 studies of losses and structures
    study_minutes: float  # of unlabelled speech, whose teacher targets are kept on disk
    study_steps: int
    study_seeds: tuple[int, ...]
    structure_seeds: tuple[int, ...]  # waveform students take longer

    speed_rounds: int  # notebook 03: interleaved repeats of the speed measurement
    speed_full_size: bool  # of full-size models too

    # 04 fine-tuning, live
    finetune_steps: int
    finetune_minutes: float  # labelled speech

    # 04 WER over minutes of labels, made in the run; no minutes: the shipped findings are shown
    label_minutes: tuple[float, ...] = ()
    label_steps: int = 0
    label_seeds: tuple[int, ...] = ()

    # 02, 03 and 04, an experiment of one's own: two trials with the seeds of the studies
    own_steps: int = 30  # of a distillation
    own_label_steps: int = 100  # of a fine-tuning

    overnight: bool = False  # every variant is studied, on a CPU a training on each core
    at_hand: bool = True  # speech is kept in memory, targets on disk; False: too much of both

    @property
    def corpus_minutes(self) -> dict[str, float]:
        """Argument ``minutes`` of :func:`kdkit.speech.corpora.synthetic.build.build_synthetic`."""
        return {
            "unlabelled": self.unlabelled_minutes,
            "train": self.train_minutes,
            "dev": self.dev_minutes,
            "test-clean": self.test_minutes,
            "test-other": self.test_minutes,
        }

    def minutes(self, tests: Iterable[str]) -> dict[str, float]:
        """Minutes of each split of a world with these test sets."""
        known = self.corpus_minutes
        return {s: known.get(s, self.test_minutes) for s in ("unlabelled", "train", "dev", *tests)}


QUICK = Profile(
    name="quick",
    purpose="the lesson on a laptop: trains live for minutes, then goes on with the shipped models",
    expected_minutes=10,
    unlabelled_minutes=60,
    train_minutes=10,
    dev_minutes=2,
    test_minutes=10,
    probe_train_minutes=10,
    probe_test_minutes=10,
    probe_frames=20_000,
    distill_steps=160,
    twin_steps=90,
    adaptation_steps=30,
    swap_steps=150,
    seconds_per_batch=16,
    study_minutes=20,
    study_steps=80,
    study_seeds=(0, 1),
    structure_seeds=(0,),
    speed_rounds=7,
    speed_full_size=True,
    finetune_steps=400,
    finetune_minutes=10,
)

SMOKE = replace(
    QUICK,
    name="smoke",
    purpose="does everything run? minutes of speech, a few steps; the figures mean nothing",
    expected_minutes=3,
    unlabelled_minutes=2,
    train_minutes=1,
    dev_minutes=0.5,
    test_minutes=1,
    probe_train_minutes=1,
    probe_test_minutes=1,
    probe_frames=600,
    distill_steps=4,
    twin_steps=2,
    adaptation_steps=1,
    swap_steps=3,
    study_minutes=1,
    study_steps=2,
    study_seeds=(0,),
    speed_rounds=2,
    speed_full_size=False,
    finetune_steps=4,
    finetune_minutes=1,
    label_minutes=(0.5, 1),
    label_steps=3,
    label_seeds=(0,),
    own_steps=2,
    own_label_steps=3,
)

FULL = replace(
    QUICK,
    name="full",
    purpose="every study made in the run, with several seeds: hours on a CPU; stop it and go on with --resume",
    expected_minutes=3.5 * 60,
    unlabelled_minutes=600,
    train_minutes=60,
    dev_minutes=5,
    test_minutes=20,
    probe_train_minutes=20,
    probe_test_minutes=20,
    probe_frames=40_000,
    distill_steps=600,
    twin_steps=600,
    adaptation_steps=150,
    swap_steps=900,
    seconds_per_batch=32,
    study_minutes=120,
    study_steps=300,
    study_seeds=(0, 1, 2, 3),
    structure_seeds=(0, 1, 2, 3),
    speed_rounds=15,
    finetune_steps=3_000,
    finetune_minutes=60,
    label_minutes=(1, 2, 5, 10, 30),
    label_steps=1_500,
    label_seeds=(0, 1),
    own_steps=150,
    own_label_steps=400,
    overnight=True,
)

COLAB = replace(
    QUICK,
    name="colab",
    purpose="one GPU, such as Colab's: more speech and longer training than quick (sizes not yet tried on a GPU)",
    expected_minutes=60,
    unlabelled_minutes=5 * 60,
    train_minutes=30,
    dev_minutes=5,
    distill_steps=2_000,
    twin_steps=1_000,
    adaptation_steps=200,
    swap_steps=1_000,
    seconds_per_batch=64,
    study_minutes=60,
    study_steps=500,
    structure_seeds=(0, 1),
    speed_rounds=9,
    finetune_steps=1_500,
    finetune_minutes=30,
    own_steps=200,
    own_label_steps=500,
)

# LibriSpeech 960 h, batches of 12 utterances, 25,000 steps: the authors' recipe file. How long the paper adapts
# front-ends and fine-tunes is not known to us, nor how many seeds it has: those numbers are ours.
PAPER = replace(
    QUICK,
    name="paper",
    purpose="the paper's sizes: HuBERT Base, LibriSpeech 960 h, 25,000 steps; days on one GPU (not yet run on any)",
    expected_minutes=49 * 60,  # on an H200, computed (kdkit.lessons.machines); models come on top
    unlabelled_minutes=960 * 60,
    train_minutes=100 * 60,
    dev_minutes=5.4 * 60,
    test_minutes=5.4 * 60,
    probe_train_minutes=60,
    probe_test_minutes=30,
    probe_frames=100_000,
    distill_steps=25_000,
    twin_steps=25_000,
    adaptation_steps=2_500,
    swap_steps=25_000,
    seconds_per_batch=150,
    study_minutes=960 * 60,
    study_steps=25_000,
    study_seeds=(0, 1),
    structure_seeds=(0, 1),
    speed_rounds=15,
    finetune_steps=25_000,
    finetune_minutes=100 * 60,
    label_minutes=(10, 60, 10 * 60, 100 * 60),
    label_steps=25_000,
    label_seeds=(0, 1),
    overnight=True,
    at_hand=False,
)

PROFILES: dict[str, Profile] = {profile.name: profile for profile in (SMOKE, QUICK, FULL, COLAB, PAPER)}


def get_profile(name: str) -> Profile:
    """The profile of that name. Raises :class:`ConfigError`, which lists the names there are."""
    if name not in PROFILES:
        raise ConfigError(f"no profile {name!r}: choose one of {', '.join(PROFILES)}")
    return PROFILES[name]
