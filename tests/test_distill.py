"""Regression loss by hand, padding, the teacher untouched, students that start from the teacher, and that it learns."""

import math

import numpy as np
import pytest
import soundfile
import torch

from kdkit.common.errors import CheckpointError, ConfigError
from kdkit.distill import DistillConfig, DistillTask, default_pairs, layer_wise, prediction_heads
from kdkit.losses import Loss, discriminative_loss, hard_label_loss, mean_over, regression_loss
from kdkit.model.checkpoints import half
from kdkit.model.codebook import ClusterHead, Codebook
from kdkit.model.speech_model import ModelConfig, SpeechModel, preset
from kdkit.speech.batches import Batches, collate
from kdkit.speech.manifest import Utterance
from kdkit.students import new_student
from kdkit.teachers import Teacher, load_model, load_teacher, save_model
from kdkit.teachers.pretrain import kmeans_codebook
from kdkit.training.loop import train
from kdkit.training.recipe import TrainConfig

TEACHER = ModelConfig(
    layers=3, dim=32, ffn=64, heads=2, conv_channels=(4,) * 7, pos_kernel=8, pos_groups=4, dropout=0.1
)


def small_teacher(clusters: int = 0, seed: int = 0) -> Teacher:
    torch.manual_seed(seed)
    codebook = Codebook(TEACHER.dim, clusters, 8).requires_grad_(False).eval() if clusters else None
    return Teacher(SpeechModel(TEACHER).requires_grad_(False).eval(), codebook, "test", {})


def small_student(**settings) -> SpeechModel:
    torch.manual_seed(2)
    return SpeechModel(ModelConfig(**{**TEACHER.to_dict(), "dim": 16, "dropout": 0.0, **settings}))


def padded_batch(*sizes: int):
    torch.manual_seed(1)
    waves = [torch.randn(size) * 0.1 for size in sizes]
    return collate(waves, [None] * len(sizes)), waves


def test_regression_loss_by_hand():
    p, h = torch.tensor([[[1.0, 0.0], [9.0, 9.0]]]), torch.tensor([[[0.0, 2.0], [-5.0, 1.0]]])
    mask = torch.tensor([[True, False]])  # the second frame is padding
    l1, l2, cosine = (1 + 2) / 2, (1 + 4) / 2, math.log(1 + math.exp(-0.0))  # orthogonal: -log sigmoid(0)
    assert regression_loss(p, h, mask, 0.0).item() == pytest.approx(l1)
    assert regression_loss(p, h, mask, 2.0).item() == pytest.approx(l1 + 2 * cosine)
    assert regression_loss(p, h, mask, 0.0, "l2").item() == pytest.approx(l2)


def test_regression_loss_gradient():
    p = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([[True, True, False], [True, True, True]])
    h = torch.randn(2, 3, 4, dtype=torch.float64)
    loss = regression_loss(p, h, mask)
    loss.backward()
    assert (p.grad[0, 2] == 0).all() and (p.grad[0, 1] != 0).any()


def test_discriminative_loss_by_hand():
    # teacher says (3/4, 1/4), student (1/2, 1/2); the second frame is padding
    teacher = torch.tensor([[[math.log(3.0), 0.0], [50.0, -50.0]]])
    student = torch.tensor([[[7.0, 7.0], [-1.0, 9.0]]])
    mask = torch.tensor([[True, False]])
    expected = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert discriminative_loss(student, teacher, mask).item() == pytest.approx(expected)
    assert discriminative_loss(teacher, teacher, mask).item() == pytest.approx(0.0, abs=1e-6)
    assert hard_label_loss(student, teacher, mask).item() == pytest.approx(math.log(2))


def test_each_side_is_divided_by_its_temperature_once():
    teacher, student = torch.tensor([[[0.5, 0.1]]]), torch.tensor([[[0.2, 0.8]]])
    mask = torch.tensor([[True]])

    def divergence(tau, tau_student):
        q, p = 1 / (1 + math.exp(-0.4 / tau)), 1 / (1 + math.exp(0.6 / tau_student))
        return q * math.log(q / p) + (1 - q) * math.log((1 - q) / (1 - p))

    both, own = (discriminative_loss(student, teacher, mask, 0.2, own).item() for own in (None, 0.5))
    assert both == pytest.approx(divergence(0.2, 0.2), rel=1e-5)
    assert own == pytest.approx(divergence(0.2, 0.5), rel=1e-5)
    hard = hard_label_loss(student, teacher, mask, 0.5).item()
    assert hard == pytest.approx(math.log(1 + math.exp(0.6 / 0.5)), rel=1e-5)


