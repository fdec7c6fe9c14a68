"""Widgets without a display: their state, what they draw, and what they measure."""

import asyncio
import base64
import io
import signal
import time
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from contrast import assert_readable
from IPython.core.formatters import DisplayFormatter
from IPython.core.interactiveshell import InteractiveShell
from IPython.display import display
from matplotlib.colors import to_rgb
from matplotlib.image import imread
from torch import nn

from kdkit import probing
from kdkit.common.errors import ConfigError
from kdkit.distill import DistillConfig, DistillTask
from kdkit.lessons.exercises import quiz
from kdkit.lessons.plots import Picture
from kdkit.lessons.plots.style import DARK_PAPER
from kdkit.lessons.rerun import StoppedTraining
from kdkit.lessons.widgets import (
    CTCViewer,
    FrontEndLab,
    LayerExplorer,
    LossLab,
    Panel,
    StudentDesigner,
    TrainingDashboard,
    dashboard,
)
from kdkit.lessons.widgets.designer import _macs_beside_layers, macs, parameters, parts
from kdkit.lessons.widgets.panel import slider, to_png
from kdkit.losses import discriminative_loss, regression_loss
from kdkit.model.codebook import Codebook
from kdkit.model.costs import count_macs, count_parameters
from kdkit.model.speech_model import PRESETS, ModelConfig, SpeechModel, preset
from kdkit.probing.activations import ModelLayers, collect
from kdkit.recognition.ctc import CTCModel
from kdkit.recognition.decode import with_language_model
from kdkit.recognition.lm import estimate
from kdkit.recognition.search import available
from kdkit.speech.batches import Batches
from kdkit.speech.manifest import frame_phones
from kdkit.teachers import Teacher
from kdkit.training import identity
from kdkit.training.loop import train
from kdkit.training.recipe import TrainConfig
from kdkit.training.run_log import read_rows

SMALL = ModelConfig(layers=2, dim=16, ffn=16, heads=2, conv_channels=(8,) * 7, pos_kernel=4, pos_groups=2)


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    torch.manual_seed(0)
    return Teacher(SpeechModel(SMALL).eval(), Codebook(16, 10, proj=4).requires_grad_(False), "small", {})


@pytest.fixture(scope="module")
def student() -> SpeechModel:
    torch.manual_seed(1)
    return SpeechModel(
        ModelConfig(front_end="fbank", layers=2, dim=16, ffn=16, heads=2, pos_kernel=4, pos_groups=2)
    )


class Numbers(Panel):
    """The smallest panel: a bar as high as a slider says."""

    title = "Numbers"

    def __init__(self):
        super().__init__(high=slider("high", 2, 0, 5))
        self.places = []

    def layout(self):
        figure = Picture(figsize=(4, 3))
        figure.add_axes((0.1, 0.1, 0.8, 0.8), xlim=(0, 10), ylim=(0, 5))
        return figure

    def draw(self, axes):
        axes.bar([0], [self.state["high"]])

    def clicked(self, axes, x, y):
        self.places.append((axes, x, y))


@pytest.fixture
def outputs(monkeypatch) -> list[dict]:
    """The MIME bundles that are displayed."""
    shown = []
    publish = SimpleNamespace(publish=lambda data, metadata, **options: shown.append(data))
    monkeypatch.setattr(InteractiveShell, "initialized", lambda: True)
    monkeypatch.setattr(
        InteractiveShell,
        "instance",
        lambda: SimpleNamespace(display_pub=publish, display_formatter=DisplayFormatter()),
    )
    return shown


def test_a_panel_keeps_its_state_in_plain_python():
    panel = Numbers()
    assert panel.state == {"high": 2}
    assert panel.update(high=4).state == {"high": 4} and panel.controls["high"].value == 4
    panel.controls["high"].value = 1  # what a hand on the slider does
    assert panel.state == {"high": 1} and panel.figures_drawn == 0, "nobody looks: nothing to draw"
    with pytest.raises(ConfigError, match="no control 'low'; it has high"):
        panel.update(low=1)
    with pytest.raises(ConfigError, match="cannot be 9; it goes from 0 to 5"):
        panel.update(high=9)
    with pytest.raises(ConfigError, match="cannot be 'x'"):
        panel.update(high="x")


