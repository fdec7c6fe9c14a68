"""Teacher targets on disk: the same as live ones, whole or not there, and never those of another teacher."""

import math
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from kdkit.common.errors import CheckpointError, ConfigError
from kdkit.distill import DistillConfig, DistillTask
from kdkit.model.speech_model import ModelConfig, SpeechModel
from kdkit.speech.batches import Batches
from kdkit.speech.frames import num_frames
from kdkit.speech.manifest import Utterance
from kdkit.teachers import Teacher
from kdkit.teachers.targets import TargetCache
from kdkit.training.loop import train
from kdkit.training.recipe import TrainConfig

CONFIG = ModelConfig(
    layers=2, dim=16, ffn=32, heads=2, conv_channels=(4,) * 7, pos_kernel=8, pos_groups=4, dropout=0.0
)
PAIRS = ((1, 1), (2, 2))
RECIPE = TrainConfig(steps=8, lr=1e-3, precision="fp32", log_every=1)


def teacher(seed=0):
    torch.manual_seed(seed)
    return Teacher(SpeechModel(CONFIG).requires_grad_(False).eval(), None, f"test {seed}", {})


def student():
    torch.manual_seed(7)
    return SpeechModel(CONFIG)


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("speech"), np.random.default_rng(0)
    utterances = []
    for i, seconds in enumerate((0.4, 0.61, 0.5, 0.83, 0.7)):
        path = folder / f"{i}.wav"
        soundfile.write(path, 0.1 * rng.standard_normal(round(seconds * 16_000)), 16_000)
        utterances.append(Utterance(f"u{i}", path, seconds))
    return utterances


def cache(speech, root, who=None, layers=(1, 2)):
    return TargetCache(who or teacher(), layers, speech, root, precision="fp32")


def test_the_size_is_announced_before_anything_is_written(speech, tmp_path):
    made = cache(speech, tmp_path)
    assert str(made.folder) in made.announcement and not made.folder.exists()
    made.build(progress=False)
    written = sum(path.stat().st_size for path in made.folder.iterdir())
    assert made.bytes < written < made.bytes + 2000  # a header for names and checksums


def test_targets_of_nothing_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="no utterances to compute targets of"):
        cache([], tmp_path)


def test_a_folder_whose_name_is_no_utf_8(speech, tmp_path):
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xe9t\xe9"))
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("this file system has names in UTF-8 only")
    shutil.copy(speech[0].audio, folder / "0.wav")
    moved = [replace(speech[0], audio=folder / "0.wav")]
    made = cache(moved, tmp_path).build(progress=False)
    assert made.folder != cache(speech[:1], tmp_path).folder
    frames = int(num_frames(speech[0].samples))
    assert made.read(moved, [frames], frames).hidden[1].shape[1] == frames


def test_cached_targets_are_the_live_ones_in_float16(speech, tmp_path):
    who = teacher()
    batch = Batches(speech, 2.0, targets=cache(speech, tmp_path, who).build(progress=False)).batch(0)
    live = who.to("cpu").hidden(batch.waves, batch.lengths)
    for layer, cached in batch.targets.hidden.items():
        assert cached.dtype == torch.float16 and cached.shape == live.hidden[layer].shape
        torch.testing.assert_close(
            cached[live.mask].float(), live.hidden[layer][live.mask], rtol=1e-3, atol=2e-3
        )
        assert (cached[~live.mask] == 0).all()


def test_training_is_the_same_live_and_cached(speech, tmp_path):
    made = cache(speech, tmp_path).build(progress=False)
    losses = {}
    for name, targets in (("live", None), ("cached", made)):
        task = DistillTask(student(), teacher(), DistillConfig(PAIRS))
        log = train(task, Batches(speech, 1.5, targets=targets), RECIPE, tmp_path / name)
        losses[name] = [row["loss"] for row in log]
    assert losses["cached"] == pytest.approx(losses["live"], rel=2e-3)
    assert losses["cached"] != losses["live"]  # else the cache was not used


def test_building_goes_on_where_it_was_stopped(speech, tmp_path, monkeypatch):
    monkeypatch.setattr("kdkit.teachers.targets._SHARD", 2)
    made = cache(speech, tmp_path)
    write, done = made._write, []

    def stop_at_the_second(shard, *rest):
        if shard == 1:
            raise KeyboardInterrupt
        done.append(shard)
        write(shard, *rest)

    monkeypatch.setattr(made, "_write", stop_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        made.build(progress=False)
    assert [path.name for path in made.folder.iterdir()] == ["00000.safetensors"]
    with pytest.raises(CheckpointError, match=r"00001.*build the cache"):
        made.read(speech[2:4], [24, 40], 60)
    again = cache(speech, tmp_path)
    monkeypatch.setattr(again, "_write", lambda shard, *rest: (done.append(shard), write(shard, *rest)))
    again.build(progress=False)
    assert done == [0, 1, 2]


def test_a_truncated_shard_is_made_again(speech, tmp_path):
    made = cache(speech, tmp_path).build(progress=False)
    (path,) = made.folder.iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="no whole shard"):
        cache(speech, tmp_path).read(speech[:1], [19], 60)
    cache(speech, tmp_path).build(progress=False)
    assert path.read_bytes() == whole


