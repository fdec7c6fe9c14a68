"""kdkit's own files and the settings in them: what is damaged is named in one line, and asks for no memory."""

import math
import time

import pytest
import torch
from safetensors.torch import _SIZE, load_file, save_file

from kdkit.common.errors import AudioError, CheckpointError, ConfigError
from kdkit.model.checkpoints import load_checkpoint, save_checkpoint
from kdkit.model.speech_model import ModelConfig, SpeechModel
from kdkit.recognition.ctc import CTCModel, load_recogniser, save_recogniser
from kdkit.teachers import Teacher, load_model, load_teacher, save_model

SMALL = ModelConfig(layers=2, dim=16, ffn=16, heads=2, conv_channels=(8,) * 7, pos_kernel=4, pos_groups=2)

WRONG = [
    ("layers", (0, -1, 1.5, "12", None, True, 10**9, [2], math.nan)),
    ("dim", (0, -160, 10**9, "160", None)),
    ("ffn", (0, -1, 10**9, "x", None)),
    ("heads", (0, -1, 2.0, 3, "x", None)),
    ("conv_channels", (None, 7, "8888888", [8] * 6, [0] * 7, [-1] * 7, [8.0] * 7, [10**6] * 7)),
    ("pos_kernel", (0, -1, 10**6, "x", None)),
    ("pos_groups", (0, 3, "x", None)),
    ("residual_scale", (0, -1, math.nan, math.inf, 1e308, "x", None, True)),
    ("dropout", (-1, 1, 2, math.nan, "x", None, False)),
    ("relative_buckets", (-1, 3, 10**9, "x", None)),
    ("relative_distance", (0, -1, 10**9, 1.5, None)),
    ("normalise_epsilon", (0, -1, 1, math.nan, "x", None)),
    ("front_end", ("mel", None, 5, ["fbank"])),
    ("normalisation", ("x", None)),
    ("conv_norm", ("x", None, True)),
    *((name, (5, 0, "x", None)) for name in ("pre_norm", "conv_bias", "normalise_input", "feature_norm")),
]


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG for value in values])
def test_settings_that_cannot_be(name, value):
    with pytest.raises(ConfigError, match=name) as error:
        ModelConfig(**SMALL.to_dict() | {name: value})
    assert "\n" not in str(error.value) and len(str(error.value)) < 300


def test_settings_that_can_be():
    for changes in ({"heads": 1}, {"dropout": 0}, {"residual_scale": 2}, {"relative_buckets": 4}):
        assert SpeechModel(ModelConfig(**SMALL.to_dict() | changes)).config.layers == 2
    assert ModelConfig(layers=torch.tensor(2).numpy().item(), conv_channels=[8] * 7).conv_channels == (8,) * 7


@pytest.fixture
def teacher_file(tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "teacher.safetensors"
    save_model(path, SpeechModel(SMALL), {})
    return path


@pytest.fixture
def recogniser_file(tmp_path):
    path = tmp_path / "recogniser.safetensors"
    save_recogniser(path, CTCModel(SpeechModel(SMALL)), {})
    return path


def rewritten(path, tensors=None, model=None, meta=None):
    """The file with other tensors, settings of the model, or a header that is ``meta``."""
    old, described = load_checkpoint(path)
    if meta is None:
        save_checkpoint(
            path, old | (tensors or {}), described | {"model": described["model"] | (model or {})}
        )
    else:
        save_file(old, path, {"kdkit-1": meta})  # as an earlier kdkit wrote it, without a checksum
    return path


def refused(load, path) -> str:
    begun = time.perf_counter()
    with pytest.raises(CheckpointError) as error:
        load(path)
    said = str(error.value)
    assert str(path) in said and "\n" not in said and len(said) < 900
    assert time.perf_counter() - begun < 20  # the machine may be busy
    return said


@pytest.mark.parametrize("load", [load_model, load_recogniser])
@pytest.mark.parametrize(
    ("model", "words"),
    [
        ({"layers": 10**9}, "layers is 1000000000"),
        ({"layers": 100}, "missing"),
        ({"layers": 120, "dim": 16_384, "ffn": 1_000_000}, "missing"),
        ({"pos_kernel": 8000}, "other shapes"),
        ({"residual_scale": math.nan}, "residual_scale is nan"),
        ({"pre_norm": "x"}, "pre_norm is 'x'"),
        ({"layerz": 3}, "unknown model settings ['layerz']"),
    ],
)
def test_a_header_that_does_not_belong_to_the_tensors(load, model, words, teacher_file, recogniser_file):
    path = teacher_file if load is load_model else recogniser_file
    assert words in refused(load, rewritten(path, model=model))


@pytest.mark.parametrize(
    "meta", ["null", "1", "[]", "{", '{"model": null}', '{"model": 5}', "{}", "[" * 10**5]
)
def test_a_header_that_is_no_description(meta, teacher_file, recogniser_file):
    refused(load_model, rewritten(teacher_file, meta=meta))
    refused(load_recogniser, rewritten(recogniser_file, meta=meta))


NAME = "model.encoder.layers.0.ffn_in.weight"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.fill_(math.nan), "not finite"),
        (lambda t: t.index_fill(0, torch.tensor(3), math.inf), "not finite"),
        (lambda t: t.to(torch.int16), "is int16"),
        (lambda t: t.to(torch.int8), "is int8"),
        (lambda t: t.to(torch.bool), "is bool"),
        (lambda t: t.to(torch.float8_e5m2), "is float8_e5m2"),
        (lambda t: t.to(torch.complex64), "is complex64"),
        (lambda t: t[0, 0], "other shapes"),
    ],
)
def test_tensors_that_are_no_weights(change, words, teacher_file, recogniser_file):
    for load, path in ((load_model, teacher_file), (load_recogniser, recogniser_file)):
        tensors = load_file(path)
        changed = change(tensors[NAME].clone())
        if changed.dtype not in _SIZE:
            pytest.skip(f"this safetensors writes no {changed.dtype}")
        assert words in refused(load, rewritten(path, {NAME: changed}))


