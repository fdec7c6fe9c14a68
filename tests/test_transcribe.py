"""The finished product: windows that agree with the whole, files of every kind, times, processes, exit status."""

import json
import os
import random
import struct
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import kdkit
from kdkit.commands.main import app
from kdkit.common.errors import AudioError, CheckpointError, ConfigError
from kdkit.lessons.widgets import CTCViewer
from kdkit.model.speech_model import ModelConfig, SpeechModel
from kdkit.recognition.ctc import CTCModel, save_recogniser
from kdkit.recognition.decode import BeamSearch
from kdkit.recognition.evaluate import evaluate
from kdkit.recognition.loading import load_network
from kdkit.recognition.network import window_for
from kdkit.recognition.transcribe import Recogniser, Settings, locate_words, transcribe_all
from kdkit.recognition.wer import score
from kdkit.speech.audio import blocks_of_file, read_audio, write_audio
from kdkit.speech.corpora.synthetic import build as synthetic
from kdkit.speech.frames import HOP, num_frames
from kdkit.speech.manifest import Utterance
from kdkit.speech.stream import windows
from kdkit.speech.text import VOCABULARY

SHIPPED = "tiny_sw_fbank_distilled_60"


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    """Twelve test utterances: (path, text)."""
    folder, found = tmp_path_factory.mktemp("speech"), []
    for number in range(12):
        wave, fields = synthetic.speak("test-clean", number)
        soundfile.write(folder / f"{number:02d}.wav", wave, 16_000)
        found.append((folder / f"{number:02d}.wav", fields["text"]))
    return found


@pytest.fixture(scope="module")
def recogniser():
    return kdkit.Recogniser.load(SHIPPED)


def letters(text: str, blanks: int = 1) -> torch.Tensor:
    """Sure log-probabilities: every letter for one frame, then blanks; "_" is a blank more."""
    path = []
    for symbol in text:
        path += [0] if symbol == "_" else [VOCABULARY.index(symbol), *([0] * blanks)]
    return (9.0 * torch.nn.functional.one_hot(torch.tensor(path), len(VOCABULARY)).float()).log_softmax(-1)


# --------------------------------------------------------------------------------------------------------- the stream


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 60_000), st.integers(4, 20), st.integers(1, 4), st.integers(1, 20_000))
def test_kept_frames_of_the_windows_are_those_of_the_whole(samples, hops, margin, block):
    wave = np.arange(samples, dtype=np.float32)
    window = (hops + 4 * margin) * HOP
    kept, frames = [], 0
    for piece in windows((wave[i : i + block] for i in range(0, samples, block)), window, margin * HOP):
        total = max(0, num_frames(len(piece.wave)))
        for frame in range(total)[piece.first : piece.stop]:
            kept.append(piece.wave[frame * HOP])  # the sample where a frame begins names it
        frames += total
    assert kept == [HOP * t for t in range(max(0, num_frames(samples)))]


def test_windowed_emissions_agree_with_those_of_the_whole(recogniser, speech):
    wave = np.concatenate([read_audio(path).numpy() for path, _ in speech])
    network, rows = recogniser.network, []
    device = next(network.parameters()).device

    def emissions(samples: np.ndarray) -> torch.Tensor:
        lengths = torch.tensor([len(samples)], device=device)
        return network(torch.from_numpy(samples)[None].to(device), lengths)[0]

    with torch.inference_mode():
        whole = emissions(wave)
        for piece in windows([wave], 5 * 16_000, 16_000):
            rows.append(emissions(piece.wave)[0, piece.first : piece.stop])
    windowed = torch.cat(rows)
    assert windowed.shape == whole[0].shape
    same = (windowed.argmax(-1) == whole[0].argmax(-1)).float().mean()
    assert same > 0.85  # attention sees less in a window, so not all


def test_a_long_file_says_what_its_utterances_say(recogniser, speech, tmp_path):
    soundfile.write(tmp_path / "long.wav", np.concatenate([soundfile.read(p)[0] for p, _ in speech]), 16_000)
    said = " ".join(text for _, text in speech)
    alone = " ".join(recogniser(path) for path, _ in speech)
    together = recogniser.transcribe(tmp_path / "long.wav")
    assert score([said], [together.text]).cer < score([said], [alone]).cer + 0.12
    assert score([alone], [together.text]).cer < 0.15
    assert together.seconds == pytest.approx(sum(soundfile.info(p).duration for p, _ in speech), abs=1e-3)