def test_the_gradient_of_the_discriminative_loss_is_the_difference_of_the_distributions():
    teacher = torch.randn(2, 3, 5, dtype=torch.float64)
    student = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([[True, True, False], [True, True, True]])
    discriminative_loss(student, teacher, mask).backward()
    expected = (student.softmax(-1) - teacher.softmax(-1)).detach() / mask.sum() * mask[..., None]
    torch.testing.assert_close(student.grad, expected, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("variant", ["codebook", "linear", "hard"])
def test_the_cluster_head_is_the_formula(variant):
    book = Codebook(32, 7, 8)
    head = ClusterHead(variant, 16, book)
    states = torch.randn(3, 4, 16)
    projected = head.projection(states)
    if variant == "linear":
        expected = projected
    else:
        expected = torch.cosine_similarity(projected[..., None, :], book.label_embeddings, dim=-1)
    torch.testing.assert_close(head(states), expected)
    learned = {name for name, _ in head.named_parameters()}
    assert learned == {"projection.weight", "projection.bias"}  # the label embeddings stay the teacher's


def test_the_codebook_gives_cosines_and_its_own_logits():
    book, hidden = Codebook(32, 7, 8, tau=0.2), torch.randn(3, 4, 32)
    projected = book.final_proj(hidden)[..., None, :]
    expected = torch.cosine_similarity(projected, book.label_embeddings, dim=-1)
    torch.testing.assert_close(book.cosines(hidden), expected)
    torch.testing.assert_close(book(hidden), expected / 0.2)


def test_dictionary_specials_are_never_targets():
    weight, bias, rows = torch.randn(8, 32), torch.randn(8), torch.randn(504, 8)
    rows[:4] = 100 * (weight @ torch.ones(32))  # what would win every frame
    book = Codebook.from_hubert(weight, bias, rows)
    assert book.label_embeddings.shape == (500, 8) and not any(p.requires_grad for p in book.parameters())
    torch.testing.assert_close(book.label_embeddings.data, rows[4:])


def test_centroids_make_a_codebook_whose_best_id_is_the_direction_from_the_mean():
    centroids = 10 + torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    book = Codebook.from_centroids(centroids)
    assert book(10 + torch.tensor([[3.0, 0.1], [0.1, -0.5]])).argmax(-1).tolist() == [0, 3]


def test_kmeans_gives_a_codebook_to_a_teacher_that_has_none(tmp_path):
    rng, speech = np.random.default_rng(0), []
    for i in range(6):
        path = tmp_path / f"{i}.wav"
        soundfile.write(path, 0.1 * rng.standard_normal(16_000), 16_000)
        speech.append(Utterance(f"u{i}", path, 1.0))
    teacher = small_teacher()
    teacher.codebook = kmeans_codebook(teacher.model, speech, clusters=9)
    batch = padded_batch(8000, 6000)[0]
    logits = teacher.codebook(teacher.hidden(batch.waves, batch.lengths).last)
    assert logits.shape[-1] == 9 and len(logits.argmax(-1).unique()) > 2
    task = DistillTask(small_student(), teacher, DistillConfig(((1, 1),), discriminative_weight=1.0))
    assert task(batch)[1]["discriminative"] > 0


def test_frames_that_do_not_match_are_refused():
    task, batch = (
        DistillTask(small_student(), small_teacher(), DistillConfig(((1, 1),))),
        padded_batch(8000)[0],
    )
    whole = task.targets(task.prepare(batch))
    task.targets = lambda batch, depth: {layer: states[:, :-1] for layer, states in whole.items()}
    with pytest.raises(ConfigError, match="teacher makes 23 frames of this batch, the student 24"):
        task(batch)


def test_total_loss_is_the_weighted_sum_and_temperatures_count():
    teacher, batch = small_teacher(clusters=7), padded_batch(8000, 6000)[0]
    student = small_student()
    pairs = ((1, 1), (3, 3))

    def run(**settings):
        torch.manual_seed(5)
        return DistillTask(student, teacher, DistillConfig(pairs, **settings)).eval()(batch)

    both, parts = run(regression_weight=0.5, discriminative_weight=0.3)
    expected = 0.5 * parts["regression"] + 0.3 * parts["discriminative"]
    torch.testing.assert_close(both.detach(), expected)
    assert set(run(regression_weight=0.0, discriminative_weight=1.0)[1]) == {"discriminative", "codes"}
    assert set(run()[1]) == {"regression", "spread"}
    soft = run(discriminative_weight=1.0, tau=100.0, tau_student=100.0)[1]["discriminative"]
    assert soft < 1e-4 < parts["discriminative"]  # both are uniform when it is hot enough


def test_a_second_teacher_gives_the_cluster_ids():
    first, second, batch = (
        small_teacher(clusters=7),
        small_teacher(clusters=5, seed=9),
        padded_batch(8000, 6000)[0],
    )
    config = DistillConfig(((1, 1),), discriminative_weight=1.0)

    def run(*teachers):
        torch.manual_seed(5)
        return DistillTask(small_student(), teachers[0], config, *teachers[1:]).eval()(batch)[1]

    one, two = run(first), run(first, second)
    assert one["regression"] == two["regression"] and one["discriminative"] != two["discriminative"]
    assert run(first, first) == one
    with pytest.raises(ConfigError, match="no codebook"):
        run(small_teacher())
    assert run(small_teacher(), second)["discriminative"] > 0  # a codebook is needed once only


def test_a_loss_of_ones_own_is_added_by_its_weight_and_logged_by_its_name():
    teacher, batch, student = small_teacher(clusters=7), padded_batch(8000, 6000)[0], small_student()

    def length(output, states, mask):
        apart = output.last.norm(dim=-1) - states[2].norm(dim=-1)
        return mean_over(mask, apart.abs()), {"longest": output.last.norm(dim=-1).amax()}

    def run(*extra, **settings):
        torch.manual_seed(5)
        return DistillTask(student, teacher, DistillConfig(((1, 1),), **settings), extra=extra).eval()

    task = run(Loss("length", 0.3, length, layers=(2,)), discriminative_weight=0.5)
    assert task.layers == {1, 2, 3}
    loss, parts = task(batch)
    assert list(parts) == ["regression", "spread", "discriminative", "codes", "length", "longest"]
    output, target = student(batch.waves, batch.lengths), teacher.hidden(batch.waves, batch.lengths)
    apart = (output.last.norm(dim=-1) - target.hidden[2].norm(dim=-1))[target.mask].abs().mean()
    torch.testing.assert_close(parts["length"], apart.detach())
    without = run(discriminative_weight=0.5)(batch)[0]
    torch.testing.assert_close(loss, without + 0.3 * apart)
    alone, parts = run(Loss("length", 2.0, length, layers=(2,)), regression_weight=0.0)(batch)
    torch.testing.assert_close(alone, 2 * apart)
    assert list(parts) == ["length", "longest"]


def test_a_weight_may_change_with_the_share_of_the_steps():
    def own(output, states, mask):
        return mean_over(mask, output.last.square().mean(-1))

    ramp = Loss("own", lambda share: 2 * share, own)
    task, batch = (
        DistillTask(small_student(), small_teacher(), DistillConfig(((1, 1),)), extra=[ramp]).eval(),
        padded_batch(8000)[0],
    )
    loss, parts = task(batch)
    torch.testing.assert_close(loss, parts["regression"])
    task.schedule(5, 10)
    loss, parts = task(batch)
    torch.testing.assert_close(loss, parts["regression"] + parts["own"])
    assert task.settings["extra losses"]["own"]["weight"] == [0.0, 0.5, 1.0, 1.5, 2.0]


class Widened(torch.nn.Module):
    """A loss with a head of its own."""

    def __init__(self):
        super().__init__()
        self.head = torch.nn.Linear(16, TEACHER.dim)

    def forward(self, output, states, mask):
        return regression_loss(self.head(output.last), states[3], mask)


def test_a_run_with_a_loss_of_ones_own_goes_on_with_it_and_with_no_other(tmp_path):
    rng = np.random.default_rng(0)
    soundfile.write(tmp_path / "a.wav", 0.1 * rng.standard_normal(16_000), 16_000)
    speech = [Utterance(f"u{i}", tmp_path / "a.wav", 1.0) for i in range(4)]
    recipe = TrainConfig(steps=6, lr=1e-2, precision="fp32", log_every=1, save_every=2)

    def start(name="own", weight=0.5):
        torch.manual_seed(7)
        loss = Loss(name, weight, Widened(), layers=(3,))
        return DistillTask(small_student(), small_teacher(), DistillConfig(((1, 1),)), extra=[loss])

    class Stopped(Batches):
        def batch(self, number):
            if number == 3:
                raise KeyboardInterrupt
            return super().batch(number)

    whole, stopped, resumed = start(), start(), start()
    before = whole.extra[0].head.weight.clone()
    train(whole, Batches(speech, 2), recipe, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(stopped, Stopped(speech, 2), recipe, tmp_path / "stopped")
    others = (({"weight": 0.4}, "own.weight: 0.5 then, 0.4 now"), ({"name": "mine"}, "mine.code: None then"))
    for other, told in others:
        with pytest.raises(CheckpointError, match=told):
            train(start(**other), Batches(speech, 2), recipe, tmp_path / "stopped")
    rows = train(resumed, Batches(speech, 2), recipe, tmp_path / "stopped")
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6] and all("own" in row for row in rows)
    assert not torch.equal(whole.extra[0].head.weight, before)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], tensor), name


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (Loss("own", 1.0, lambda o, s, m: s[9].mean()), r"reads teacher layer 9.*layers=\(9,\)"),
        (Loss("own", 1.0, lambda o, s, m: o.last.mean(-1)), r"returns shape \(1, 24\)"),
        (Loss("own", 1.0, lambda o, s, m: o.last.mean().item()), "returns float"),
    ],
)
def test_a_loss_of_ones_own_says_what_it_lacks(loss, message):
    task = DistillTask(small_student(), small_teacher(), DistillConfig(((1, 1),)), extra=[loss])
    with pytest.raises(ConfigError, match=message):
        task(padded_batch(8000)[0])


