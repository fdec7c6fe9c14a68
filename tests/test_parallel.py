"""Sharing the cores: threads that read ahead leave the one that computes alone."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from kdkit.batches import Batches
from kdkit.manifest import Utterance
from kdkit.parallel import compute_on_one_core


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