def test_a_shown_panel_draws_at_every_change_and_leaves_a_still_picture(outputs):
    panel = Numbers()
    display(panel)
    assert panel.figures_drawn == 1
    picture, live = outputs
    assert base64.b64decode(picture["image/png"]) == panel.picture.png
    assert picture["text/plain"] == "Numbers: high 2" and 'alt="Numbers: high 2"' in picture["text/html"]
    assert live["application/vnd.jupyter.widget-view+json"]["model_id"] == (key := panel.box.model_id)
    assert f'class="still-{key}"' in picture["text/html"] and f"live-{key}" in panel.box._dom_classes
    first = panel.picture.png
    panel.update(high=5)
    assert panel.figures_drawn == 2 and panel.picture.png != first and panel.picture.alt == "Numbers: high 5"


def test_the_pointer_says_whether_a_click_does_anything():
    class OnlyLookedAt(Numbers):
        clicked = Panel.clicked

    panels = [Numbers(), OnlyLookedAt()]
    assert all(panel.box for panel in panels)
    assert [panel.picture.clickable for panel in panels] == [True, False]


def test_a_quiz_leaves_its_still_form(outputs):
    display(quiz("01_teacher_probing"))
    still, live = outputs
    assert "<summary>Answer</summary>" in still["text/html"]
    assert f"still-{live['application/vnd.jupyter.widget-view+json']['model_id']}" in still["text/html"]


def test_the_picture_is_a_png_of_the_whole_figure():
    panel = Numbers()
    assert panel.box
    pixels = imread(io.BytesIO(panel.picture.png))
    panel.figure().savefig(drawn := io.BytesIO(), dpi=80)
    assert pixels.shape == (240, 320, 3)
    np.testing.assert_array_equal(pixels, imread(io.BytesIO(drawn.getvalue()))[..., :3])


def test_a_page_that_turns_dark_or_narrow_gets_a_picture_for_it():
    panel = Numbers()
    assert panel.box and imread(io.BytesIO(panel.picture.png))[0, 0].tolist() == [1, 1, 1]
    panel.picture.dark = True  # what the browser tells
    dark = imread(io.BytesIO(panel.picture.png))
    assert panel.figures_drawn == 2 and np.allclose(dark[0, 0], to_rgb(DARK_PAPER)) and dark.shape[1] == 320
    assert f"background: {DARK_PAPER}" in panel._words.value
    panel.picture.narrow = True
    assert panel.figures_drawn == 3 and imread(io.BytesIO(panel.picture.png)).shape[1] == 480, (
        "at more dots an inch"
    )
    panel.picture.clicked = (0.5, 0.5, 1)
    np.testing.assert_allclose(panel.places, [(0, 5, 2.5)], atol=1e-6)


def test_the_page_tells_by_messages():
    panel = Numbers()
    drawn = panel.box and panel.figures_drawn
    panel.picture._handle_custom_msg({"narrow": True, "dark": True}, [])
    assert panel.narrow and panel.dark and panel.figures_drawn == drawn + 1, "one picture for both"
    panel.picture._handle_custom_msg({"narrow": False, "dark": False}, [])
    panel.picture._handle_custom_msg({"clicked": [0.5, 0.5, 1]}, [])
    np.testing.assert_allclose(panel.places, [(0, 5, 2.5)], atol=1e-6)
    for other in ("heard", {"else": 1}):  # not for the picture
        panel.picture._handle_custom_msg(other, [])
    assert len(panel.places) == 1


def leaves_no_trace(panel, **other) -> bool:
    """Is the picture the same as before, after there was another one in the same axes?"""
    before, state = to_png(panel.figure()), dict(panel.state)
    assert to_png(panel.update(**other).figure()) != before
    return to_png(panel.update(**state).figure()) == before