def test_a_loss_of_ones_own_needs_a_name_a_weight_and_layers_that_exist():
    def task(*losses):
        return DistillTask(small_student(), small_teacher(), DistillConfig(((1, 1),)), extra=losses)

    def nothing(output, states, mask):
        return output.last.mean()

    for name in ("regression", "loss", "spread"):
        with pytest.raises(ConfigError, match="names of their own"):
            task(Loss(name, 1.0, nothing))
    with pytest.raises(ConfigError, match="names of their own"):
        task(Loss("own", 1.0, nothing), Loss("own", 0.5, nothing))
    with pytest.raises(ConfigError, match="teacher layer 4: there are layers 0 to 3"):
        task(Loss("own", 1.0, nothing, layers=(4,)))
    with pytest.raises(ConfigError, match="weight of loss 'own' is -1"):
        Loss("own", -1, nothing)


def test_a_collapsed_student_is_complained_about():
    task = DistillTask(small_student(), small_teacher(clusters=7), DistillConfig(((1, 1),)))
    fine = [{"spread": 0.4, "codes": 0.7}] * 12
    assert task.complaints(fine) == []
    flat = task.complaints([*fine, *[{"spread": 0.01, "codes": 0.7}] * 5])
    assert len(flat) == 1 and "predictions vary less" in flat[0]
    dead = task.complaints([*fine, *[{"spread": 0.4, "codes": 0.02}] * 5])
    assert len(dead) == 1 and "cluster ids" in dead[0]
    # and the measures themselves: a student that says the same at every frame
    batch = padded_batch(8000, 6000)[0]
    for head in (*task.heads,):
        torch.nn.init.zeros_(head.weight)
    assert task(batch)[1]["spread"] < 1e-6


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"variant": "soft"}, "choose 'codebook' or 'linear' or 'hard'"),
        ({"tau": 0.0}, "tau is 0.0: a number from 0.0001"),
        ({"tau_student": -1}, "tau_student is -1: a number from 0.0001"),
        ({"discriminative_weight": -0.1}, "discriminative_weight is -0.1: a number from 0"),
        ({"regression_weight": 0}, "nothing to learn"),
        ({"pairs": ()}, "at least one"),
        ({"distance": "l3"}, "l2"),
    ],
)
def test_impossible_losses_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        DistillTask(small_student(), small_teacher(), DistillConfig(**{"pairs": ((1, 1),), **settings}))


