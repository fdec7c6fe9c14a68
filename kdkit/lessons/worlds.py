"""What the lessons are about: a world names teacher, speech, students and language model; a profile says how much.

    world = WORLDS["librispeech"]
    teacher = world.load_teacher()
    speech = world.speech("unlabelled", minutes=300)

``toy`` needs nothing: the tiny teacher, synthetic speech, models that ship with the kit. ``librispeech`` is the
paper's: HuBERT Base, LibriSpeech, Libri-Light's labels, and everything is downloaded on first use into $KDKIT_CACHE. A
world of one's own is a small file, :mod:`kdkit.lessons.world_files`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from kdkit.common.errors import CheckpointError, ConfigError, DownloadError
from kdkit.common.files import cache_folder
from kdkit.lessons import speech_sources
from kdkit.model.speech_model import PRESETS, SpeechModel
from kdkit.speech.corpora.summary import check_speakers
from kdkit.speech.manifest import Utterance, subset
from kdkit.teachers import Teacher, load_teacher
from kdkit.teachers.load import locate

STRUCTURES = {"dt": "deep & thin", "sw": "shallow & wide"}
# of teachers and finished models, to download
_MEGABYTES = {"hubert_base_ls960": 1_140, "HUBERT_BASE": 360, "ntu-spml/distilhubert": 94}
_NEARLY = 0.9  # Libri-Light's ten minutes are not ten to the second
_LM_MEGABYTES = 70  # 3-gram.pruned.3e-7 and the lexicon, unpacked too
_ALIGNER_MEGABYTES = 1_180


@dataclass(frozen=True)
class World:
    """Speech is named by sources, as :func:`kdkit.lessons.speech_sources.utterances` takes them.

    ``labelled``: from the smallest budget to the largest, each part of the next. ``probing``: speech to train probes
    on, and speech of other voices to judge them on. ``finished``: models that stand in for long trainings, by the
    preset of the student that each is. ``stand_in``: the teacher where ``teacher`` cannot be downloaded.
    """

    name: str
    purpose: str
    teacher: str
    unlabelled: tuple[str, ...]
    labelled: tuple[str, ...]
    dev: tuple[str, ...]
    tests: Mapping[str, tuple[str, ...]]
    probing: tuple[tuple[str, ...], tuple[str, ...]]
    students: str = ""  # before the presets' names: "tiny-" or nothing
    finished: Mapping[str, str] = field(default_factory=dict)
    language_model: str = ""  # of LibriSpeech, or an ARPA file; "": estimated from the labelled transcripts
    utterance_seconds: float = 12.3  # typical
    stand_in: str = ""
    lr: float = 2e-4  # of distillation
    clusters: int = 500  # k-means centroids that serve a teacher without codebook
    folder: Path = Path()  # that paths of manifests are relative to

    def student(self, structure: str, front_end: str) -> str:
        """The preset of a student: ``structure`` "dt" or "sw", ``front_end`` "waveform" or "fbank"."""
        name = f"{self.students}{structure}-{front_end}"
        if name not in PRESETS:
            raise ConfigError(
                f"no student {name!r}; structures are {', '.join(STRUCTURES)}, front-ends waveform, fbank"
            )
        return name

    @property
    def presets(self) -> tuple[str, ...]:
        """The students of this world, waveform twins first."""
        return tuple(self.student(s, f) for f in ("waveform", "fbank") for s in STRUCTURES)

    @property
    def teacher_preset(self) -> str:
        """The preset of the size of teacher that the students go with."""
        return "tiny-teacher" if self.students else "hubert-base"

    @property
    def families(self) -> dict[str, tuple[str, ...]]:
        """Presets of teachers with those of their students: the paper's, and this world's where it has others."""
        return {world.teacher_preset: world.presets for world in (replace(self, students=""), self)}

    @property
    def ready(self) -> str:
        """A shallow & wide student that is there without training: a finished one, in the toy world a shipped one."""
        return next(iter(self.finished), self.student("sw", "fbank"))

    # --- speech ---------------------------------------------------------------------------------------------------

    def sources(self, split: str) -> tuple[str, ...]:
        """Where a split comes from: "unlabelled", "dev" or the name of a test set."""
        known = {"unlabelled": self.unlabelled, "dev": self.dev, **self.tests}
        if split not in known:
            raise ConfigError(
                f"world {self.name} has no speech {split!r}; there is {', '.join(known)}, and train"
            )
        return known[split]

    def speech(self, split: str, minutes: float) -> list[Utterance]:
        """The first ``minutes`` of a split, or all of it where it is shorter; of "train", see :meth:`labels`."""
        if split == "train":
            return self.labels(minutes)
        return subset(self._utterances(self.sources(split), minutes), minutes)

    def labels(self, minutes: float) -> list[Utterance]:
        """``minutes`` of labelled speech: of the smallest budget that has them, or else all of the largest."""
        for source in self.labelled:
            found = self._utterances((source,), minutes)
            if sum(u.duration for u in found) >= 60 * minutes * _NEARLY:
                break
        return subset(found, minutes)

    def probe_speech(self, minutes: tuple[float, float]) -> tuple[list[Utterance], list[Utterance]]:
        """Speech to train probes on, and speech of other voices to judge them on."""
        train, test = (subset(self._utterances(s, m), m) for s, m in zip(self.probing, minutes, strict=True))
        return train, test

    def _utterances(self, sources: Sequence[str], minutes: float) -> list[Utterance]:
        needed = speech_sources.enough(sources, minutes)
        return [u for source in needed for u in speech_sources.utterances(source, minutes, self.folder)]

    # --- models ---------------------------------------------------------------------------------------------------

    def load_teacher(self) -> Teacher:
        """The teacher; where it cannot be downloaded, the stand-in. Says so, and says what serves as its codebook."""
        try:
            teacher = load_teacher(self.teacher)
        except DownloadError as error:
            if not self.stand_in:
                raise
            print(f"{self.teacher} cannot be had, {self.stand_in} stands in for it: {error}")
            teacher = load_teacher(self.stand_in)
        if teacher.codebook is None:
            why = str(teacher.meta.get("codebook", "")).partition("none: ")[2]
            print(
                f"{teacher.source} has no codebook{f' ({why})' if why else ''}: {self.clusters} k-means centroids of "
                "its last layer serve. HuBERT's own is in fairseq's files: teacher = hubert_base_ls960"
            )
        return teacher

    def fetch_finished(self) -> None:
        """Downloads the published students that are not at hand."""
        for source in self.finished.values():
            locate(source)

    def finished_student(self, preset: str) -> SpeechModel | None:
        """The published model that stands in for a long training of that student; None where there is none.

        Raises :class:`CheckpointError` for one of another structure.
        """
        source = self.finished.get(preset)
        if source is None:
            return None
        model, wanted = load_teacher(source).model, PRESETS[preset]
        for name in ("front_end", "layers", "dim"):
            if getattr(model.config, name) != getattr(wanted, name):
                raise CheckpointError(
                    f"{source}: stands in for {preset} in world {self.name}, but its {name} is "
                    f"{getattr(model.config, name)}, not {getattr(wanted, name)}"
                )
        return model.requires_grad_(True)

    def lm_files(self) -> tuple[Path, Path | None] | None:
        """An ARPA file and a list of words for beam search; None: to be estimated from the labelled transcripts."""
        if not self.language_model:
            return None
        from kdkit.speech.corpora import librispeech_lm

        if self.language_model in librispeech_lm.MODELS:
            root = cache_folder() / "librispeech-lm"
            arpa = librispeech_lm.language_model(root, self.language_model, root)
            return arpa, librispeech_lm.words(root, root)
        return self.folder / self.language_model, None

    # --- before anything is trained -------------------------------------------------------------------------------

    def to_download(self, minutes: Mapping[str, float]) -> int:
        """MB that are missing for so many minutes of each split ("train", "dev" ...), and for the models."""
        sources = [
            source
            for split, amount in minutes.items()
            for source in speech_sources.enough(
                self.labelled if split == "train" else self.sources(split), amount, one=split == "train"
            )
        ]
        total = speech_sources.megabytes(sources)
        published = any(speech_sources.parse(source)[0].startswith("libri") for source in sources)
        total += _ALIGNER_MEGABYTES if published and not _aligner_is_here() else 0  # it has no phone times
        for name in (self.teacher, *self.finished.values()):
            total += 0 if _is_here(name) else _MEGABYTES.get(name, 0)
        arpa = cache_folder() / "librispeech-lm" / f"{self.language_model}.arpa"
        return total + (_LM_MEGABYTES if self.language_model and not arpa.is_file() else 0)


TOY = World(
    name="toy",
    purpose="a tiny teacher, synthetic speech and models that ship with the kit: nothing to download, no GPU",
    teacher="tiny",
    unlabelled=("synthetic:unlabelled",),
    labelled=("synthetic:train",),
    dev=("synthetic:dev",),
    tests={"test-clean": ("synthetic:test-clean",), "test-other": ("synthetic:test-other",)},
    probing=(("synthetic:train",), ("synthetic:test-clean",)),
    students="tiny-",
    utterance_seconds=2.6,
    lr=2e-3,
)

LIBRISPEECH = World(
    name="librispeech",
    purpose="the paper's: HuBERT Base, LibriSpeech, Libri-Light's labels; one GPU, and 21 GB of disk",
    teacher="hubert_base_ls960",
    stand_in="HUBERT_BASE",
    unlabelled=("librispeech:train-clean-100", "librispeech:train-clean-360", "librispeech:train-other-500"),
    labelled=("librilight:10min-0", "librilight:1h", "librilight:10h", "librispeech:train-clean-100"),
    dev=("librispeech:dev-clean",),
    tests={"test-clean": ("librispeech:test-clean",), "test-other": ("librispeech:test-other",)},
    probing=(("librispeech:dev-clean",), ("librispeech:test-clean",)),
    finished={"sw-waveform": "ntu-spml/distilhubert"},
    language_model="3-gram.pruned.3e-7",
)

WORLDS = {world.name: world for world in (TOY, LIBRISPEECH)}


def check_voices(splits: Mapping[str, Sequence[Utterance]]) -> list[str]:
    """Raises :class:`ConfigError` where a test set of a world has speakers of its other splits; returns what else
    should be known.
    """
    return check_speakers(
        {n if n in ("unlabelled", "train", "dev") else f"test set {n}": some for n, some in splits.items()}
    )


def _aligner_is_here() -> bool:
    return any((cache_folder() / "aligners").glob("*/*"))


def _is_here(name: str) -> bool:
    folder = cache_folder() / "teachers"
    files = {"hubert_base_ls960": "hubert_base_ls960.pt", "HUBERT_BASE": "hubert_fairseq_base_ls960.pth"}
    return (folder / files.get(name, f"huggingface/{name.replace('/', '--')}")).exists()