def test_words_of_a_long_file_lie_in_their_utterance(recogniser, speech, tmp_path):
    gap = 1e-4 * np.random.default_rng(0).standard_normal(
        8000
    )  # without a pause two words at a border may be one
    pieces = [piece for path, _ in speech for piece in (soundfile.read(path)[0], gap)]
    soundfile.write(tmp_path / "long.wav", np.concatenate(pieces), 16_000)
    found, begin = recogniser.transcribe(tmp_path / "long.wav").words, 0.0
    starts = [word.start for word in found]
    assert starts == sorted(starts) and all(w.start < w.end and 0 <= w.score <= 1 for w in found)
    for path, _ in speech:
        end = begin + soundfile.info(path).duration
        alone = recogniser.transcribe(path).words
        inside = [w for w in found if begin <= w.start < end]
        assert abs(len(inside) - len(alone)) <= 2
        assert abs(inside[0].start - begin - alone[0].start) < 0.25
        begin = end + 0.5


def test_memory_does_not_grow_with_the_file(tmp_path):
    def peak(minutes: int) -> int:
        path = tmp_path / f"{minutes}.wav"
        with soundfile.SoundFile(path, "w", 16_000, 1) as file:
            for _ in range(minutes * 6):
                file.write(0.01 * np.random.default_rng(0).standard_normal(160_000))
        tracemalloc.start()
        for _ in windows(blocks_of_file(path), 96_000, 16_000):
            pass
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    assert peak(20) < 1.3 * peak(2) < 20e6


@pytest.mark.parametrize("ending", ["wav", "flac", "ogg", "mp3"])
def test_stereo_at_44100_in_any_format_is_heard_alike(recogniser, speech, tmp_path, ending):
    import soxr

    paths, heard = [path for path, _ in speech[:4]], []
    for number, path in enumerate(paths):
        high = soxr.resample(soundfile.read(path)[0], 16_000, 44_100)
        soundfile.write(copy := tmp_path / f"{number}.{ending}", np.stack([high, high], 1), 44_100)
        heard.append(recogniser(copy))
    assert score([recogniser(path) for path in paths], heard).cer < 0.08


def test_a_streamed_file_is_the_file(tmp_path):
    wave = 0.1 * np.random.default_rng(0).standard_normal(44_100 * 25).astype(np.float32)
    soundfile.write(tmp_path / "x.wav", wave, 44_100, subtype="FLOAT")
    streamed, whole = np.concatenate(list(blocks_of_file(tmp_path / "x.wav"))), read_audio(tmp_path / "x.wav")
    assert abs(len(streamed) - len(whole)) <= 1
    np.testing.assert_allclose(streamed[:300_000], whole[:300_000], atol=1e-4)


def test_arrays(recogniser, speech):
    path, _ = speech[1]
    wave, rate = soundfile.read(path, dtype="float32")
    text = recogniser(path)
    assert (
        recogniser(wave, rate) == recogniser((wave, rate)) == recogniser(torch.from_numpy(wave), rate) == text
    )
    assert recogniser(np.stack([wave, wave]), rate) == recogniser(np.stack([wave, wave], 1), rate) == text
    assert recogniser((wave * 32768).astype(np.int16), rate) == text
    with pytest.raises(ConfigError, match="need their rate"):
        recogniser(wave)
    with pytest.raises(ConfigError, match="rate is 0"):
        recogniser(wave, 0)
    with pytest.raises(ConfigError, match="float or int16"):
        recogniser(np.zeros((2, 2, 2), np.float32), rate)
    with pytest.raises(AudioError, match="no samples"):
        recogniser(np.zeros(0, np.float32), rate)
    with pytest.raises(AudioError, match="sample 7 is NaN"):
        recogniser(np.where(np.arange(900) == 7, np.nan, 0.0), rate)


