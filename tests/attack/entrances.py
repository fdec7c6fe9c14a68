"""Where files, options and folders of others come in: for each a good one, how it is damaged, and how it is read.

An entrance reads in the process that calls it and returns something comparable; damage that a loader can tell
(``tells``: a checksum, a promised length) must not be accepted with another content. See judge.py for how a case is
judged.
"""

from __future__ import annotations

import contextlib
import io
import json
import random
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import damage
import numpy as np
import pickles
import soundfile
import torch


@dataclass(frozen=True)
class Entrance:
    """``make(folder)`` writes a good file there and returns its path; ``read(path)`` reads it."""

    name: str
    make: Callable[[Path], Path]
    read: Callable[[Path], object]
    damaged: Callable[[bytes, random.Random], tuple[str, bytes]] = damage.of_bytes
    tells: Sequence[str] = ()  # beginnings of the names of damages that can be told from the file alone
    seconds: float = 20.0  # a case that takes longer hangs
    weight: int = 1  # how often, beside the others
    target: str = ""  # the file in the folder that is damaged; default: the good one
    names: Sequence[str] = field(default=())  # an error may name one of these instead of the file

    def attack(self, seed: int, good: Path, folder: Path) -> tuple[str, Path]:
        """A damaged copy of what lies in ``good``'s folder: what was done, and the path to read."""
        rng = random.Random(f"{self.name}/{seed}")
        shutil.copytree(good.parent, folder, dirs_exist_ok=True)
        path = folder / good.name
        victim = folder / self.target if self.target else path
        if victim.is_dir():
            victim = rng.choice(sorted(p for p in victim.rglob("*") if p.is_file() and p.stat().st_size))
        name, data = self.damaged(victim.read_bytes(), rng)
        victim.write_bytes(data)
        return f"{victim.name}: {name}", path


# ------------------------------------------------------------------------------------------------------------- sound


def wave(seconds: float = 2.0) -> np.ndarray:
    """Something between tones and noise, at 16 kHz."""
    rng, time = np.random.default_rng(0), np.arange(round(16_000 * seconds)) / 16_000
    tones = sum(
        np.sin(2 * np.pi * f * time) * np.sin(3 * time * i) for i, f in enumerate((220, 700, 1900), 1)
    )
    return (0.1 * tones + 0.02 * rng.standard_normal(len(time))).astype(np.float32)


FORMATS = {
    "wav": ("WAV", "PCM_16"), "flac": ("FLAC", "PCM_16"), "ogg": ("OGG", "VORBIS"), "opus": ("OGG", "OPUS"),
    "mp3": ("MP3", "MPEG_LAYER_III"), "aiff": ("AIFF", "PCM_16"), "au": ("AU", "PCM_16"), "caf": ("CAF", "PCM_16"),
    "w64": ("W64", "PCM_16"), "rf64": ("RF64", "PCM_16"),
}  # fmt: skip


def sound_file(ending: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = folder / f"a.{ending}"
        kind, subtype = FORMATS[ending]
        soundfile.write(path, wave(), 16_000, format=kind, subtype=subtype)
        return path

    return make


def read_sound(path: Path) -> object:
    from kdkit.speech.audio import read_audio

    samples = read_audio(path)
    assert bool(torch.isfinite(samples).all())
    return len(samples), round(float(samples.abs().sum()), 2)


def transcribed(path: Path) -> object:
    """All files of the folder through the command; the text of the good one must be there in any case."""
    out = path.parent / "texts.jsonl"
    command("transcribe", "tiny_sw_fbank_distilled_10", path.parent, "--format", "json", "--out", out, "--jobs", 1,
            allowed=(0, 1, 2))  # fmt: skip
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()] if out.exists() else []
    texts = {Path(row["file"]).name: row.get("text") for row in rows}
    assert texts.get("good.wav") is not None, "the text of the good file is lost"
    return texts["good.wav"]


