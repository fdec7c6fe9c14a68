"""The notebooks in world librispeech, on its stand-ins, and in a toy twin of it: their numbers must be equal.

The twin is a world file with the same speech, weights and language model as they are at hand: manifests of the
synthetic corpus, checkpoints of the kit, an ARPA file. In both, presets of the paper's size have the toy world's, and
torchaudio's aligner, which has no stand-in in its published form, is the kit's best recogniser. Kernels run
:func:`take_over` before the first cell, by IPython's startup folder, programs and workers by Python's sitecustomize.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import IO
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

ROOT = Path(__file__).parent.parent
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


def rehearse_notebooks(out: Path, only: Sequence[str] = ()) -> tuple[dict, dict]:
    """``run.json`` of the notebooks, of profile smoke, in the real world, from an empty cache, and in its twin; reports
    are in ``out``.

    ``only``: these notebooks (01, 02, ...) instead of all. Raises :class:`AssertionError` with the error of a notebook
    that fails.
    """
    size = size_of("smoke")
    build(out / "site", size)
    twin = write_twin(out / "twin", out / "site", size)
    site, runs = standins.Server(out / "site"), []
    try:
        with taken_over(out, site), standins.instead_of_the_network(site, out / "cache"), in_miniature():
            for name, world in (("real", "librispeech"), ("toy", str(twin))):
                run_report("smoke", out / name, overrides={"world": world}, only=only)
                runs.append(read_run(out / name))
                errors = [entry["error"] for entry in runs[-1]["notebooks"] if entry["error"]]
                assert not errors, f"{name} world: {errors}"
    finally:
        site.close()
    return runs[0], runs[1]


def rehearse_paper(out: Path, processes: int = 2) -> dict:
    """``run.json`` of ``make report PROFILE=paper`` with all sizes cut: models by several processes, then notebooks.

    It is stopped by Ctrl-C twice, among the models and among the notebooks, and made again. ``accelerate launch``
    starts as many processes as accelerate's file of settings says; one for several GPUs starts them on a CPU, too.
    What make said is in OUT/make.log. Raises :class:`AssertionError` with its last lines where it fails.
    """
    with paper_in_miniature():
        if not (out / "site").exists():
            build(out / "site", size_of("paper"))
        report, environment = out / "paper", Path(sys.prefix)
        make = ["make", "-C", str(ROOT), f"VENV={environment}", "-o", str(environment / ".installed")]
        make += ["report", "PROFILE=paper", f"OUT={report}"]
        settings = out / "huggingface" / "accelerate" / "default_config.yaml"
        settings.parent.mkdir(parents=True, exist_ok=True)
        settings.write_text(
            "compute_environment: LOCAL_MACHINE\ndistributed_type: MULTI_GPU\nnum_machines: 1\n"
            f"num_processes: {processes}\n"
        )
        site = standins.Server(out / "site")
        try:
            with (
                taken_over(out, site),
                standins.instead_of_the_network(site, out / "cache"),
                patch.dict("os.environ", {"HF_HOME": str(settings.parent.parent)}),
                open(out / "make.log", "ab") as log,
            ):
                stop_when(f"{report}-models/assets/dt_fbank.safetensors", make, log)
                stop_when(f"{report}/metrics/01_teacher_probing.json", make, log)
                status = subprocess.run(make, stdout=log, stderr=log).returncode
        finally:
            site.close()
    said = (out / "make.log").read_text(encoding="utf-8", errors="replace")
    assert status == 0, said[-2000:]
    return read_run(report)


def stop_when(path: str, command: Sequence[str], log: IO[bytes]) -> None:
    """Runs a command until ``path`` is there, if it is not, then stops it as Ctrl-C does in a terminal."""
    if Path(path).exists():
        return
    process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        while process.poll() is None and not Path(path).exists():
            time.sleep(0.1)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)
            process.wait()


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
def taken_over(out: Path, site: standins.Server) -> Iterator[None]:
    """Within, what is started takes its downloads from ``site``: kernels of notebooks, kdkit and make_models.py."""
    folder = out / "startup"
    kernels = folder / "profile_default" / "startup"
    kernels.mkdir(parents=True, exist_ok=True)
    here, served = str(Path(__file__).parent), (str(site.folder), site.url, str(out / "cache"))
    lines = [
        f"sys.path.append({here!r})",
        "import rehearse_notebooks",
        f"rehearse_notebooks.take_over{served!r}",
    ]
    (kernels / "00-standins.py").write_text("\n".join(["import sys", *lines]))
    # the last: workers
    programs = {"kdkit", "make_models.py", "joblib.externals.loky.backend.popen_loky_posix"}
    asked = f"if {programs} & {{word.rpartition('/')[2] for word in sys.orig_argv}}:"
    (folder / "sitecustomize.py").write_text("\n    ".join([f"import sys\n{asked}", *lines]))
    search = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
    with patch.dict("os.environ", {"IPYTHONDIR": str(folder), "PYTHONPATH": search}):
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