@pytest.mark.parametrize("samples", [1, 399, 400])
def test_the_shortest_files_say_nothing(recogniser, tmp_path, samples):
    soundfile.write(tmp_path / "x.wav", np.zeros(samples), 16_000)
    transcript = recogniser.transcribe(tmp_path / "x.wav")
    assert len(transcript.text) <= 1 and transcript.seconds == pytest.approx(samples / 16_000, abs=1e-3)
    assert samples == 400 or transcript.text == ""


# -------------------------------------------------------------------------------------------------------------- times


def test_times_of_words_worked_by_hand():
    found = locate_words(letters("__at|__it"), "at it", start=100)
    assert [w.word for w in found] == ["at", "it"]
    assert found[0].start == pytest.approx(102 * 0.02 + 0.0025) and found[0].end == pytest.approx(
        105 * 0.02 + 0.0025
    )
    assert found[1].start == pytest.approx(110 * 0.02 + 0.0025) and found[1].score > 0.9
    assert locate_words(letters("ab"), "") == []
    double = locate_words(letters("bell"), "bell")
    assert len(double) == 1 and double[0].end == pytest.approx(7 * 0.02 + 0.0025)


def test_times_agree_with_the_phones(recogniser, speech):
    off = []
    for number, (path, _) in enumerate(speech):
        phones = synthetic.speak("test-clean", number)[1]["phones"]
        words = recogniser.transcribe(path).words
        begins, ends = next(t for t, s in phones if s), [t for t, s in phones if not s][-1]
        off += [words[0].start - begins, ends - words[-1].end]
    assert np.median(np.abs(off)) < 0.08


# --------------------------------------------------------------------------------------------- one text, whichever way


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    """Sixty test utterances, four recordings of six sentences with pauses of 0.1 to 1 s, and one of 35 s without."""
    folder, found, rng = tmp_path_factory.mktemp("manifest"), [], np.random.default_rng(0)
    spoken = [synthetic.speak("test-other", number) for number in range(60)]

    def add(name: str, wave: np.ndarray, text: str) -> None:
        write_audio(folder / f"{name}.wav", wave)
        found.append(Utterance(name, folder / f"{name}.wav", len(wave) / 16_000, text, "voice"))

    for number, (wave, fields) in enumerate(spoken):
        add(f"{number:02d}", wave, fields["text"])
    for long, pause in enumerate((0.1, 0.4, 0.7, 1.0, 0.0)):
        some = spoken[6 * long : 6 * long + 6] if pause else spoken[:12]
        gap = 1e-4 * rng.standard_normal(round(16_000 * pause))
        wave = np.concatenate([piece for wave, _ in some for piece in (wave, gap)])
        add(f"long{long}", wave, " ".join(fields["text"] for _, fields in some))
    return found


@pytest.mark.parametrize("window", [None, 3.0])
def test_transcribe_evaluate_and_finetune_give_the_same_text(recogniser, manifest, window):
    network = recogniser.network
    listener = Recogniser(network, window=window)
    transcribed = [t.text for t in listener.transcribe_files([u.audio for u in manifest])]
    evaluated = evaluate(network, manifest, window=window).score.hypotheses
    assert list(evaluated) == transcribed
    if window is None:
        viewer = CTCViewer({"shipped": network}, manifest)
        assert list(viewer.heard()[1].hypotheses) == transcribed


def test_transcribe_and_evaluate_give_the_same_text_of_a_beam_search(recogniser, manifest):
    pytest.importorskip("flashlight.lib.text.decoder.kenlm")
    lexicon = tuple(sorted({word for utterance in manifest for word in utterance.text.split()}))
    search, some = BeamSearch(lexicon, beam=20), [*manifest[:10], manifest[-2], manifest[-1]]
    transcribed = [
        t.text for t in Recogniser(recogniser.network, search).transcribe_files([u.audio for u in some])
    ]
    assert list(evaluate(recogniser.network, some, search, jobs=1).score.hypotheses) == transcribed


