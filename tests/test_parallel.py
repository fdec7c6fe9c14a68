"""Sharing the cores: trainings in several processes; threads that read ahead leave the one that computes alone."""

import os
import subprocess
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from joblib.externals.loky import get_reusable_executor, process_executor

import kdkit
from kdkit.common.errors import TrainingError
from kdkit.common.parallel import compute_on_one_core, each_training
from kdkit.speech.batches import Batches
from kdkit.speech.manifest import Utterance


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_one_thread_for_itself_and_all_for_the_others(two_threads):
    with ThreadPoolExecutor(1, initializer=compute_on_one_core) as quiet, ThreadPoolExecutor(1) as plain:
        assert quiet.submit(torch.get_num_threads).result() == 1
        assert plain.submit(torch.get_num_threads).result() == 2
        assert torch.get_num_threads() == 2


def test_batches_are_read_on_one_core(two_threads, tmp_path):
    seen = {}

    def read(path):
        seen[path] = torch.get_num_threads()
        return torch.zeros(1600)

    speech = [Utterance(f"u{i}", tmp_path / f"{i}", 0.1, "") for i in range(40)]
    batches = Batches(speech, 0.2, read=read)
    list(batches.epoch())
    batches.close()
    assert set(seen.values()) == {1} and torch.get_num_threads() == 2


EACH = "from kdkit.common.parallel import each; print(list(each(abs, [-1, -2, -3, -4], 2)))"
SPEAK = "from kdkit.speech.corpora.synthetic.build import build_synthetic; print(build_synthetic(minutes={'dev': 0.1}))"


KERNEL = """
import nbformat
from nbclient import NotebookClient
from kdkit.report.execute import own_kernel
cell = nbformat.v4.new_code_cell("import joblib, soundfile; print(joblib.cpu_count())")
with own_kernel():
    NotebookClient(nbformat.v4.new_notebook(cells=[cell]), kernel_name="python3").execute()
"""


@pytest.mark.skipif(
    sys.version_info < (3, 11), reason="Python 3.10 always has the current folder on the path"
)
@pytest.mark.parametrize(
    "command", [["-m", "kdkit", "models"], ["-P", "-c", EACH], ["-P", "-c", SPEAK], ["-P", "-c", KERNEL]]
)
def test_modules_in_the_current_folder_are_not_run(tmp_path, command):
    """A folder of recordings that somebody sent may hold a joblib.py."""
    for name in ("joblib", "pickle", "psutil", "soundfile", "ipykernel_launcher", "typer", "numpy"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'proof')!r}, 'a').write({name!r})")
    found = subprocess.run(
        [sys.executable, *command],
        cwd=tmp_path,
        env=os.environ
        | {"PYTHONPATH": str(Path(kdkit.__file__).parents[1]), "KDKIT_CACHE": str(tmp_path / "c")},
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stderr
    assert not (tmp_path / "proof").exists()


def test_trainings_in_processes_are_counted_and_their_warnings_passed_on(capfd):
    def training(number):
        print("a progress bar of its own")
        if number == 1:
            warnings.warn("only blanks", stacklevel=2)
        if number == 9:
            raise TrainingError("loss is nan in step 3")
        return number, os.getpid()

    with pytest.warns(UserWarning, match="only blanks"):
        answers = each_training(training, [0, 1, 2, 3], 2, "study")
    shown = capfd.readouterr()
    assert [number for number, _ in answers] == [0, 1, 2, 3]
    assert os.getpid() not in {process for _, process in answers}
    assert "study: 100%" in shown.err and "4/4" in shown.err and "of its own" not in shown.out + shown.err
    with pytest.raises(TrainingError, match="nan in step 3"):
        each_training(training, [0, 9], 2, "study")


def test_trainings_are_counted_as_they_end_and_given_in_their_order(capfd, tmp_path):
    def training(number):
        time.sleep(0.5)
        while number == 0 and len(list(tmp_path.iterdir())) < 3:
            time.sleep(0.5)
        (tmp_path / str(number)).touch()
        return number

    assert each_training(training, [0, 1, 2, 3], 2, "study") == [0, 1, 2, 3]
    assert "75%" in capfd.readouterr().err  # 3 of 4 have ended while the first one goes on


def test_a_process_is_replaced_without_a_word_when_its_memory_has_grown():
    def training(number):
        # in that process: after its second task it is too large
        process_executor._MAX_MEMORY_LEAK_SIZE = -(10**12)
        process_executor._MEMORY_LEAK_CHECK_DELAY = 0
        time.sleep(0.1)
        return number, os.getpid()

    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            answers = each_training(training, list(range(8)), 2, "study")
        assert [number for number, _ in answers] == list(range(8))
        assert len({process for _, process in answers}) > 2 and not caught
    finally:
        get_reusable_executor().shutdown(kill_workers=True)


def test_one_at_a_time_is_shown_as_it_is(capfd):
    assert each_training(lambda number: print("bar", number) or number, [3, 4], 1, "study") == [3, 4]
    assert capfd.readouterr().out == "bar 3\nbar 4\n"