def stored(made):
    """{id: targets} as training reads them."""
    batch = Batches(made.utterances, 9.0, targets=made).batch(0)
    layers = torch.stack([batch.targets.hidden[layer].float() for layer in made.layers])
    return {utterance.id: layers[:, row] for row, utterance in enumerate(batch.utterances)}


def same(a, b):
    return all(torch.allclose(a[name], b[name], atol=2e-3) for name in a)


def test_sound_replaced_in_place_gets_new_targets(speech, tmp_path):
    copies = [replace(u, audio=shutil.copy(u.audio, tmp_path / u.audio.name)) for u in speech]
    first = stored(cache(copies, tmp_path / "cache").build(progress=False))
    old = cache(copies, tmp_path / "cache")
    wave, _ = soundfile.read(copies[0].audio)
    soundfile.write(copies[0].audio, wave[::-1], 16_000)  # of the same length
    with pytest.raises(CheckpointError, match=r"00000.*files changed since; build the cache"):
        stored(old)
    again = stored(old.build(progress=False))
    fresh = stored(cache(copies, tmp_path / "other").build(progress=False))
    assert same(again, fresh) and not same(again, first)
    with pytest.raises(
        CheckpointError, match=r"u1: its targets have 30 frames, .* has 31: the file was changed"
    ):
        old.read([copies[1]], [31], 40)  # changed while the cache is in use


def test_the_same_weights_with_other_settings_are_another_teacher(speech, tmp_path):
    cache(speech, tmp_path).build(progress=False)
    other = teacher()
    other.model.config = replace(other.model.config, residual_scale=2.0)
    other = Teacher(other.model, None, "other", {})
    with pytest.raises(CheckpointError, match="targets of another teacher"):
        cache(speech, tmp_path, other).read(speech[:1], [19], 60)


@pytest.mark.parametrize("wrong", ["layers", "width", "type", "frames", "utterances", "no header", "bits"])
def test_a_shard_that_does_not_fit_is_refused_and_made_again(speech, tmp_path, wrong):
    made = cache(speech, tmp_path).build(progress=False)
    right, (path,) = stored(made), made.folder.iterdir()
    tensors, header = load_file(path), {"kdkit-targets": safe_open(path, "pt").metadata()["kdkit-targets"]}
    states = tensors["u0"]
    if wrong == "utterances":
        tensors["u9"] = tensors.pop("u0")
    elif wrong == "no header":
        header = {"kdkit-targets": "[]"}
    elif wrong == "bits":
        tensors["u0"] = states.clone().view(torch.int16).bitwise_xor(1).view(torch.float16)
    else:
        changed = {
            "layers": states[:1],
            "width": states[..., :8],
            "type": states.float(),
            "frames": states[:, :-1],
        }
        tensors["u0"] = changed[wrong].contiguous()
    save_file(tensors, path, header)
    with pytest.raises(CheckpointError, match=r"build the cache|build the cache again"):
        stored(cache(speech, tmp_path))
    if wrong in ("bits", "frames"):  # seen when they are read only
        path.unlink()
    assert same(stored(cache(speech, tmp_path).build(progress=False)), right)


def test_another_teacher_has_another_cache_and_is_refused(speech, tmp_path):
    made = cache(speech, tmp_path).build(progress=False)
    assert cache(speech, tmp_path, teacher(1)).folder != made.folder
    assert cache(speech[1:], tmp_path).folder != made.folder
    task = DistillTask(student(), teacher(1), DistillConfig(PAIRS))
    with pytest.raises(ConfigError, match="another teacher"):
        train(task, Batches(speech, 1.5, targets=made), RECIPE, tmp_path / "run")
    task = DistillTask(student(), teacher(), DistillConfig(((0, 0),)))
    with pytest.raises(ConfigError, match=r"lack the layers \[0\]"):
        train(task, Batches(speech, 1.5, targets=made), RECIPE, tmp_path / "run")


def test_what_cannot_be_is_refused_before_anything_is_computed(speech, tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="layers 0 to 2"):
        cache(speech, tmp_path, layers=(1, 3))
    made = cache(speech, tmp_path)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10))
    with pytest.raises(ConfigError, match="compute targets live"):
        made.build(progress=False)
    assert not list(made.folder.iterdir())


def test_an_unreadable_file_is_left_out_of_the_cache_too(speech, tmp_path):
    broken = [*speech, Utterance("gone", tmp_path / "gone.wav", 0.5)]
    with pytest.warns(UserWarning, match="skipped"):
        made = cache(broken, tmp_path).build(progress=False)
    batches = Batches(broken, 10.0, targets=made)
    with pytest.warns(UserWarning, match="skipped"):
        batch = batches.batch(0)
    assert "gone" not in [u.id for u in batch.utterances] and math.isfinite(batch.seconds)