@pytest.mark.parametrize("front_end", ["waveform", "fbank"])
@pytest.mark.parametrize("variant", ["codebook", "linear", "hard"])
def test_a_padded_batch_equals_its_utterances(front_end, variant):
    teacher = small_teacher(clusters=7)
    student = small_student(front_end=front_end)
    losses = DistillConfig(layer_wise(student.config, TEACHER), discriminative_weight=0.5, variant=variant)
    task = DistillTask(student, teacher, losses).eval()
    batch, waves = padded_batch(8000, 3000, 5000)
    together, _ = task(batch)
    alone, frames = 0.0, 0
    for wave in waves:
        one = collate([wave], [None])
        n = (len(wave) - 400) // 320 + 1
        alone, frames = alone + task(one)[0] * n, frames + n
    torch.testing.assert_close(together, alone / frames, atol=1e-5, rtol=1e-5)


def test_the_teacher_stays_as_it_was_and_the_student_learns():
    teacher = small_teacher(clusters=7)
    before = {n: t.clone() for n, t in teacher.model.state_dict().items()}
    student = SpeechModel(ModelConfig(**{**TEACHER.to_dict(), "layers": 2, "dropout": 0.0}))
    codebook = {n: t.clone() for n, t in teacher.codebook.state_dict().items()}
    pairs = prediction_heads(student.config, (1, 3))
    task = DistillTask(student, teacher, DistillConfig(pairs, discriminative_weight=0.5))
    task.train()
    assert not teacher.model.training  # no dropout in the targets
    batch, _ = padded_batch(8000, 6000)
    optimiser = torch.optim.Adam([p for p in task.parameters() if p.requires_grad], 3e-3)
    losses = []
    for _ in range(60):
        loss, _ = task(batch)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]
    assert all(torch.equal(before[n], t) for n, t in teacher.model.state_dict().items())
    assert all(torch.equal(codebook[n], t) for n, t in teacher.codebook.state_dict().items())


