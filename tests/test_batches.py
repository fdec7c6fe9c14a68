"""Batches: a pure function of seed and step, within the limit, all once an epoch, bad files skipped."""

import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdkit.common.errors import AudioError, ConfigError, TrainingError
from kdkit.speech.audio import SAMPLE_RATE, write_audio
from kdkit.speech.batches import Batches, collate
from kdkit.speech.manifest import Utterance

durations = st.lists(st.floats(0.1, 12.0), min_size=1, max_size=60)


def fake(lengths):
    return [
        Utterance(str(i), Path(f"{i}.wav"), seconds, text=f"text {i}", phones=((0.0, ""), (seconds / 2, "a")))
        for i, seconds in enumerate(lengths)
    ]


def make(lengths, **settings):
    """Batches of utterances whose samples are all i + 1, without files."""
    utterances = fake(lengths)

    def read(path):
        i = int(path.stem)
        return torch.full((round(lengths[i] * SAMPLE_RATE),), (i + 1) / 1000)

    return Batches(utterances, read=read, **{"workers": 0, **settings})


def ids(batch):
    return [utterance.id for utterance in batch.utterances]


@settings(deadline=None, max_examples=50)
@given(durations, st.integers(0, 5), st.floats(1.0, 40.0))
def test_an_epoch_has_every_utterance_once_within_the_limit(lengths, seed, limit):
    batches = make(lengths, seed=seed, seconds_per_batch=limit)
    seen = []
    for step in range(batches.steps_per_epoch):
        batch = batches.batch(step)
        seen += ids(batch)
        if len(batch) > 1:
            assert int(batch.lengths.max()) * len(batch) <= limit * SAMPLE_RATE + len(batch)
    assert sorted(seen, key=int) == [str(i) for i in range(len(lengths))]


@settings(deadline=None, max_examples=50)
@given(durations, st.floats(1.0, 40.0))
def test_epoch_is_one_pass_longest_first_within_the_limit(lengths, limit):
    seen, last = [], float("inf")
    for batch in make(lengths, seconds_per_batch=limit).epoch():
        seen += ids(batch)
        if len(batch) > 1:
            assert int(batch.lengths.max()) * len(batch) <= limit * SAMPLE_RATE + len(batch)
        for utterance in batch.utterances:
            assert utterance.duration <= last
            last = utterance.duration
    assert sorted(seen, key=int) == [str(i) for i in range(len(lengths))]


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("cache", [False, True])
def test_a_step_does_not_depend_on_history(workers, cache):
    lengths = np.random.default_rng(0).uniform(0.5, 4, 80).tolist()
    arguments = {"seed": 3, "seconds_per_batch": 8}
    straight = make(lengths, workers=0, cache=cache, **arguments)
    jumping = make(lengths, workers=workers, cache=cache, **arguments)
    last = 3 * straight.steps_per_epoch
    expected = {step: straight.batch(step) for step in range(last)}
    for step in (last - 1, 0, 1, 2, 7, 6, straight.steps_per_epoch, 1, *range(5, 20)):
        batch = jumping.batch(step)
        assert torch.equal(batch.waves, expected[step].waves)
        assert torch.equal(batch.lengths, expected[step].lengths)
        assert batch.utterances == expected[step].utterances
    jumping.close()


def test_seeds_and_epochs_differ():
    lengths = np.random.default_rng(0).uniform(0.5, 4, 80).tolist()
    one, other = make(lengths, seed=1, seconds_per_batch=8), make(lengths, seed=2, seconds_per_batch=8)
    steps = range(one.steps_per_epoch)
    first = [one.indices(step) for step in steps]
    assert first != [other.indices(step) for step in steps]
    assert first != [one.indices(step + one.steps_per_epoch) for step in steps]


def test_batches_hold_utterances_of_like_length():
    lengths = np.random.default_rng(0).uniform(0.5, 10, 600).tolist()
    batches = make(lengths, seconds_per_batch=32)
    padded = sum(
        max(lengths[i] for i in batches.indices(s)) * len(batches.indices(s))
        for s in range(batches.steps_per_epoch)
    )
    assert sum(lengths) / padded > 0.85