def a_folder_of_sound(ending: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        sound_file("wav")(folder).rename(folder / "good.wav")
        return sound_file(ending)(folder)

    return make


# ----------------------------------------------------------------------------------------------- lists, text, JSON


def manifest(folder: Path) -> Path:
    from kdkit.speech.manifest import Utterance, write_manifest

    sound_file("wav")(folder)
    rows = [
        Utterance(
            f"u{i}", folder / "a.wav", 2.0, f"word number {'abcde'[i]}", f"s{i}", ((0.0, "a"), (0.5, "b"))
        )
        for i in range(5)
    ]
    write_manifest(folder / "m.jsonl", rows)
    return folder / "m.jsonl"


def read_a_manifest(path: Path) -> object:
    from kdkit.speech.batches import Batches
    from kdkit.speech.manifest import read_manifest

    rows = read_manifest(path)
    if rows:
        Batches(rows, 8, workers=0).indices(0)
    return [(u.id, u.duration, u.text, u.speaker, len(u.phones)) for u in rows]


def language_model(folder: Path) -> Path:
    from kdkit.recognition.lm import estimate

    estimate([["the", "cat", "sat"], ["a", "dog", "sat"], ["the", "dog"]] * 3, 2).write(folder / "lm.arpa")
    return folder / "lm.arpa"


def search_with(path: Path) -> object:
    from kdkit.recognition.decode import with_language_model

    torch.manual_seed(0)
    return with_language_model(path)(torch.randn(1, 30, 29), torch.tensor([30]))


def text(folder: Path) -> Path:
    (folder / "text.txt").write_text("the cat sat\na dog's day\ntwo dogs and AT&T\n" * 4, encoding="utf-8")
    return folder / "text.txt"


def model_of(path: Path) -> object:
    command("lm", path, "--out", path.with_suffix(".arpa"), "--order", 2)
    return path.with_suffix(".arpa").read_text(encoding="utf-8")


def words_of(path: Path) -> object:
    from kdkit.recognition.decode import BeamSearch
    from kdkit.recognition.lm import lexicon

    words = lexicon(path)
    if find_spec("flashlight") is None:  # it has no wheels for some versions of Python
        return words
    torch.manual_seed(0)
    return BeamSearch(words, beam=10)(torch.randn(1, 30, 29), torch.tensor([30]))


def statistics(folder: Path) -> Path:
    from kdkit.fbank import Fbank, Statistics, save_statistics

    found = Statistics()
    found.update(Fbank()(torch.from_numpy(wave())[None])[0])
    save_statistics(folder / "s.json", found)
    return folder / "s.json"


def read_statistics(path: Path) -> object:
    from kdkit.fbank import load_statistics

    mean, std = load_statistics(path)
    return mean.tolist(), std.tolist()


def report(folder: Path) -> Path:
    from test_report_compare import write

    return write(folder / "run") / "run.json"


def read_report(path: Path) -> object:
    from kdkit.report.compare import as_text, load_runs
    from kdkit.report.index_page import as_markdown
    from kdkit.report.record import find_runs, read_run

    find_runs(path.parent)
    run = read_run(path)
    return as_markdown(run), as_text([path, path], load_runs([path, path]))


def read_record(path: Path) -> object:
    from kdkit.lessons.records import read_results
    from kdkit.report.index_page import write_index
    from kdkit.report.record import read_run

    record = read_results(path.parent, "01_x")
    run = read_run(path)
    run["machine"] |= dict.fromkeys(("memory_gb", "gpu_driver", "system", "torch"), "some")
    write_index(path.parent, run, {"01_x": record} if record else {})
    return (path.parent / "index.html").read_text(encoding="utf-8")


def tolerances(folder: Path) -> Path:
    rules = {
        "relative": 0.05,
        "absolute": 0.005,
        "time": 2.0,
        "only": {"04_*": {"absolute": 0.1, "ignore": True}},
    }
    (folder / "t.json").write_text(json.dumps(rules))
    return folder / "t.json"


def read_the_tolerances(path: Path) -> object:
    from kdkit.report.compare import read_tolerances

    return read_tolerances(path)


# --------------------------------------------------------------------------------------------------------- checkpoints


def small():
    from kdkit.model.speech_model import preset

    return preset("tiny-sw-fbank")


def student(folder: Path) -> Path:
    from kdkit.students import new_student
    from kdkit.teachers import save_model

    save_model(folder / "s.safetensors", new_student(small()), {})
    return folder / "s.safetensors"


def weights(module: torch.nn.Module) -> object:
    return [
        (name, float(t.double().sum())) for name, t in module.state_dict().items() if t.is_floating_point()
    ]


def read_student(path: Path) -> object:
    from kdkit.students import load_student

    return weights(load_student(path)[0])


def recogniser(folder: Path) -> Path:
    from kdkit.recognition.ctc import CTCModel, save_recogniser
    from kdkit.students import new_student

    torch.manual_seed(0)
    save_recogniser(folder / "r.safetensors", CTCModel(new_student(small())), {})
    return folder / "r.safetensors"


def read_recogniser(path: Path) -> object:
    from kdkit.recognition.loading import load_network

    return weights(load_network(path))


def fairseq(folder: Path) -> Path:
    from formats import SMALL, transformers_model, write_fairseq

    write_fairseq(folder / "f.pt", transformers_model("hubert", **SMALL), clusters=5)
    return folder / "f.pt"


def read_teacher(path: Path) -> object:
    from kdkit.teachers import load_teacher

    return weights(load_teacher(path).model)


def hub_folder(folder: Path) -> Path:
    from formats import SMALL, transformers_model

    transformers_model("hubert", **SMALL).save_pretrained(folder / "model")
    return folder / "model"


def read_poisoned(path: Path) -> object:
    return READERS[path.parent.name.split("-")[0]](path)


READERS = {"teacher": read_teacher, "recogniser": read_recogniser, "student": read_student}


def run_folder(folder: Path) -> Path:
    """A training that was stopped half-way."""
    with contextlib.suppress(KeyboardInterrupt):
        a_training(folder / "run", stop=4)
    return folder / "run"


def a_training(out: Path, stop: int | None = None) -> torch.nn.Module:
    from kdkit.recognition.ctc import CTCModel, CTCTask
    from kdkit.speech.batches import Batches
    from kdkit.speech.manifest import Utterance
    from kdkit.students import new_student
    from kdkit.training.loop import train
    from kdkit.training.recipe import TrainConfig

    sound = Path(tempfile.gettempdir(), "kdkit-attack.wav")
    if not sound.exists():
        soundfile.write(sound, wave(), 16_000)
    speech = [Utterance(f"u{i}", sound, 2.0, "some words") for i in range(4)]
    torch.manual_seed(0)
    task = CTCTask(CTCModel(new_student(small())))
    recipe = TrainConfig(steps=6, log_every=1, save_every=2, precision="fp32")
    with contextlib.redirect_stderr(io.StringIO()):
        train(
            task, Batches(speech, 4, workers=0), recipe, out, watch=stop and (lambda rows: len(rows) >= stop)
        )
    return task.recogniser


def go_on(path: Path) -> object:
    return weights(a_training(path))


# ------------------------------------------------------------------------------------------------ commands and options


def command(*words: object, allowed: Sequence[int] = (0,)) -> str:
    """What a command prints; an error of kdkit's own is raised as such, a usage error as one of them."""
    from typer.testing import CliRunner

    from kdkit.commands.main import app
    from kdkit.common.errors import ConfigError

    result = CliRunner().invoke(app, [str(word) for word in words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    if result.exit_code == 2 and "Error: " in result.output:
        raise ConfigError(result.output.strip().splitlines()[-1])
    if result.exit_code not in allowed:
        raise AssertionError(f"exit status {result.exit_code}: {result.output[-200:]}")
    return result.output


OPTIONS = (
    ("structures", "--rounds", "0", "--budget", "1e6"), ("models",), ("corpus", "--minutes", "dev=0.05"),
    ("report", "list", "."), ("statistics", "--minutes", "0.05", "--out", "s.json"),
    ("distill", "tiny-sw-fbank", "--minutes", "0.2", "--steps", "2", "--out", "run"),
    ("finetune", "tiny-sw-fbank", "--minutes", "0.2", "--steps", "2", "--out", "run"),
    ("lm", "text.txt", "--out", "lm.arpa"), ("evaluate", "tiny_sw_fbank_distilled_10", "--minutes", "0.1"),
    ("transcribe", "tiny_sw_fbank_distilled_10", "a.wav"),
)  # fmt: skip
VALUES = ("", "-1", "0", "nan", "inf", "1e308", str(10**30), "x", "../../..", "/dev/null", "/proc/x/y", "n" * 300,
          "\udcff", "é", "a\nb", "--", "-", "[]", "tiny", "/", ".")  # fmt: skip


def odd_command(seed: int, folder: Path) -> tuple[str, Callable[[], object]]:
    """A command with one odd value, run in ``folder``."""
    import typer

    from kdkit.commands.main import app

    rng = random.Random(f"options/{seed}")
    words = rng.choice(OPTIONS)
    group = typer.main.get_command(app)
    for word in words:
        group = getattr(group, "commands", {}).get(word, group)
    options = [p.opts[0] for p in group.params if p.param_type_name == "option" and p.opts[0] != "--help"]
    given = [*words, rng.choice(options), rng.choice(VALUES)] if options else list(words)
    if rng.random() < 0.3:  # an odd argument
        given = list(words)
        given[rng.randrange(1, len(given)) if len(given) > 1 else 0] = rng.choice(VALUES)
    shown = " ".join(word[:30] for word in given)
    return shown, lambda: command(*given, allowed=(0, 1, 2))


PLACES = ("a file", "below a file", "/proc/nothing", "/dev/null/x", "long", "loop", "")


def odd_place(seed: int, folder: Path) -> tuple[str, Callable[[], object]]:
    """A command whose result cannot be written where it shall go."""
    rng = random.Random(f"places/{seed}")
    kind = rng.choice(PLACES[:-1])
    (folder / "file").write_text("mine")
    (folder / "loop").symlink_to("loop")
    place = {"a file": folder / "file", "below a file": folder / "file/x", "long": folder / ("n" * 300),
             "loop": folder / "loop/x"}.get(kind, Path(kind))  # fmt: skip
    words = rng.choice(
        (
            ("distill", "tiny-sw-fbank", "--minutes", "0.2", "--steps", "2", "--out", place),
            ("finetune", "tiny-sw-fbank", "--minutes", "0.2", "--steps", "2", "--out", place),
            ("swap", "tiny-sw-waveform", "--minutes", "0.2", "--steps", "2", "--adapt", "1", "--out", place),
            ("statistics", "--minutes", "0.05", "--out", place),
            ("corpus", "--minutes", "dev=0.05", "--root", place),
            ("lm", folder / "text.txt", "--out", place),
            ("transcribe", "tiny_sw_fbank_distilled_10", folder / "a.wav", "--out", place),
            ("evaluate", "tiny_sw_fbank_distilled_10", "--minutes", "0.1", "--errors", place),
            ("probe", "tiny-sw-fbank", "--minutes", "0.2", "--out", place),
            ("export", "tiny_sw_fbank_distilled_10", "--to", "huggingface", "--out", place),
            ("prepare", "folder", folder, "--out", place),
            ("report", "compare", folder, folder, "--html", place),
        )
    )
    (folder / "text.txt").write_text("some words\n" * 3)
    sound_file("wav")(folder)

    def run() -> object:
        try:
            return command(*words)
        finally:
            assert (
                not (folder / "file").is_file() or (folder / "file").read_text() == "mine" or kind == "a file"
            )

    return f"{words[0]} to {kind}", run


def bad_pickle(seed: int, folder: Path) -> tuple[str, Callable[[], object]]:
    """A malicious pickle given to a loader: nothing may run, torch stays as it is."""
    rng = random.Random(f"pickles/{seed}")
    proof = folder / "proof"
    found = pickles.payloads(proof)
    name, loader = rng.choice(sorted(found)), rng.choice(sorted(READERS))
    path = folder / rng.choice(("m.pt", "m.pth", "pytorch_model.bin", "m.safetensors"))
    pickles.poisoned(path, found[name], rng)

    def state() -> list[str]:
        return [repr(vars(t)) for t in (torch.FloatStorage, torch.Size)] + [
            repr(torch._utils._rebuild_tensor_v2.__defaults__)
        ]

    def run() -> object:
        before = state()
        try:
            return READERS[loader](path)
        finally:
            assert not proof.exists(), "the pickle ran"
            assert state() == before, "the pickle altered torch"

    return f"{name} as {path.name} to {loader}", run


def archive(seed: int, folder: Path) -> tuple[str, Callable[[], object]]:
    """An archive that would write, or bring in, files of other folders."""
    from kdkit.common.downloads import unpack

    rng = random.Random(f"archives/{seed}")
    (folder / "secret.txt").write_text("secret")
    name = pickles.bad_archive(folder / "a.tar", rng)

    def run() -> object:
        out = unpack(folder / "a.tar", folder / "out", rng.choice(("", "a")))
        assert not Path("/tmp/kdkit-attack.txt").exists(), "a file was written outside"
        read = [p.read_text() for p in (out.rglob("*") if out.is_dir() else [out]) if p.is_file()]
        assert "secret" not in read and all(p.resolve().is_relative_to(folder) for p in out.rglob("*"))
        return sorted(
            p.name for p in out.rglob("*")
        )  # an absolute name is taken from the folder on, as tar does it

    return name, run


@cache
def entrances() -> dict[str, Entrance]:
    """All entrances that take a file, by name."""
    found = [
        *(
            Entrance(f"audio {ending}", sound_file(ending), read_sound, tells=("truncate",) if ending != "mp3" else ())
            for ending in FORMATS
        ),
        *(Entrance(f"transcribe {e}", a_folder_of_sound(e), transcribed, tells=("",), seconds=60)
          for e in ("wav", "flac", "mp3", "ogg")),
        Entrance("manifest", manifest, read_a_manifest, damage.of_json, weight=6),
        *([Entrance("language model", language_model, search_with, damage.of_text, weight=4)]
          if find_spec("flashlight") else []),  # no wheels for Python 3.13 and later
        Entrance("text for an lm", text, model_of, damage.of_text),
        Entrance("lexicon", text, words_of, damage.of_text),
        Entrance("statistics", statistics, read_statistics, damage.of_json, weight=2),
        Entrance("run.json", report, read_report, damage.of_json, weight=6),
        Entrance("record", report, read_record, damage.of_json, target="metrics/01_x.json", weight=4,
                 names=("01_x.json",)),
        Entrance("tolerances", tolerances, read_the_tolerances, damage.of_json),
        Entrance("student", student, read_student, tells=("",), weight=4),
        Entrance("recogniser", recogniser, read_recogniser, tells=("",), weight=4),
        Entrance("fairseq", fairseq, read_teacher, weight=4),
        Entrance("hub: config", hub_folder, read_teacher, damage.of_json, target="model/config.json", weight=4,
                 names=("config.json", "model.safetensors", "model")),
        Entrance("hub: weights", hub_folder, read_teacher, target="model/model.safetensors", weight=2,
                 names=("model.safetensors", "model")),
        Entrance("stopped training", run_folder, go_on, tells=("",), seconds=60, weight=2, target="run",
                 names=("run", "checkpoints", "metrics.jsonl")),
    ]  # fmt: skip
    return {entrance.name: entrance for entrance in found}


# Entrances that are no damaged files: (seed, folder) -> name, what to do.
OTHERS = {"options": odd_command, "places": odd_place, "pickles": bad_pickle, "archives": archive}