def test_a_recogniser_hears_as_much_at_once_as_it_was_trained_on(tmp_path):
    network = small()
    assert Recogniser(network).window == 6 * 16_000 and Recogniser(network).margin == 16_000
    network.window = 17.3
    save_recogniser(tmp_path / "r.safetensors", network, {})
    assert Recogniser.load(tmp_path / "r.safetensors").window == 17.3 * 16_000
    assert Recogniser.load(tmp_path / "r.safetensors", window=3).margin == 8000
    for wrong in (0, -3, "6", None, float("nan"), True):
        network.window = wrong
        save_recogniser(tmp_path / "r.safetensors", network, {})
        with pytest.raises(CheckpointError, match=r"r\.safetensors: window is .* a number from 1"):
            Recogniser.load(tmp_path / "r.safetensors")
    network.window = 6.0
    spoken = [Utterance("a", tmp_path / "a.wav", seconds, "a") for seconds in (2.0, 17.3)]
    assert [window_for([]), window_for(spoken[:1]), window_for(spoken)] == [6.0, 6.0, 17.3]
    assert Recogniser(lambda waves, lengths: None).window == 6 * 16_000
    for window, margin in ((0.05, None), (6, 2), (6, 0)):
        with pytest.raises(ConfigError, match="at least four margins"):
            Recogniser(network, window=window, margin=margin)


# ----------------------------------------------------------------------------------------------------- many files


