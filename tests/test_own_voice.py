"""One's own voice: what makes a recording usable, what the recorder's messages do, and what both panels measure."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from contrast import assert_readable

from kdkit.common.errors import AudioError, ConfigError
from kdkit.lessons.widgets import VoiceLayers, VoiceText
from kdkit.lessons.widgets.own_voice import STAND_IN, USUAL, VOICES
from kdkit.lessons.widgets.panel import to_png
from kdkit.model.codebook import Codebook
from kdkit.model.speech_model import ModelConfig, SpeechModel
from kdkit.probing.warping import along, frame_similarity, warp
from kdkit.recognition.ctc import CTCModel
from kdkit.speech.audio import read_audio, write_audio
from kdkit.speech.corpora.synthetic.saying import say
from kdkit.speech.recording import at_level_of, check_recording
from kdkit.teachers import Teacher

SMALL = ModelConfig(layers=2, dim=16, ffn=16, heads=2, conv_channels=(8,) * 7, pos_kernel=4, pos_groups=2)
TEXT = "we saw the boat"


# the recording


def tone(seconds: float, loud: float = 0.3) -> torch.Tensor:
    return loud * torch.sin(0.3 * torch.arange(round(16_000 * seconds)))


def test_a_recording_is_cut_to_its_speech():
    quiet = 1e-4 * torch.randn(16_000, generator=torch.manual_seed(0))
    found = check_recording(torch.cat([quiet, tone(1), quiet]))
    assert found.seconds == pytest.approx(1.3, abs=0.03) and found.notes == ()
    assert found.wave.abs().max() == pytest.approx(0.3, abs=1e-3), "as it was recorded"


@pytest.mark.parametrize(
    ("wave", "seconds", "words"),
    [
        (tone(0.2), None, "0.2 s are too short"),
        (torch.zeros(0), 0.0, "0.0 s are too short"),
        (torch.zeros(32_000), None, "silence: its loudest moment is at -120 dB. Is the microphone muted"),
        (tone(2, 1e-3), None, "silence"),
        (
            torch.cat([torch.zeros(16_000), tone(0.1), torch.zeros(16_000)]),
            None,
            "only 0.4 s of it are speech",
        ),
    ],
)
def test_what_is_no_speech_is_refused_in_words(wave, seconds, words):
    with pytest.raises(AudioError, match=words):
        check_recording(wave, seconds)


@pytest.mark.parametrize(
    ("wave", "seconds", "words"),
    [
        (tone(21), None, "21 s long: the first 20 s are used"),
        (tone(20.2), 63.0, "63 s long: the first 20 s are used"),
        (tone(1, 3).clamp(-1, 1), None, "% of the samples are clipped"),
        (tone(1, 0.008), None, "very quiet"),
    ],
)
def test_what_should_be_known_of_a_recording_is_a_note(wave, seconds, words):
    found = check_recording(wave, seconds)
    (note,) = found.notes
    assert words in note and found.seconds <= 20


def test_two_voices_become_equally_loud():
    one = at_level_of(tone(1, 0.01), tone(2, 0.4))
    assert one.abs().max() == pytest.approx(0.4, rel=0.01)
    assert at_level_of(tone(1, 0.01), torch.ones(9_600)).abs().max() <= 1


# frames of two voices


def test_warping_finds_the_best_of_all_paths():
    rng = np.random.default_rng(0)

    def cheapest(cost, i, j):  # by its definition
        before = [(i - a, j - b) for a, b in ((1, 1), (1, 0), (0, 1)) if i >= a and j >= b]
        return cost[i, j] + min((cheapest(cost, *cell) for cell in before), default=0)

    for rows, columns in ((1, 1), (1, 4), (5, 1), (4, 6), (6, 5)):
        similarity = rng.uniform(-1, 1, (rows, columns))
        path = warp(similarity)
        assert path[0].tolist() == [0, 0] and path[-1].tolist() == [rows - 1, columns - 1]
        steps = np.diff(path, axis=0)
        assert ((steps >= 0) & (steps <= 1)).all() and (steps.sum(1) >= 1).all()
        cost = float((1 - similarity)[path[:, 0], path[:, 1]].sum())
        assert cost == pytest.approx(cheapest(1 - similarity, rows - 1, columns - 1))
        assert along(similarity, path) == pytest.approx(1 - cost / len(path))


def test_similarity_is_blind_to_what_all_frames_share():
    x = np.random.default_rng(0).normal(size=(7, 5))
    stretched = np.repeat(x, 2, axis=0)
    similarity = frame_similarity(x, 3 * stretched + 40)
    assert similarity.shape == (7, 14) and along(similarity, warp(similarity)) == pytest.approx(1)


# the panels


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    torch.manual_seed(0)
    return Teacher(SpeechModel(SMALL).eval(), Codebook(16, 10, proj=4).requires_grad_(False), "small", {})


@pytest.fixture
def layers(teacher, tmp_path) -> VoiceLayers:
    return VoiceLayers(teacher, TEXT, tmp_path / "voice")


@pytest.fixture
def written(tmp_path) -> VoiceText:
    torch.manual_seed(0)
    models = {name: CTCModel(SpeechModel(SMALL)).eval() for name in ("one", "two")}
    return VoiceText(models, TEXT, tmp_path / "voice", first="two")


def voice(name: str, text: str = TEXT) -> np.ndarray:
    return say(text, VOICES[name])[0]


def sent(panel, samples: np.ndarray, rate: int = 16_000, pieces: int = 3) -> str:
    """What the browser does: samples in several messages. Returns what is said then."""
    parts = np.array_split(samples.astype(np.float32), pieces)
    for part, piece in enumerate(parts):
        content = {
            "kind": "sound",
            "part": part,
            "parts": pieces,
            "rate": rate,
            "seconds": len(samples) / rate,
        }
        panel.recorder._handle_custom_msg(content, [memoryview(piece.tobytes())])
    return panel.recorder.said


def test_until_somebody_speaks_another_synthetic_voice_stands_in(layers):
    assert layers.own.who == f"synthetic voice {STAND_IN}" and not layers.recorded
    assert layers.sentence().startswith(f"Synthetic voice {STAND_IN} and synthetic voice f4 in H0: ")
    assert layers.words().count("<audio") == 2, "nobody's own sound: both can be played"
    assert VoiceLayers(layers.teacher, "bach und loch", layers.folder).text == USUAL, "no English"
    with pytest.raises(ConfigError, match="nothing has been recorded"):
        layers.save()


def test_a_recording_from_the_browser_is_kept_nowhere_until_it_is_saved(layers):
    assert layers.box and layers.picture.drawn == 1
    before = layers.picture.png
    said = sent(layers, voice("paul"))
    assert "s of speech" in said and "memory only" in said and not layers.recorder.problem
    assert layers.own.who == "your voice" and layers.recorder.has_sound
    assert layers.picture.drawn == 2 and layers.picture.png != before
    assert not layers.folder.exists()
    assert layers.words().count("<audio") == 1, "one's own sound is in no output"
    state = json.dumps(layers.recorder.get_state(), default=str)
    assert len(state) - len(layers.recorder._esm) < 2_000, "nor in the widget's state"
    layers.recorder._handle_custom_msg({"kind": "save"}, [])
    path = layers.folder / "own_voice_1.wav"
    assert str(path) in layers.recorder.said
    torch.testing.assert_close(read_audio(path), layers.recording.wave, atol=1e-4, rtol=0)
    assert "own_voice_2.wav" in layers.save(), "nothing is overwritten"
    layers.recorder._handle_custom_msg({"kind": "forget"}, [])
    assert not layers.recorded and not layers.recorder.has_sound and layers.picture.png == before


def test_a_bad_recording_is_said_and_the_one_before_it_stays(layers):
    sent(layers, voice("paul"))
    before = layers.recording
    answers = layers.recorder.answers
    assert "silence" in sent(layers, np.zeros(32_000))
    assert layers.recorder.problem and layers.recorder.answers == answers + 1
    assert layers.recording is before and layers.recorder.has_sound
    assert "too short" in sent(layers, voice("paul")[:4_000], pieces=1)
    assert "speech" in sent(layers, np.repeat(voice("paul"), 3), 48_000) and not layers.recorder.problem
    np.testing.assert_allclose(len(layers.recording.wave), len(before.wave), atol=400)


def test_files_and_samples_are_taken_without_a_page(layers, tmp_path):
    write_audio(tmp_path / "me.wav", voice("paul"))
    assert "s of speech" in layers.use(tmp_path / "me.wav")
    from_file = layers.recording.wave
    layers.use(voice("paul"))
    torch.testing.assert_close(layers.recording.wave, from_file, atol=1e-4, rtol=0)
    assert "s of speech" in layers.recorder.said, "the page says it, too"
    (tmp_path / "blocked").write_text("a file where a folder should be")
    layers.folder = tmp_path / "blocked" / "voice"
    layers.recorder._handle_custom_msg({"kind": "save"}, [])
    assert layers.recorder.problem and "blocked" in layers.recorder.said
    with pytest.raises(AudioError, match="no such audio file"):
        layers.use(tmp_path / "nobody.wav")


def test_another_text_and_another_voice(layers):
    assert layers.box
    before, drawn = layers.synthetic, layers.figures_drawn
    layers.update(text="no soup after eleven")
    assert layers.text == "no soup after eleven" and len(layers.synthetic.wave) != len(before.wave)
    assert layers.figures_drawn == drawn + 1
    layers.update(text="...")
    assert (
        layers.recorder.problem
        and "no word" in layers.recorder.said
        and layers.text == "no soup after eleven"
    )
    layers.update(text="a" * 500)
    assert "500 characters" in layers.recorder.said
    layers.update(text=TEXT, voice="rob")
    assert layers.synthetic.who == "synthetic voice rob" and not layers.recorder.problem
    sent(layers, voice("paul"))
    layers.update(text="no soup after eleven")
    assert layers.recorded, "somebody who misspoke writes what was said"


def test_layers_are_compared_for_the_same_words_and_for_others(layers):
    layers.use(voice("f4"))  # the synthetic voice's own sound
    assert layers.same.shape == layers.other.shape == (4,), "Fbank, H0, H1, H2"
    assert (layers.same > 0.95).all() and (layers.other < layers.same).all()
    alike = np.abs(np.diff(layers.paths[1], axis=1))
    assert np.median(alike) <= 1, "the diagonal"
    found, known = dict(map(reversed, layers.own_phones())), dict(map(reversed, layers.synthetic.phones))
    for symbol in ("w", "s", "b"):
        assert found[symbol] == pytest.approx(known[symbol], abs=0.1), "phones are carried over"
    assert layers.update(layer=2).sentence().startswith("Your voice and synthetic voice f4 in H0: ")
    first = to_png(layers.figure())
    assert to_png(layers.update(layer=0).figure()) != first
    assert to_png(layers.update(layer=2).figure()) == first
    assert f"in H2: mean cosine along the best path {layers.same[3]:.2f}" in layers.alt()


@pytest.mark.parametrize(
    ("gap", "words"),
    [
        (
            (0.3, 0.1, 0.2),
            "a difference of +0.30. Fbank has +0.05. From H0 to H2 the difference shrinks, to +0.20; it",
        ),
        (
            (0.1, 0.3, 0.2),
            "a difference of +0.10. Fbank has +0.05. From H0 to H2 the difference grows, to +0.20; it",
        ),
        (
            (-0.1, 0.3, -0.11),
            "of -0.10. Fbank has +0.05. From H0 to H2 the difference hardly changes, to -0.11; it",
        ),
    ],
)
def test_the_sentence_can_say_anything(gap, words, layers):
    layers.other = np.full(4, 0.25)
    layers.same = layers.other + np.array([0.05, *gap])
    layers.widest = 1 + int(np.argmax(gap))
    assert f"{words} is widest in H{np.argmax(gap)}." in layers.sentence()


def test_emissions_text_and_times_of_both_voices(written):
    assert written.state["recogniser"] == "two"
    before = to_png(written.figure())
    written.use(voice("paul"))
    own, synthetic = written.heard
    assert len(own.log_probs) == (len(written.own.wave) - 400) // 320 + 1
    assert (own.who, synthetic.who) == ("your voice", "synthetic voice f4")
    assert to_png(written.figure()) != before
    assert (
        f"two gets {own.errors} from your voice, {synthetic.errors} from synthetic voice f4."
        in written.sentence()
    )
    one = written.update(recogniser="one").heard[0]
    assert not torch.equal(one.log_probs, own.log_probs)
    assert f"“{written.text}”" in written.alt() and written.words().count("<audio") == 1


def test_errors_are_marked_and_times_shown(written):
    spell = written.vocabulary.encode("we so boat")
    log_probs = torch.full((60, len(written.vocabulary)), -9.0)
    log_probs[:, written.vocabulary.blank] = -0.5
    for place, symbol in enumerate(spell):
        log_probs[5 * place + 3, symbol] = 0.0
    models = {"fixed": lambda waves, lengths: (log_probs[None].exp().log(), torch.tensor([60]))}
    panel = VoiceText(models, TEXT, written.folder)
    heard = panel.heard[0]
    assert heard.text == "we so boat" and heard.errors == "2 of 4 words wrong"
    table = panel.table()
    assert "<s>saw</s> <b>so</b>" in table and "<s>the</s>" in table
    assert f"boat {heard.words[2].start:.2f} to {heard.words[2].end:.2f} s" in table
    panel.heard[0] = replace(heard, words=[], text="", edits=[("delete", "we", "")])
    assert "<small>nothing</small>" in panel.table() and panel.figure()


def test_both_panels_can_be_read_on_every_page(layers, written):
    for panel in (layers, written):
        assert_readable(panel)