@pytest.mark.parametrize("load", [load_model, load_recogniser])
def test_one_bit_that_tipped_over(load, teacher_file, recogniser_file):
    path = teacher_file if load is load_model else recogniser_file
    assert "checksum" not in load_checkpoint(path)[1], "it is the file's own affair"
    good = path.read_bytes()
    places = (len(good) - 100, good.find(b'heads\\": 2') + 9, good.find(b'residual_scale\\": 1.0') + 20)
    for place, bit in zip(places, (0x10, 0x03, 0x04), strict=True):  # a weight; heads 1; residual scale 5.0
        data = bytearray(good)
        data[place] ^= bit
        path.write_bytes(data)
        assert "content does not match its checksum" in refused(load, path)


def test_two_kinds_of_half_precision_in_one_file_are_damage(teacher_file):
    tensors = {name: tensor.half() for name, tensor in load_file(teacher_file).items()}
    assert load_model(rewritten(teacher_file, tensors))[0].config == SMALL
    other = {NAME: tensors[NAME].view(torch.bfloat16)}  # as one changed letter of the header reads it
    assert "some weights are float16, others bfloat16" in refused(load_model, rewritten(teacher_file, other))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 5\n", "Git-LFS pointer"),
        (b"<!DOCTYPE html><html>not found</html>", "a web page"),
        (b"\n<html>", "a web page"),
        (b"", "an empty file"),
        (b"something else", "not a whole safetensors file"),
    ],
)
def test_what_lies_there_in_place_of_the_file(content, words, tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    for load in (load_checkpoint, load_model, load_recogniser, load_teacher):
        assert words in refused(load, path)


def test_a_codebook_that_is_damaged(tmp_path):
    path = tmp_path / "teacher.safetensors"
    good = load_teacher()
    save_model(path, good.model, {}, good.codebook)
    assert load_model(path)[1].tau == good.codebook.tau
    tensors, meta = load_checkpoint(path)
    for change in ({"tau": None}, {"tau": 0}, {"tau": "x"}, {"tau": math.nan}):
        save_checkpoint(path, tensors, meta | change)
        assert "tau is" in refused(load_model, path)
    save_checkpoint(path, tensors | {"codebook.label_embeddings": torch.zeros(3)}, meta)
    assert "its codebook is damaged" in refused(load_model, path)


# --- the batch that a teacher is given ----------------------------------------------------------------------


@pytest.fixture(scope="module", params=["waveform", "fbank"])
def teacher(request):
    return Teacher(SpeechModel(ModelConfig(**SMALL.to_dict() | {"front_end": request.param})), None, "x")


@pytest.mark.parametrize("size", [0, 1, 399])
def test_less_than_a_frame(teacher, size):
    with pytest.raises(AudioError, match=f"an utterance of {size} samples: 400 make the first frame"):
        teacher.hidden(torch.zeros(1, size), torch.tensor([size]))
    with pytest.raises(AudioError, match=f"an utterance of {size} samples"):
        teacher.hidden(torch.zeros(2, 800), torch.tensor([800, size]))
    assert teacher.hidden(torch.randn(1, 400), torch.tensor([400])).last.shape == (1, 1, 16)


def test_what_is_no_batch(teacher):
    with pytest.raises(AudioError, match=r"wave\[None\] makes a batch"):
        teacher.hidden(torch.zeros(800), torch.tensor([800]))
    with pytest.raises(AudioError, match="lengths"):
        teacher.hidden(torch.zeros(2, 800), torch.tensor([800]))
    with pytest.raises(AudioError, match="801 samples in a batch of 800"):
        teacher.hidden(torch.zeros(1, 800), torch.tensor([801]))
    with pytest.raises(AudioError, match="waves are int16"):
        teacher.hidden(torch.zeros(1, 800, dtype=torch.int16), torch.tensor([800]))
    with pytest.raises(AudioError, match=r"lengths float32: .* whole numbers"):
        teacher.hidden(torch.zeros(1, 800), torch.tensor([800.0]))
    assert teacher.hidden(torch.zeros(1, 800).numpy(), [800]).last.shape == (1, 2, 16)


def test_waves_that_need_a_gradient_get_none(teacher):
    waves = (0.1 * torch.randn(1, 4000)).requires_grad_()
    output = teacher.hidden(waves, torch.tensor([4000]))
    assert not output.last.requires_grad and output.last.isfinite().all()
    double = teacher.hidden(waves.detach().double(), torch.tensor([4000])).last
    torch.testing.assert_close(double.float(), output.last, atol=1e-4, rtol=0)
