"""The notebooks in world librispeech, on its stand-ins, and in a toy twin of it: their numbers must be equal.

The twin is a world file with the same speech, weights and language model as they are at hand: manifests of the
synthetic corpus, checkpoints of the kit, an ARPA file. In both, presets of the paper's size have the toy world's, and
torchaudio's aligner, which has no stand-in in its published form, is the kit's best recogniser. Kernels run
:func:`take_over` before the first cell, by IPython's startup folder.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import standins
from rehearse import SPLITS, Size, build, in_miniature

import kdkit
from kdkit.lessons import profiles
from kdkit.lessons.profiles import PROFILES, SMOKE, get_profile
from kdkit.lessons.worlds import LIBRISPEECH, TOY
from kdkit.recognition import alignment
from kdkit.recognition.ctc import load_recogniser
from kdkit.report import run_report
from kdkit.report.compare import Row, rows_of
from kdkit.report.record import read_run
from kdkit.speech.manifest import Utterance, write_manifest

ALIGNER = Path(kdkit.__file__).parent / "assets" / "recogniser_teacher_pretrained_60.safetensors"
PAPER = replace(
    SMOKE,
    name="paper",
    purpose="the paper's chain in miniature",
    twin_steps=6,
    adaptation_steps=2,
    overnight=True,
    at_hand=False,
)


def size_of(profile: str) -> Size:
    """As much speech as the notebooks take in a profile."""
    sizes = get_profile(profile)
    return Size(
        unlabelled=sizes.unlabelled_minutes,
        labelled=sizes.train_minutes,
        dev=sizes.dev_minutes,
        test=sizes.test_minutes,
    )


def rehearse_notebooks(
    out: Path, profile: str = "smoke", only: Sequence[str] = (), twin_only: Sequence[str] | None = None
) -> tuple[dict, dict]:
    """``run.json`` of the notebooks in the real world, from an empty cache, and in its twin; reports are in ``out``.

    ``only``: these notebooks (01, 02, ...) instead of all; ``twin_only``: others in the twin. Raises
    :class:`AssertionError` with the error of a notebook that fails.
    """
    size = size_of(profile)
    build(out / "site", size)
    twin = write_twin(out / "twin", out / "site", size)
    site, runs = standins.Site(out / "site"), []
    try:
        with kernels(out, site), standins.instead_of_the_network(site, out / "cache"), in_miniature():
            asked = (
                ("real", "librispeech", only),
                ("toy", str(twin), only if twin_only is None else twin_only),
            )
            for name, world, chosen in asked:
                run_report(profile, out / name, overrides={"world": world}, only=chosen)
                runs.append(read_run(out / name))
                errors = [entry["error"] for entry in runs[-1]["notebooks"] if entry["error"]]
                assert not errors, f"{name} world: {errors}"
    finally:
        site.close()
    return runs[0], runs[1]


def rehearse_paper(out: Path, only: Sequence[str] = (), processes: int = 2) -> dict:
    """``run.json`` of profile paper with all sizes cut: models by several processes, then the notebooks with them.

    torchrun starts them, which is what ``accelerate launch`` does on GPUs; on CPUs that knows only MPI. The models are
    made twice: the second time nothing is left to do. Goes on where it was stopped. Raises :class:`AssertionError` for
    a notebook that fails, :class:`subprocess.CalledProcessError` where the models cannot be made.
    """
    with paper_in_miniature():
        if not (out / "site").exists():
            build(out / "site", size_of("paper"))
        site, models = standins.Site(out / "site"), out / "models"
        served = [str(site.folder), site.url, str(out / "cache")]
        launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(processes)]
        launch += [__file__, *served, "--world", "librispeech", "--out", str(models)]
        try:
            with kernels(out, site), standins.instead_of_the_network(site, out / "cache"), in_miniature():
                subprocess.run(launch, check=True)
                subprocess.run(launch, check=True)
                with patch.dict("os.environ", {"KDKIT_ASSETS": str(models / "assets")}):
                    overrides = {"world": "librispeech"}
                    run_report("paper", out / "run", overrides=overrides, only=only, resume=True)
        finally:
            site.close()
    run = read_run(out / "run")
    errors = [entry["error"] for entry in run["notebooks"] if entry["error"]]
    assert not errors, errors
    return run


@contextlib.contextmanager
def paper_in_miniature() -> Iterator[None]:
    """Within, profile paper has the sizes of smoke."""
    with patch.object(profiles, "PAPER", PAPER), patch.dict(PROFILES, paper=PAPER):
        yield


def different(real: dict, toy: dict) -> tuple[list[Row], int]:
    """The numbers that differ, times and speeds aside, and how many there are."""
    rows = [row for row in rows_of([real, toy]) if not row.timing]
    return [row for row in rows if not row.equal], len(rows)


def write_twin(folder: Path, site: Path, size: Size) -> Path:
    """The world file of the toy twin, with manifests beside it."""
    folder.mkdir(parents=True)
    minutes = {
        "unlabelled": size.unlabelled,
        "dev": size.dev,
        "test-clean": size.test,
        "test-other": size.test,
    }
    for number, split in enumerate(SPLITS):
        _manifest(folder / f"{split}.jsonl", TOY.speech(split, minutes[split]), 1000 * (number + 1))
    labelled = as_published(TOY.labels(12 * size.labelled), 9000)
    share = len(labelled) // 12
    budgets = {"10min": labelled[:share], "1h": labelled[: 6 * share], "10h": labelled}
    for name, speech in budgets.items():
        write_manifest(folder / f"{name}.jsonl", speech)
    world = {
        "name": "twin",
        "teacher": str(site / "teacher.safetensors"),
        "unlabelled": "unlabelled.jsonl",
        "labelled": [f"{name}.jsonl" for name in budgets],
        "dev": "dev.jsonl",
        "tests": {name: f"{name}.jsonl" for name in ("test-clean", "test-other")},
        "finished": {LIBRISPEECH.student("sw", "waveform"): str(site / "finished.safetensors")},
        "language_model": str(site / "toy.arpa"),
    }
    path = folder / "world.json"
    path.write_text(json.dumps(world, indent=1))
    return path


def as_published(speech: Sequence[Utterance], first_reader: int) -> list[Utterance]:
    """Speech with the ids and readers of its stand-in, and without phone times, which LibriSpeech has not."""
    ids = standins.numbered(speech, first_reader)
    return [
        replace(u, id=name, speaker=name.partition("-")[0], phones=())
        for u, name in zip(speech, ids, strict=True)
    ]


def _manifest(path: Path, speech: Sequence[Utterance], first_reader: int) -> None:
    write_manifest(path, as_published(speech, first_reader))


# --- in the kernels -----------------------------------------------------------------------------------------


@contextlib.contextmanager
def kernels(out: Path, site: standins.Site) -> Iterator[None]:
    """Within, the kernels of notebooks take their downloads from ``site``."""
    folder = out / "ipython"
    startup = folder / "profile_default" / "startup"
    startup.mkdir(parents=True, exist_ok=True)
    here, served = str(Path(__file__).parent), (str(site.folder), site.url, str(out / "cache"))
    lines = ["import sys", f"sys.path.insert(0, {here!r})", "import rehearse_notebooks"]
    lines.append(f"rehearse_notebooks.take_over{served!r}")
    (startup / "00-standins.py").write_text("\n".join(lines) + "\n")
    with patch.dict("os.environ", {"IPYTHONDIR": str(folder)}):
        yield


def take_over(folder: str, url: str, cache: str) -> None:
    """For the rest of this process: downloads come from the stand-ins, and presets are small."""
    site = SimpleNamespace(folder=Path(folder), url=url)
    _TAKEN.enter_context(standins.instead_of_the_network(site, Path(cache)))
    _TAKEN.enter_context(in_miniature())
    _TAKEN.enter_context(paper_in_miniature())
    alignment.bundle_aligner = lambda name="MMS_FA", device="cpu": alignment.recogniser_aligner(
        load_recogniser(ALIGNER)[0].eval(), "a stand-in of torchaudio's MMS_FA"
    )


_TAKEN = contextlib.ExitStack()


if __name__ == "__main__":  # a process of accelerate launch: stand-ins, then options of make_models.py
    import make_models

    take_over(*sys.argv[1:4])
    del sys.argv[1:4]
    make_models.main()