def test_many_files_in_shared_batches_are_heard_as_alone(recogniser, speech, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")  # no ffmpeg
    paths = [path for path, _ in speech]
    (tmp_path / "bad.wav").write_bytes(b"not audio")
    mixed = [*paths[:3], tmp_path / "bad.wav", *paths[3:], tmp_path / "gone.wav"]
    found = recogniser.transcribe_files(mixed)
    assert [t.file for t in found] == [str(p) for p in mixed]
    assert [t.text for t in found if not t.error] == [recogniser(p) for p in paths]
    assert "not an audio file" in found[3].error and "no such audio file" in found[-1].error
    with pytest.raises(AudioError, match="gone"):
        recogniser.transcribe(tmp_path / "gone.wav")


def test_several_processes_give_the_same_in_the_same_order(speech):
    paths = [path for path, _ in speech]
    random.Random(0).shuffle(paths)
    one, two = (list(transcribe_all(Settings(SHIPPED), paths, jobs)) for jobs in (1, 2))
    assert [t.file for t in two] == [str(p) for p in paths]
    assert [t.text for t in one] == [t.text for t in two]
    with pytest.raises(ConfigError, match="jobs must be 1 or more, not 0"):
        next(transcribe_all(Settings(SHIPPED), paths, 0))


@pytest.mark.parametrize(("start", "processes"), [(1e9, 1), (-1.0, 2)])
def test_processes_are_started_only_where_the_work_is_worth_it(speech, monkeypatch, start, processes):
    """What starting them costs against what is left after the first files."""
    seen = []
    monkeypatch.setattr("kdkit.recognition.transcribe.cores", lambda: 2)
    monkeypatch.setattr("kdkit.recognition.transcribe._START", start)
    monkeypatch.setattr(
        "kdkit.recognition.transcribe.each",
        lambda function, tasks, jobs: seen.append(jobs) or map(function, tasks),
    )
    paths = [path for path, _ in speech] * 3
    found = list(transcribe_all(Settings(SHIPPED), paths))
    assert [t.file for t in found] == [str(p) for p in paths] and seen == [processes]


def test_a_truncated_file_is_refused(recogniser, speech, tmp_path):
    whole = speech[0][0].read_bytes()
    (tmp_path / "cut.wav").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(AudioError, match="truncated"):
        recogniser(tmp_path / "cut.wav")
    (tmp_path / "empty.wav").touch()
    with pytest.raises(AudioError, match="0 bytes"):
        recogniser(tmp_path / "empty.wav")


@pytest.mark.skipif(os.name == "nt", reason="the stand-in for ffmpeg is a shell script")
def test_what_libsndfile_cannot_read_goes_through_ffmpeg(recogniser, speech, tmp_path, monkeypatch):
    path, _ = speech[0]
    (tmp_path / "x.m4a").write_bytes(b"some other format")
    wave = soundfile.read(path, dtype="float32")[0]
    header = b".snd" + struct.pack(">5I", 24, 0xFFFFFFFF, 6, 16_000, 1)  # au, as it is asked for
    (tmp_path / "raw").write_bytes(header + wave.astype(">f4").tobytes())
    tool = tmp_path / "ffmpeg"
    tool.write_text(f"#!/bin/sh\ncat {tmp_path / 'raw'}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert recogniser(tmp_path / "x.m4a") == recogniser(path)
    tool.write_text("#!/bin/sh\necho '[error] x.m4a: Invalid data' >&2\nexit 1\n")
    with pytest.raises(AudioError, match=r"ffmpeg cannot read it.*Invalid data"):
        recogniser(tmp_path / "x.m4a")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(AudioError, match="more with ffmpeg installed"):
        recogniser(tmp_path / "x.m4a")


# ----------------------------------------------------------------------------------------------------- kinds of model


def small() -> CTCModel:
    torch.manual_seed(0)
    config = ModelConfig(front_end="waveform", layers=1, dim=32, ffn=32, heads=2, pos_kernel=8, pos_groups=4,
                         conv_channels=(8,) * 7)  # fmt: skip
    return CTCModel(SpeechModel(config)).eval()


def write_onnx(path, vocabulary=VOCABULARY) -> torch.Tensor:
    """A recogniser of one convolution, window 400 and hop 320, as an ONNX file; returns its weights (V, 400)."""
    onnx = pytest.importorskip("onnx")
    helper, kind = onnx.helper, onnx.TensorProto
    weights = 0.1 * torch.randn(len(VOCABULARY), 1, 400, generator=torch.Generator().manual_seed(0))
    constants = {
        "weights": weights.numpy(),
        "one": np.array([1]),
        "window": np.array([400]),
        "hop": np.array([HOP]),
    }
    nodes = [
        helper.make_node("Unsqueeze", ["waves", "one"], ["x"]),
        helper.make_node("Conv", ["x", "weights"], ["y"], strides=[HOP]),
        helper.make_node("Transpose", ["y"], ["logits"], perm=[0, 2, 1]),
        helper.make_node("Sub", ["lengths", "window"], ["inside"]),
        helper.make_node("Div", ["inside", "hop"], ["hops"]),
        helper.make_node("Add", ["hops", "one"], ["frames"]),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "recogniser",
        [value("waves", kind.FLOAT, ["batch", "samples"]), value("lengths", kind.INT64, ["batch"])],
        [
            value("logits", kind.FLOAT, ["batch", "t", len(VOCABULARY)]),
            value("frames", kind.INT64, ["batch"]),
        ],
        [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    helper.set_model_props(model, {"vocabulary": json.dumps(list(vocabulary))})
    onnx.save(model, str(path))
    return weights


def test_an_onnx_recogniser(tmp_path, speech):
    pytest.importorskip("onnxruntime")
    weights = write_onnx(tmp_path / "r.onnx")
    waves, lengths = torch.randn(2, 4000), torch.tensor([4000, 900])
    logits, frames = load_network(tmp_path / "r.onnx")(waves, lengths)
    expected = torch.nn.functional.conv1d(waves[:, None], weights, stride=HOP).transpose(1, 2)
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)
    assert frames.tolist() == [12, 2]
    found = Recogniser.load(tmp_path / "r.onnx").transcribe(speech[0][0])
    assert found.seconds > 1 and len(found.words) == len(found.text.split())
    write_onnx(tmp_path / "other.onnx", ["a", "b"])
    with pytest.raises(CheckpointError, match="vocabulary"):
        load_network(tmp_path / "other.onnx")
    (tmp_path / "broken.onnx").write_bytes(b"no")
    with pytest.raises(CheckpointError, match="onnxruntime cannot load"):
        load_network(tmp_path / "broken.onnx")


def test_without_onnxruntime_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    (tmp_path / "r.onnx").touch()
    with pytest.raises(ConfigError, match="pip install onnxruntime"):
        load_network(tmp_path / "r.onnx")


def test_a_kept_recogniser_is_the_same_network(tmp_path):
    network = small()
    save_recogniser(tmp_path / "r.safetensors", network, {})
    waves, lengths = torch.randn(1, 5000), torch.tensor([5000])
    with torch.inference_mode():
        expected, found = (
            network(waves, lengths)[0],
            load_network(tmp_path / "r.safetensors")(waves, lengths)[0],
        )
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
def test_every_precision_hears_nearly_the_same(speech, precision):
    if precision == "int8" and torch.cuda.is_available():
        pytest.skip("int8 is for CPUs")
    paths = [path for path, _ in speech]
    found = list(transcribe_all(Settings(SHIPPED, precision=precision), paths, jobs=1))
    as_trained = Recogniser(load_network(SHIPPED))
    expected = [transcript.text for transcript in as_trained.transcribe_files(paths)]
    apart = score(expected, [transcript.text for transcript in found]).cer
    assert apart < {"fp32": 1e-9, "bf16": 0.03, "int8": 0.05}[precision]


def test_precisions_that_cannot_be_had(tmp_path):
    with pytest.raises(ConfigError, match="choose one of fp32, bf16, int8"):
        Recogniser.load(SHIPPED, precision="fp8")
    pytest.importorskip("onnxruntime")
    write_onnx(tmp_path / "r.onnx")
    with pytest.raises(ConfigError, match="kdkit export --to onnx --int8"):
        Recogniser.load(tmp_path / "r.onnx", precision="int8")


class Malicious:
    def __reduce__(self):
        return os.mkdir, ("ran",)


def test_files_that_are_no_recogniser_are_explained(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"tensors": Malicious()}, "evil.pt")
    with pytest.raises(CheckpointError, match="no recogniser"):
        load_network("evil.pt")
    assert not (tmp_path / "ran").exists()
    torch.save({"weights": torch.zeros(1)}, "other.pt")
    with pytest.raises(CheckpointError, match="no recogniser"):
        load_network("other.pt")
    with pytest.raises(CheckpointError, match=SHIPPED):
        load_network("missing.safetensors")


# ------------------------------------------------------------------------------------------------- from the outside


def test_the_package_offers_it_without_loading_torch():
    code = (
        "import sys, kdkit; print('torch' in sys.modules, kdkit.Recogniser.__name__, 'torch' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said == "False Recogniser True\n"
    with pytest.raises(AttributeError, match="nothing_like_this"):
        _ = kdkit.nothing_like_this


def run(*arguments) -> object:
    return CliRunner().invoke(app, ["transcribe", SHIPPED, *map(str, arguments)])


def test_the_command(speech, recogniser, tmp_path):
    folder = speech[0][0].parent
    result = run(folder, "--jobs", 1)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [f"{path}\t{recogniser(path)}" for path, _ in speech]

    (tmp_path / "bad.wav").write_bytes(b"no")
    result = run(speech[0][0], tmp_path / "bad.wav", "--format", "json", "--out", tmp_path / "t.jsonl")
    assert result.exit_code == 1
    assert "left out: " in result.stderr and "1 of 2 files could not be read" in result.stderr
    (line,) = (tmp_path / "t.jsonl").read_text(encoding="utf-8").splitlines()
    kept = json.loads(line)
    assert kept["file"] == str(speech[0][0]) and kept["text"] == recogniser(speech[0][0])
    assert " ".join(word["word"] for word in kept["words"]) == kept["text"]
    assert kept["words"][0].keys() == {"word", "start", "end", "score"}


def test_the_command_refuses_what_it_cannot_do(tmp_path):
    for arguments, said in [
        ((tmp_path,), "no audio file in this folder"),
        ((tmp_path / "x.wav", "--format", "srt"), "choose text or json"),
        ((tmp_path / "x.wav", "--lm-weight", 1), "give --lm too"),
        ((tmp_path / "x.wav", "--lm", tmp_path / "no.arpa"), "kdkit lm"),
    ]:
        assert said in str(run(*arguments).exception)


def test_the_command_with_a_language_model(speech, tmp_path):
    pytest.importorskip("flashlight.lib.text.decoder.kenlm")
    from kdkit.speech.corpora.synthetic.grammar import sentence

    text = tmp_path / "text.txt"
    text.write_text("".join(f"{sentence(random.Random(i))}\n" for i in range(4000)))
    lm = CliRunner().invoke(app, ["lm", str(text), "--out", str(tmp_path / "lm.arpa"), "--order", "2"])
    assert lm.exit_code == 0 and "4000 sentences" in lm.output
    plain, search = (
        run(speech[0][0].parent, *options, "--jobs", 1).stdout
        for options in ((), ("--lm", tmp_path / "lm.arpa"))
    )
    said = [text for _, text in speech]
    wer = [score(said, [line.split("\t")[1] for line in s.splitlines()]).wer for s in (plain, search)]
    assert wer[1] < wer[0] / 3


# one bad file, a kill, a full disk


def test_whatever_is_wrong_with_a_file_the_others_are_transcribed(speech, tmp_path, monkeypatch, capsys):
    good = [path for path, _ in speech[:4]]
    expected = [t.text for t in kdkit.Recogniser.load(SHIPPED).transcribe_files(good)]
    loud, evil, empty = (tmp_path / name for name in ("loud.wav", "evil.wav", "empty.wav"))
    soundfile.write(loud, 1e15 * np.random.default_rng(0).standard_normal(32_000), 16_000, subtype="FLOAT")
    soundfile.write(evil, np.zeros(16_000), 16_000)
    empty.write_bytes(b"")
    read = kdkit.recognition.transcribe.blocks_of_file

    def failing(path):
        if str(path) == str(evil):
            yield np.zeros(3200, np.float32)
            raise MemoryError("Unable to allocate 16.0 GiB")  # of any kind
        yield from read(path)

    monkeypatch.setattr("kdkit.recognition.transcribe.blocks_of_file", failing)
    found = kdkit.Recogniser.load(SHIPPED).transcribe_files([good[0], loud, good[1], evil, empty, *good[2:]])
    assert [t.text for t in found if not t.error] == expected
    assert [t.file for t in found if t.error] == [str(loud), str(evil), str(empty)]
    assert all(t.file in t.error and "\n" not in t.error for t in found if t.error)
    assert "MemoryError: Unable to allocate" in found[3].error


def test_a_file_that_the_network_or_the_decoder_cannot_bear_is_left_out(speech, recogniser):
    good = [path for path, _ in speech[:3]]
    expected = [t.text for t in recogniser.transcribe_files(good)]
    network, lengths = recogniser.network, sorted(len(read_audio(path)) for path in good)

    class Bad(torch.nn.Module):
        def __init__(self, kind):
            super().__init__()
            self.kind, self.inner, self.vocabulary = kind, network, network.vocabulary

        def forward(self, waves, given):
            logits, frames = self.inner(waves, given)
            worst = given == lengths[-1]
            if self.kind == "raises" and worst.any():
                raise RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate")
            return torch.where(
                worst[:, None, None], torch.nan, logits
            ) if self.kind == "nan" else logits, frames

    def decoder(log_probs, frames, vocabulary):
        raise ValueError("cannot decode this")

    for kind, said in (("raises", "can't allocate"), ("nan", "makes no numbers of it")):
        found = kdkit.Recogniser(Bad(kind), window=20.0).transcribe_files(good)
        bad = [i for i, transcript in enumerate(found) if transcript.error]
        assert len(bad) == 1 and said in found[bad[0]].error
        assert [t.text for t in found if not t.error] == [t for i, t in enumerate(expected) if i != bad[0]]
    assert all(
        "cannot decode this" in t.error for t in kdkit.Recogniser(network, decoder).transcribe_files(good)
    )


def test_texts_are_written_as_they_come(speech, tmp_path, monkeypatch):
    """Killed after some files: their texts are there."""
    from kdkit.recognition.transcribe import Transcript

    out = tmp_path / "texts.txt"

    def dying(settings, files, jobs):
        yield Transcript("one.wav", "the first")
        yield Transcript("two.wav", "the second")
        assert (tmp_path / "texts.txt.part").read_text() == "one.wav\tthe first\ntwo.wav\tthe second\n"
        raise KeyboardInterrupt

    monkeypatch.setattr("kdkit.recognition.transcribe.transcribe_all", dying)
    arguments = ["transcribe", SHIPPED, *(str(path) for path, _ in speech[:3]), "--out", str(out)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 130 and "what was done is in" in result.output and not out.exists()
    monkeypatch.undo()
    assert CliRunner().invoke(app, arguments, catch_exceptions=False).exit_code == 0
    assert len(out.read_text().splitlines()) == 3 and [path.name for path in tmp_path.iterdir()] == [
        "texts.txt"
    ]