def test_a_click_is_found_again_in_the_data():
    panel = Numbers()
    assert panel.box is panel.box
    panel.picture.clicked = (0.5, 0.5, 1)  # the middle of the picture is the middle of the axes
    panel.picture.clicked = (0.18, 0.82, 2)  # a tenth of the way from their lower left corner
    panel.picture.clicked = (0.02, 0.02, 3)  # beside them
    np.testing.assert_allclose(panel.places, [(0, 5, 2.5), (0, 1, 0.5)], atol=1e-6)


def disabled(panel) -> set[str]:
    panel.redraw()
    return {name for name, control in panel.controls.items() if control.disabled}


def test_layer_explorer(teacher, student, utterances):
    frames = collect(ModelLayers(teacher), utterances, 200, 0)
    probe = probing.probe_layers(frames, frames, 0)
    models = {"teacher": teacher, "student": Teacher(student, None, "student", {})}
    panel = LayerExplorer(models, utterances, {"teacher": probe}, {"teacher": frames}, clusters=5)
    assert panel.shown() == [("teacher", 1)] and panel.likeness() is None
    whose, ids = panel.ids("teacher", 1)
    seen = panel.seen("teacher", 0)
    assert whose == "k-means of H1" and len(ids) == len(seen.hidden[1]) and set(ids) <= set(range(5))
    assert panel.ids("student", 2) == ("", None)
    expected = teacher.hidden(*wave_of(utterances[0])).hidden[1][0]
    np.testing.assert_allclose(seen.hidden[1], expected, atol=1e-5)
    assert panel.box and disabled(panel) == {"other_layer"}, "what changes nothing cannot be moved"
    panel.update(layer=0)
    assert disabled(panel) == {"other_layer", "head"}, "H0 has no heads"
    panel.update(layer=1, other="teacher", other_layer=1)
    assert panel.likeness() == pytest.approx(1) and disabled(panel) == set()
    panel.update(other="student", other_layer=2, layer=0)
    assert len(panel.figure().axes) == 8 and 0 <= panel.likeness() <= 1
    assert leaves_no_trace(panel, model="student", layer=1, other="teacher", other_layer=1, utterance=2)
    assert_readable(panel)
    assert "not probed" in panel.alt() and f"{100 * probe.layers[0].accuracy:.1f} %" in panel.words()


def wave_of(utterance):
    from kdkit.speech.audio import read_audio

    wave = read_audio(utterance.audio)
    return wave[None], torch.tensor([len(wave)])


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_the_designer_counts_as_the_modules_do(name):
    config = preset(name)
    assert parameters(config) == count_parameters(config) == sum(parts(config).values())
    assert macs(config) == pytest.approx(count_macs(config, 5), rel=1e-9)


