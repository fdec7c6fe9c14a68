"""Audio in: every format and rate becomes mono 16 kHz; every kind of bad file is named, never a traceback."""

import numpy as np
import pytest
import soundfile
import torch

from kdkit.common.errors import AudioError, KdkitError
from kdkit.speech.audio import SAMPLE_RATE, read_audio, write_audio
from kdkit.speech.frames import RECEPTIVE_FIELD


def tone(hertz, rate=SAMPLE_RATE, seconds=1.0):
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(rate * seconds)) / rate)


def loudest_hertz(wave):
    spectrum = np.abs(np.fft.rfft(np.asarray(wave) * np.hanning(len(wave))))
    return spectrum.argmax() * SAMPLE_RATE / len(wave)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("a.wav", {"subtype": "PCM_16"}),
        ("a.wav", {"subtype": "FLOAT"}),
        ("a.wav", {"subtype": "PCM_24"}),
        ("a.flac", {}),
        ("a.ogg", {"subtype": "VORBIS"}),
        ("a.ogg", {"subtype": "OPUS"}),
        ("a.mp3", {}),
    ],
)
@pytest.mark.parametrize("rate", [8_000, 16_000, 24_000, 44_100])
def test_formats_and_rates_keep_the_tone(tmp_path, name, arguments, rate):
    if arguments.get("subtype") == "OPUS" and rate == 44_100:
        pytest.skip("Opus has no 44.1 kHz")
    soundfile.write(tmp_path / name, tone(440, rate), rate, **arguments)
    wave = read_audio(tmp_path / name)
    assert wave.dtype == torch.float32 and wave.ndim == 1
    assert abs(len(wave) - SAMPLE_RATE) < 0.15 * SAMPLE_RATE  # lossy codecs pad
    assert loudest_hertz(wave) == pytest.approx(440, abs=3)
    middle = wave[2_000:-2_000]  # codecs ring at the ends
    assert float(middle.abs().max()) == pytest.approx(0.5, abs=0.1)


def test_sixteen_bit_wav_is_read_exactly(tmp_path):
    samples = np.arange(-2000, 2000, dtype=np.int16)
    soundfile.write(tmp_path / "a.wav", samples, SAMPLE_RATE)
    assert torch.equal(read_audio(tmp_path / "a.wav"), torch.from_numpy(samples) / 32768)


def test_stereo_is_averaged(tmp_path):
    left, right = tone(300), tone(1000)
    soundfile.write(tmp_path / "a.wav", np.stack([left, right], axis=1), SAMPLE_RATE, subtype="FLOAT")
    np.testing.assert_allclose(read_audio(tmp_path / "a.wav"), (left + right) / 2, atol=1e-6)


def test_stereo_44k_has_the_right_length_and_no_alias(tmp_path):
    high = tone(12_000, 44_100)  # above what 16 kHz can carry: must vanish, not fold down to 4 kHz
    soundfile.write(tmp_path / "a.wav", np.stack([high, high], axis=1), 44_100)
    wave = read_audio(tmp_path / "a.wav")
    assert abs(len(wave) - SAMPLE_RATE) <= 1
    assert float(wave[1000:-1000].abs().max()) < 1e-3


def test_write_then_read(tmp_path):
    wave = torch.from_numpy(tone(200)).float()
    write_audio(tmp_path / "deep" / "a.wav", wave)
    assert torch.allclose(read_audio(tmp_path / "deep" / "a.wav"), wave, atol=1 / 32768)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["a.wav"]  # no temporary file stays


def test_loud_samples_are_clipped_not_wrapped(tmp_path):
    write_audio(tmp_path / "a.wav", np.full(1000, 1.5))
    assert float(read_audio(tmp_path / "a.wav").min()) > 0.99


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.wav"
    write_audio(path, tone(200))
    before = path.read_bytes()
    with pytest.raises(AudioError, match="NaN"):
        write_audio(path, np.full(1000, np.nan))
    with pytest.raises(AudioError, match="shape"):
        write_audio(path, np.zeros((2, 1000)))
    assert path.read_bytes() == before


def expect_error(path, *words):
    with pytest.raises(AudioError) as caught:
        read_audio(path)
    assert isinstance(caught.value, KdkitError)
    for word in (str(path), *words):
        assert word in str(caught.value)


def test_missing_file(tmp_path):
    expect_error(tmp_path / "none.wav", "no such audio file")


def test_a_folder_is_no_file(tmp_path):
    expect_error(tmp_path, "no such audio file")


def test_empty_file(tmp_path):
    (tmp_path / "a.wav").touch()
    expect_error(tmp_path / "a.wav", "empty")


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.mp3"])
def test_text_is_not_audio(tmp_path, name):
    (tmp_path / name).write_text("this is a shopping list, not sound\n" * 50)
    expect_error(tmp_path / name, "not an audio file")


@pytest.mark.parametrize("keep", [0.99, 0.5, 0.1])
def test_truncated_wav(tmp_path, keep):
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(440), SAMPLE_RATE)
    path.write_bytes(path.read_bytes()[: round(path.stat().st_size * keep)])
    expect_error(path, "truncated")


def test_wav_cut_inside_its_header(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(440), SAMPLE_RATE)
    path.write_bytes(path.read_bytes()[:30])
    expect_error(path)


def test_truncated_flac(tmp_path):
    path = tmp_path / "a.flac"
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, SAMPLE_RATE)
    soundfile.write(path, noise, SAMPLE_RATE)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    expect_error(path)


def test_a_streamed_wav_without_sizes_is_read(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(440), SAMPLE_RATE)
    data = bytearray(path.read_bytes())
    data[4:8] = b"\xff\xff\xff\xff"  # what tools write that cannot seek in their output
    data[40:44] = b"\xff\xff\xff\xff"
    path.write_bytes(data)
    assert len(read_audio(path)) == SAMPLE_RATE


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_samples_that_are_not_finite(tmp_path, value):
    wave = tone(440)
    wave[777] = value
    soundfile.write(tmp_path / "a.wav", wave, SAMPLE_RATE, subtype="FLOAT")
    expect_error(tmp_path / "a.wav", "sample 777")


def test_the_shortest_audio(tmp_path):
    soundfile.write(tmp_path / "ok.wav", tone(440)[:RECEPTIVE_FIELD], SAMPLE_RATE)
    assert len(read_audio(tmp_path / "ok.wav")) == RECEPTIVE_FIELD
    soundfile.write(tmp_path / "a.wav", tone(440)[: RECEPTIVE_FIELD - 1], SAMPLE_RATE)
    expect_error(tmp_path / "a.wav", "399", "25 ms")


def test_audio_without_samples(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(0), 44_100)
    expect_error(tmp_path / "a.wav", "0 samples")


def test_short_audio_is_measured_at_16_khz(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(440, 48_000)[:600], 48_000)  # 600 samples, but 12.5 ms
    expect_error(tmp_path / "a.wav", "200")