def test_collate_pads_with_zeros_and_keeps_lengths():
    batch = collate([torch.ones(500), torch.ones(800)], fake([1, 2]))
    assert batch.waves.shape == (2, 800) and batch.waves.dtype == torch.float32
    assert batch.lengths.tolist() == [500, 800] and batch.lengths.dtype == torch.int64
    assert float(batch.waves[0, :500].min()) == 1 and float(batch.waves[0, 500:].abs().max()) == 0
    assert len(batch.to("cpu")) == 2 and batch.seconds == pytest.approx(1300 / SAMPLE_RATE)


def test_bad_files_are_skipped_counted_and_reported_once(tmp_path):
    utterances = []
    for i in range(12):
        path = tmp_path / f"{i}.wav"
        write_audio(path, np.full(SAMPLE_RATE, 0.1))
        utterances.append(Utterance(str(i), path, 1.0))
    (tmp_path / "3.wav").unlink()
    (tmp_path / "7.wav").write_text("not audio")
    batches = Batches(utterances, seconds_per_batch=2)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        seen = [name for step in range(2 * batches.steps_per_epoch) for name in ids(batches.batch(step))]
        seen_in_epoch = [name for batch in batches.epoch() for name in ids(batch)]
    good = {str(i) for i in range(12)} - {"3", "7"}
    assert set(seen) == good and sorted(seen_in_epoch) == sorted(good)
    assert sorted(name for name, _ in batches.skipped) == ["3", "7"]
    assert any("no such audio file" in reason for _, reason in batches.skipped)
    assert len([w for w in caught if "skipped" in str(w.message)]) == 1


def test_a_batch_of_bad_files_gives_way_to_another():
    def read(path):
        if int(path.stem) > 2:  # three of six
            raise AudioError(f"{path}: bad")
        return torch.ones(1000)

    batches = Batches(fake([1.0] * 6), seconds_per_batch=1, workers=0, read=read)
    with pytest.warns(UserWarning, match="bad"):
        seen = [ids(batches.batch(step)) for step in range(12)]
    assert all(seen) and {name for names in seen for name in names} == {"0", "1", "2"}


@pytest.mark.parametrize("workers", [0, 1])
def test_no_readable_file_at_all_is_fatal(workers):
    def read(path):
        raise AudioError(f"{path}: bad")

    batches = Batches(fake([1.0] * 6), seconds_per_batch=1, workers=workers, read=read)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(TrainingError, match="6 audio files cannot be read"):
            batches.batch(0)
        with pytest.raises(TrainingError, match="6 audio files cannot be read"):
            list(batches.epoch())


def test_a_bug_in_reading_is_not_hidden():
    def read(path):
        raise RuntimeError("a bug")

    for workers in (0, 1):
        with pytest.raises(RuntimeError, match="a bug"):
            Batches(fake([1.0]), workers=workers, read=read).batch(0)


def test_the_next_batches_are_read_in_the_background():
    read_by = set()

    def read(path):
        read_by.add(threading.current_thread().name)
        return torch.ones(1000)

    batches = Batches(fake([1.0] * 20), seconds_per_batch=2, workers=1, read=read)
    for step in range(5):
        batches.batch(step)
    assert any(name.startswith("batches") for name in read_by)
    batches.close()
    assert len(batches.batch(1)) == 2  # still works, without the thread


def test_the_cache_reads_each_file_once():
    count = {}

    def read(path):
        count[path] = count.get(path, 0) + 1
        return torch.full((1000,), 0.25)

    batches = Batches(fake([1.0] * 6), seconds_per_batch=2, workers=0, cache=True, read=read)
    for step in range(3 * batches.steps_per_epoch):
        assert float(batches.batch(step).waves.max()) == 0.25
    assert set(count.values()) == {1}


def test_impossible_settings():
    with pytest.raises(ConfigError, match="no utterances"):
        Batches([])
    with pytest.raises(ConfigError, match="seconds_per_batch"):
        make([1.0], seconds_per_batch=0)
    with pytest.raises(ConfigError, match="seconds_per_batch must be more than 0, not nan"):
        make([1.0], seconds_per_batch=float("nan"))
    with pytest.raises(ConfigError, match="step"):
        make([1.0]).batch(-1)