def test_the_designer_counts_another_width_without_the_modules():
    config = preset("tiny-dt-fbank")
    assert macs(config)
    counted = _macs_beside_layers.cache_info().misses
    for dim in (16, 48, 144):
        other = replace(config, dim=dim, fbank_channels=dim // 2, heads=1)
        assert macs(other) == pytest.approx(count_macs(other, 5), rel=1e-9)
    assert _macs_beside_layers.cache_info().misses == counted, "a slider would wait for it"


def test_student_designer():
    panel = StudentDesigner(900_000, rounds=1)
    assert panel.config == preset("tiny-dt-fbank")
    assert panel.facts()["measured"] and panel.facts()["parameters"] == count_parameters(panel.config)
    panel.update(layers=6)
    assert panel.state["preset"] == "my own" and panel.config.layers == 6 and not panel.facts()["measured"]
    assert panel.measure() > 0 and panel.facts()["measured"]
    panel.update(dim=144)
    assert 144 % panel.config.heads == 0 and panel.config.heads == 9, "heads keep their size"
    panel.update(preset="tiny-sw-waveform")
    assert panel.config == preset("tiny-sw-waveform")
    panel.update(layers=3).update(layers=2)
    assert panel.state["preset"] == "tiny-sw-waveform", "a structure is known again"
    assert panel.update(dim=32, heads=4).config.heads == 4
    assert "under the budget" in panel.words()
    assert panel.taken is None
    assert panel.update(layers=3).take() == panel.taken == panel.config and "this one" in panel.words()
    assert "Taken: 3 layers of width 32" in panel.update(layers=4).words() and panel.taken.layers == 3
    assert leaves_no_trace(panel, preset="tiny-sw-waveform")
    drawn = panel.box and panel.figures_drawn
    panel.update(preset="tiny-dt-fbank")
    assert panel.figures_drawn == drawn + 1, "a preset changes five controls and is drawn once"
    assert_readable(panel)


def test_loss_lab(teacher, student, utterances):
    batch = Batches(utterances, 4, 0).batch(0)
    panel = LossLab(teacher, student, batch)
    target = teacher.hidden(batch.waves, batch.lengths)
    with torch.no_grad():
        states = student.eval()(batch.waves, batch.lengths)
        student_scores = panel.cluster_heads["codebook"](states.last)
        cosines = teacher.codebook.cosines(target.last)
        wanted = 0.4 * discriminative_loss(student_scores, cosines, target.mask, 0.1)
        regression = [
            regression_loss(head(states.hidden[s]), target.hidden[t], target.mask)
            for head, (s, t) in zip(panel.heads, panel.pairs, strict=True)
        ]
    found = panel.parts()
    assert found["lambda x discriminative"] == pytest.approx(float(wanted), rel=1e-4)
    assert found["distance"] + found["w_cos x angle"] == pytest.approx(
        float(torch.stack(regression).mean()), rel=1e-4
    )

    assert panel.update(weight=0.0).gradients()["lambda x discriminative"] == 0
    one = panel.update(weight=1.0).gradients()
    two = panel.update(weight=2.0).gradients()
    assert two["lambda x discriminative"] == pytest.approx(2 * one["lambda x discriminative"], rel=1e-4)
    assert two["distance"] == pytest.approx(one["distance"], rel=1e-4)
    sharp = panel.update(tau=0.02).entropies()[0]
    assert sharp < panel.update(tau=1.0).entropies()[0] <= np.log(10) + 1e-6
    for distribution in panel.distributions():
        assert distribution.shape == (10,) and distribution.sum() == pytest.approx(1)
    panel.update(tau=0.1, weight=1.0)
    for variant in ("codebook", "linear", "hard"):
        before = sum(panel.update(variant=variant).parts().values())
        panel.take(5)
        assert sum(panel.parts().values()) < before
    assert leaves_no_trace(panel, utterance=1, frame=2, tau=0.5, variant="linear")
    panel.clicked(0, 0.0125 + 0.02 * 7, 10)
    assert panel.state["frame"] == 7 and "frame 7" in panel.alt()
    panel.clicked(1, 3, 3)  # not the spectrogram
    assert panel.state["frame"] == 7
    panel.clicked(0, 1e3, 10)
    assert panel.state["frame"] == panel.frames[0] - 1
    shortest = int(np.argmin(panel.frames))
    assert panel.frames[shortest] < panel.frames[0]
    drawn = panel.box and panel.figures_drawn
    panel.update(utterance=shortest)  # the frame chosen is beyond its end
    assert panel.state["frame"] == panel.frames[shortest] - 1 == panel.controls["frame"].max
    assert panel.figures_drawn == drawn + 1, "one picture for both"
    assert_readable(panel)
    panel.update(tau=1.0, variant="hard")
    opened = LossLab(teacher, student, batch)
    panel.reset()
    assert panel.state == opened.state and panel.steps == 0 and panel.parts() == opened.parts()
    with pytest.raises(ConfigError, match="codebook"):
        LossLab(Teacher(teacher.model, None, "none", {}), student, batch)


def test_the_loss_lab_says_which_phone_an_id_stands_for(teacher, student, utterances):
    batch = Batches(utterances, 4, 0).batch(0)
    panel = LossLab(teacher, student, batch, speech=utterances)
    first = next(iter(panel.phones))
    heard = Counter()
    for utterance in utterances:
        ids = teacher.codebook.cosines(teacher.hidden(*wave_of(utterance)).last[0]).argmax(-1).tolist()
        heard.update(
            phone for k, phone in zip(ids, frame_phones(utterance, len(ids)), strict=True) if k == first
        )
    assert panel.phones[first] == (heard.most_common(1)[0][0] or "silence")
    ticks = [label.get_text() for label in panel.figure().axes[1].get_xticklabels()]
    assert f"{first}\n{panel.phones[first]}" in ticks, "10 ids, and 12 are drawn"
    mute = replace(batch, utterances=[replace(u, phones=()) for u in batch.utterances])
    assert LossLab(teacher, student, mute).phones == {}


@pytest.mark.parametrize("variant", ["codebook", "linear", "hard"])
def test_the_loss_lab_shows_the_trainers_loss(variant, teacher, student, utterances):
    batch = Batches(utterances, 4, 0).batch(0)
    panel = LossLab(teacher, student, batch)
    panel.update(variant=variant, tau=0.2, weight=0.7, cosine=0.5)
    config = DistillConfig(
        panel.pairs, cosine_weight=0.5, discriminative_weight=0.7, variant=variant, tau=0.2
    )
    task = DistillTask(student, teacher, config).eval()
    task.heads.load_state_dict(panel.heads.state_dict())
    task.cluster_head.load_state_dict(panel.cluster_heads[variant].state_dict())
    assert sum(panel.parts().values()) == pytest.approx(task(batch)[0].item(), rel=1e-4)
    with torch.no_grad():
        logits = task.cluster_head(student(batch.waves, batch.lengths).last[0, panel.state["frame"]]) / 0.2
    np.testing.assert_allclose(panel.distributions()[1], logits.softmax(-1), rtol=1e-4)


def test_front_end_lab(teacher, student, utterances):
    panel = FrontEndLab(teacher, utterances, {"student": student})
    wave = panel.waves[0]
    assert panel.fbank().shape == ((len(wave) - 400) // 160 + 1, 80)
    from kdkit.fbank import Fbank

    np.testing.assert_allclose(panel.fbank(), Fbank()(wave[None])[0], atol=1e-2)
    assert panel.update(bins=40, window=50).fbank().shape == ((len(wave) - 800) // 160 + 1, 40)
    panel.update(bins=80, window=25, band=10, span=6, frame=10)
    masked = panel.fbank()
    assert np.ptp(masked[17:23]) == 0 and np.ptp(masked[:, 35:45]) == 0 and np.ptp(masked[:10, :30]) > 0
    cosine, share = panel.read_off("H0")  # the target itself is read almost without loss
    assert share > 0.9 and len(cosine) == panel._frames(wave) and cosine.min() > 0.8
    assert panel.read_off("student")[1] < 1
    assert len(panel.figure().axes) == 3 and len(panel.update(student="student").figure().axes) == 4
    assert leaves_no_trace(panel, utterance=1, bins=40, window=50, frame=20)
    assert_readable(panel)
    last = panel._frames(panel.waves[0]) - 1
    assert "the last of them number" in panel.update(window=60, frame=last).words(), "fewer than the CNN's"
    assert panel.seen()["Fbank and its convolution"] == pytest.approx(
        (0.02 * last - 0.02, 0.02 * last + 0.08)
    )
    panel.update(window=25)
    panel.clicked(2, 0.5, 3)
    assert panel.state["frame"] == 24 and "the front-end of student" in panel.words()
    lengths = [panel._frames(wave) for wave in panel.waves]
    panel.update(utterance=int(np.argmax(lengths)), frame=max(lengths) - 1).update(
        utterance=int(np.argmin(lengths))
    )
    assert panel.state["frame"] == min(lengths) - 1 < max(lengths) - 1, "a frame that there is"


def test_ctc_viewer(student, utterances, tmp_path):
    texts = ["a bad day", "we saw it", "no", "we saw a day", "it", "day", "bad", "a", "saw", "we"]
    speech = [replace(u, text=text) for u, text in zip(utterances, texts, strict=True)]
    torch.manual_seed(2)
    search = None
    if available():
        estimate([text.split() for text in texts], order=2).write(tmp_path / "lm.arpa")
        search = with_language_model(tmp_path / "lm.arpa")
    panel = CTCViewer({"one": CTCModel(student), "two": CTCModel(student)}, speech, search)
    found, result = panel.heard()
    assert panel.index == 0 and len(found.log_probs) == len(speech)
    rates = np.divide(result.word_errors, result.word_counts)
    assert rates[panel.update(order="worst first").index] == rates.max()
    assert rates[panel.update(order="best first").index] == rates.min()
    assert panel.update(place=len(speech)).state["place"] == len(speech)
    panel.update(order="as given", place=2, words_of="reference")
    assert [word.word for word in panel.word_times()] == ["we", "saw", "it"]
    if search:
        alternatives = panel.alternatives()
        values = [value for _, value in alternatives]
        assert values == sorted(values, reverse=True) and len({text for text, _ in alternatives}) == len(
            values
        )
        greedy_search = search(found.log_probs[1][None], torch.tensor([len(found.log_probs[1])]))
        assert alternatives[0][0] == greedy_search[0]
    assert leaves_no_trace(panel, place=1, words_of="hypothesis", recogniser="two")
    assert_readable(panel)
    assert "we saw it" in panel.alt() and "of 3 words wrong" in panel.words()
    assert len(panel.figure().axes) == 3


class Line(nn.Module):
    """A number that learns to be 1."""

    def __init__(self):
        super().__init__()
        self.slope = nn.Parameter(torch.zeros(()))

    def forward(self, batch):
        time.sleep(0.005)
        return (self.slope - 1) ** 2, {}


class Same:
    """Always the same batch of nothing."""

    stride, seconds, utterances = 1, 1.0, ()

    def batch(self, number):
        return self

    def to(self, device):
        return self


def run(board, task, recipe, folder, until=lambda: None, **options):
    """Trains in a board's event loop; ``until`` is called when the first step is logged."""

    async def both():
        training = asyncio.ensure_future(board.train("line", task, Same(), recipe, folder, **options))
        while not board.logs.get("line") and not training.done():
            await asyncio.sleep(0.001)
        until()
        return await training

    return asyncio.run(both())


def test_dashboard_trains_like_train(tmp_path, capsys):
    recipe = TrainConfig(steps=12, log_every=2)
    board, task = TrainingDashboard(), Line()
    log = run(board, task, recipe, tmp_path / "a")
    alone = Line()
    rows = train(alone, Same(), recipe, tmp_path / "b")
    assert task.slope.item() == alone.slope.item()
    assert [row["loss"] for row in log] == [row["loss"] for row in rows] and board.logs["line"] == log
    assert "done, 12 steps" in board.status and not board.running
    assert board.box and disabled(board) == {"compare"}, "there is no earlier run"
    board.update(logarithmic=True)
    axes = board.figure().axes[0]
    assert axes.get_yscale() == "log" and axes.get_xlim() == (0, pytest.approx(12.24))
    low, high = axes.get_ylim()
    assert sum(low <= tick <= high for tick in axes.get_yticks()) >= 2
    assert not any(label.get_text() for label in axes.get_yticklabels(minor=True))

    loaded = Line()
    assert run(board, loaded, recipe, tmp_path / "a") == log and loaded.slope.item() == task.slope.item()
    assert "loaded" in board.status and not board.earlier and "loaded" in capsys.readouterr().out
    again = run(board, Line(), recipe, tmp_path / "a", resume=False)
    assert again == board.logs["line"] and board.earlier["line, before"] == log
    assert len(board.figure().axes[0].lines) == 2
    assert leaves_no_trace(board, logarithmic=True, smooth=3)
    assert_readable(board)
    assert len(board.update(compare=False).figure().axes[0].lines) == 1
    steps, values = board.update(smooth=3).curve([{"step": k, "loss": float(k)} for k in range(5)], "loss")
    assert values.tolist() == [0, 0.5, 1, 2, 3] and steps.tolist() == [0, 1, 2, 3, 4]
    other = TrainingDashboard(("loss",), earlier={"a": tmp_path / "a"})
    assert other.earlier["a"] == again


def restart_the_kernel():
    """What a process remembers of its trainings is gone."""
    identity._starts.clear()
    identity._came_from.clear()


WAYS_TO_STOP = {
    "button": lambda board: board._button.click(),
    "interrupt": lambda board: signal.raise_signal(signal.SIGINT),
    "interrupt while the kernel waits": lambda board: [
        task.cancel() for task in asyncio.all_tasks() if task is not asyncio.current_task()
    ],
}


@pytest.mark.parametrize("way", WAYS_TO_STOP)
def test_a_stopped_cell_that_is_run_again_goes_on_in_another_kernel_too(tmp_path, way):
    recipe = TrainConfig(steps=24, log_every=2)
    board = TrainingDashboard()
    with pytest.raises(StoppedTraining, match=r"^line: stopped after step \d+ of 24, saved\. Run") as stopped:
        run(board, Line(), recipe, tmp_path / "a", lambda: WAYS_TO_STOP[way](board))
    assert stopped.value._render_traceback_() == [f"StoppedTraining: {stopped.value}"]
    first = board.logs["line"]
    assert 0 < first[-1]["step"] < 24 and first == read_rows(tmp_path / "a" / "metrics.jsonl")
    assert board.status == str(stopped.value)
    assert not board.running and board._button.disabled

    restart_the_kernel()
    board, task = TrainingDashboard(), Line()
    log = run(board, task, recipe, tmp_path / "a")
    assert log[: len(first)] == first and [row["step"] for row in log] == list(range(2, 25, 2))
    assert board.logs["line"] == log and not board.earlier
    alone = Line()
    train(alone, Same(), recipe, tmp_path / "b")
    assert task.slope.item() == alone.slope.item()


def test_other_settings_start_anew_and_keep_the_curve_before(tmp_path, capsys):
    board, task = TrainingDashboard(), Line()
    before = run(board, task, TrainConfig(steps=4, log_every=2), tmp_path / "a")
    other = TrainConfig(steps=4, log_every=2, lr=0.01)
    task = Line()
    log = run(board, task, other, tmp_path / "a")
    assert board.earlier["line, before"] == before and board.logs["line"] == log
    assert "starts anew" in (said := capsys.readouterr().out) and "lr: " in said
    alone = Line()
    train(alone, Same(), other, tmp_path / "b")
    assert task.slope.item() == alone.slope.item()


@pytest.mark.parametrize("heard", [True, False])
def test_where_clicks_wait_for_the_cell_the_dashboard_names_another_button(tmp_path, monkeypatch, heard):
    monkeypatch.setattr(dashboard, "_PATIENCE", 0.02)
    monkeypatch.setattr(dashboard, "_EVERY", 0.0)
    board, asked, said = TrainingDashboard(), [], []

    def send(message):
        asked.append(message)
        if heard:  # as the script of the picture does
            board.picture._handle_custom_msg("heard", [])

    assert board.box
    monkeypatch.setattr(board.picture, "send", send)
    board._words.observe(lambda change: said.append((board.words(), board._button.disabled)), "value")
    run(board, Line(), TrainConfig(steps=12, log_every=2), tmp_path)
    assert asked[0] == "heard?" and (len(asked) == 1) == heard
    assert any("interrupt the kernel" in words for words, _ in said) != heard
    assert any(disabled for words, disabled in said if "step 10" in words) != heard
    assert "interrupt the kernel" not in board.words(), "the training is over"


def test_dashboard_says_what_went_wrong(tmp_path):
    class Broken(Line):
        def forward(self, batch):
            raise ValueError("no such luck")

    board = TrainingDashboard()
    with pytest.raises(ValueError, match="no such luck"):
        asyncio.run(board.train("line", Broken(), Same(), TrainConfig(steps=2), tmp_path))
    assert board.status == "line: ValueError: no such luck" and not board.running


def test_a_picture_that_looks_the_same_is_counted_all_the_same():
    panel = StudentDesigner(900_000, rounds=1)
    assert panel.box and panel.update(layers=6).picture.drawn == 2
    png = panel.picture.png
    panel.update(heads=4)  # costs nothing, so that nothing in the picture moves
    assert panel.picture.png == png and panel.picture.drawn == 3 and "4 heads" in panel.picture.alt