def test_pairs():
    teacher = preset("hubert-base")
    assert layer_wise(preset("dt-fbank"), teacher) == tuple((i, i) for i in range(1, 13))
    assert default_pairs(preset("sw-fbank"), teacher) == ((2, 4), (2, 8), (2, 12))
    with pytest.raises(ConfigError, match="12"):
        layer_wise(preset("sw-fbank"), teacher)
    with pytest.raises(ConfigError, match="teacher layer 4"):
        DistillTask(SpeechModel(TEACHER), small_teacher(), DistillConfig(((3, 4),)))


def test_students_start_from_the_teachers_parts():
    teacher = SpeechModel(preset("tiny-teacher"))
    wide = new_student("tiny-sw-waveform", teacher)
    assert (
        "waveform CNN" in wide.from_teacher
        and "layer 2" in wide.from_teacher
        and "projection" in wide.from_teacher
    )
    for own, theirs in zip(wide.encoder.layers, teacher.encoder.layers):
        assert torch.equal(own.ffn_in.weight, theirs.ffn_in.weight)
    thin = new_student("tiny-dt-waveform", teacher)
    assert thin.from_teacher == ["waveform CNN", "CNN's LayerNorm"]
    assert new_student("tiny-dt-fbank", teacher).from_teacher == []
    assert new_student("tiny-dt-waveform").from_teacher == []
    again = new_student("tiny-dt-fbank", seed=0)
    assert torch.equal(
        again.encoder.layers[0].ffn_in.weight, new_student("tiny-dt-fbank").encoder.layers[0].ffn_in.weight
    )


def test_models_come_back_from_a_file(tmp_path):
    model, book = SpeechModel(TEACHER), Codebook(32, 7, 5, tau=0.2)
    save_model(tmp_path / "m.safetensors", model, {"why": "test"}, book, pack=half)
    teacher = load_teacher(tmp_path / "m.safetensors")
    assert teacher.config == TEACHER and teacher.codebook.tau == 0.2 and teacher.meta["why"] == "test"
    assert not any(p.requires_grad for p in teacher.model.parameters())
    waves, lengths = torch.randn(1, 4000) * 0.1, torch.tensor([4000])
    with torch.no_grad():
        error = (teacher.hidden(waves, lengths).last - model.eval()(waves, lengths).last).abs().max()
    assert 0 < error < 0.02  # float16 on disk
    save_model(tmp_path / "x.safetensors", SpeechModel(TEACHER), {})
    damaged = (tmp_path / "x.safetensors").read_bytes()
    (tmp_path / "x.safetensors").write_bytes(damaged[: len(damaged) // 2])
    with pytest.raises(CheckpointError, match="truncated"):
        load_model(tmp_path / "x.safetensors")
