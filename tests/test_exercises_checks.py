"""The checks of the exercises: right answers pass however often they are tried, typical wrong ones get their hint."""

import re
from dataclasses import replace
from difflib import SequenceMatcher
from itertools import groupby, pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from kdkit import losses, probing
from kdkit.common.statistics import Comparison
from kdkit.lessons import exercises
from kdkit.lessons.exercises import checking
from kdkit.probing.phones import LayerScore, PhoneProbe
from kdkit.speech.text import VOCABULARY

# --- right answers, written as a learner may write them ----------------------------------------------------------


def regression(p, h, mask, cosine_weight=1.0):
    real = mask.unsqueeze(-1).expand_as(p)
    cosine = (p * h).sum(-1) / (p.norm(dim=-1) * h.norm(dim=-1))
    angle = (torch.log(1 + torch.exp(-cosine)) * mask).sum() / mask.sum()
    return torch.abs(p - h)[real].mean() + cosine_weight * angle


def discriminative(student, teacher, mask):
    p, q = F.log_softmax(student[mask], -1), F.softmax(teacher[mask], -1)
    return F.kl_div(p, q, reduction="batchmean")


def ids_in_play(cosines, tau):
    return torch.exp(torch.distributions.Categorical(logits=cosines / tau).entropy().mean())


def spread_pairs(student_layers, teacher_layers):
    return tuple((i, i * teacher_layers // student_layers) for i in range(1, student_layers + 1))


def neighbours(p, h, mask):
    apart = (p - h)[:, 1:] - (p - h)[:, :-1]
    return apart[mask[:, 1:]].abs().mean()


def frames_of(samples):
    return 1 + (samples - 400) // 320


def cluster_logits(hidden, codebook):
    projected = codebook.final_proj(hidden)
    return F.cosine_similarity(projected[:, None], codebook.label_embeddings[None], dim=-1) / codebook.tau


def phone_information(ids, phones):
    def entropy(labels):
        share = np.unique(labels, return_counts=True)[1] / len(labels)
        return -(share * np.log2(share)).sum()

    both = np.array([f"{i} {p}" for i, p in zip(ids, phones)])
    return (entropy(ids) + entropy(phones) - entropy(both)) / entropy(phones)


def alignment(x, y):
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    return ((x.T @ y) ** 2).sum() / np.sqrt(((x.T @ x) ** 2).sum() * ((y.T @ y) ** 2).sum())


def mel_filters(bins, fft, rate, low, high=None, axis=True):
    def mel(f):
        return 2595 * np.log10(1 + f / 700) if axis else f

    points = np.linspace(mel(low), mel(high or rate / 2), bins + 2)
    at = mel(np.linspace(0, rate / 2, fft // 2 + 1))
    rows = [np.interp(at, points[b : b + 3], [0, 1, 0]) for b in range(bins)]
    return torch.tensor(np.array(rows).T, dtype=torch.float32)


def conv_frames(n, kernel, stride, padding=0):
    return (n - kernel + 2 * padding + stride) // stride


def staged_loss(step, adaptation_steps, features, head, target, mask, usual_loss):
    if step >= adaptation_steps:
        return usual_loss()
    return F.l1_loss(head(features)[mask], target[mask])


def write_out(ids):
    text, before = "", None
    for symbol in ids:
        if symbol != before and symbol != 0:
            text += VOCABULARY[symbol]
        before = symbol
    return " ".join(text.replace("|", " ").split())


def frames_needed(text):
    return len(text) + sum(a == b for a, b in pairwise(text))


def edits(a, b):
    table = np.zeros((len(a) + 1, len(b) + 1), dtype=int)
    table[:, 0], table[0] = np.arange(len(a) + 1), np.arange(len(b) + 1)
    for i in range(1, len(a) + 1):
        for j in range(1, len(b) + 1):
            swap = table[i - 1, j - 1] + (a[i - 1] != b[j - 1])
            table[i, j] = min(swap, table[i - 1, j] + 1, table[i, j - 1] + 1)
    return table[-1, -1]


def word_error_rate(references, hypotheses):
    pairs = [(r.split(), h.split()) for r, h in zip(references, hypotheses)]
    return sum(edits(r, h) for r, h in pairs) / sum(len(r) for r, _ in pairs)


RIGHT = [
    regression,
    discriminative,
    ids_in_play,
    spread_pairs,
    neighbours,
    frames_of,
    cluster_logits,
    phone_information,
    alignment,
    mel_filters,
    conv_frames,
    staged_loss,
    write_out,
    frames_needed,
    edits,
    word_error_rate,
]
CHECKS = {
    "regression": exercises.check_regression_loss,
    "discriminative": exercises.check_discriminative_loss,
}


def check_of(name):
    return CHECKS.get(name) or getattr(exercises, f"check_{name}")


@pytest.mark.parametrize("attempt", RIGHT, ids=lambda f: f.__name__)
def test_a_right_answer_passes_fifty_times_in_a_row(attempt, capsys):
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    for _ in range(50):
        assert check_of(attempt.__name__)(attempt) is attempt, capsys.readouterr().out
    said = capsys.readouterr().out
    assert "✗" not in said and said.count("Right.") == 50
    assert torch.equal(torch.get_rng_state(), before[0]), (
        "a check must not disturb the run's own random numbers"
    )
    assert np.array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002


# --- wrong answers -----------------------------------------------------------------------------------------------


def region(values, mask):
    return values[mask].mean()


def reg(distance=True, angle=True, mean=region, weight=True, squared=False):
    """A regression loss with some of its parts otherwise."""

    def attempt(p, h, mask, cosine_weight=1.0):
        apart = (p - h) ** 2 if squared else (p - h).abs()
        loss = mean(apart.mean(-1), mask) if distance else 0
        part = mean(-F.logsigmoid(F.cosine_similarity(p, h, dim=-1)), mask) if angle else 0
        return loss + (cosine_weight if weight else 1) * part

    return attempt


def step(p, h, power):
    return (p.diff(dim=1) - h.diff(dim=1)).abs().pow(power).mean(-1)


def disc(reduction="batchmean", swap=False, masked=True):
    def attempt(student, teacher, mask):
        if swap:
            student, teacher = teacher, student
        if masked:
            student, teacher = student[mask], teacher[mask]
        return F.kl_div(student.log_softmax(-1), teacher.softmax(-1), reduction=reduction)

    return attempt


def entropies(cosines, tau):
    log_q = (cosines / tau).log_softmax(-1)
    return -(log_q.exp() * log_q).sum(-1)


def logits(tau="divide", first=True, second=True):
    def attempt(hidden, codebook):
        a, b = codebook.final_proj(hidden), codebook.label_embeddings
        a, b = F.normalize(a, dim=-1) if first else a, F.normalize(b, dim=-1) if second else b
        return {"divide": 1 / codebook.tau, "multiply": codebook.tau, "forget": 1}[tau] * (a @ b.T)

    return attempt


def stage(
    step, n, features, head, target, mask, usual_loss, last=0, mean=region, squared=False, always=False
):
    usual = usual_loss() if always else None
    if step < n + last:
        apart = head(features) - target
        return mean((apart.square() if squared else apart.abs()).mean(-1), mask)
    return usual if always else usual_loss()


def staged(**options):
    return lambda *arguments: stage(*arguments, **options)


def blanks_first(ids):
    kept = [i for i in ids if i != 0]
    return write_out([s for i, s in enumerate(kept) if i == 0 or s != kept[i - 1]])


def off_at_the_start(ids):
    kept = [s for i, s in enumerate(ids) if s != ids[i - 1]]
    return " ".join("".join(VOCABULARY[s] for s in kept if s).replace("|", " ").split())


def place_by_place(a, b):
    return sum(x != y for x, y in zip(a, b)) + abs(len(a) - len(b))


def dear_substitutions(a, b):
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        diagonal, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + 2 * (x != y))
    return row[-1]


def words(texts):
    return sum(len(text.split()) for text in texts)


def all_errors(references, hypotheses):
    return sum(edits(r.split(), h.split()) for r, h in zip(references, hypotheses))


WRONG = [
    # the regression loss
    ("regression", reg(mean=lambda v, m: v.mean()), "padding is counted"),
    ("regression", reg(mean=lambda v, m: (v * m).mean()), "still counted in the number of frames"),
    ("regression", reg(mean=lambda v, m: v[~m].mean()), "the wrong way round"),
    ("regression", reg(mean=lambda v, m: v[m].sum()), "sum over frames"),
    (
        "regression",
        reg(mean=lambda v, m: ((v * m).sum(1) / m.sum(1)).mean()),
        "each utterance is averaged by itself",
    ),
    ("regression", reg(mean=lambda v, m: v), "returns shape"),
    ("regression", reg(squared=True), "squared"),
    (
        "regression",
        reg(squared=True, mean=lambda v, m: v.mean()),
        "padding is counted.*And the distance is squared",
    ),
    ("regression", reg(angle=False), "angle term is missing"),
    ("regression", reg(distance=False), "distance term is missing"),
    ("regression", reg(weight=False), "cosine_weight is not used"),
    ("regression", lambda p, h, m, w=1.0: w * reg()(p, h, m), "angle term alone"),
    (
        "regression",
        lambda p, h, m, w=1.0: (p - h)[m].abs().sum() + reg(False)(p, h, m, w),
        "summed over everything",
    ),
    (
        "regression",
        lambda p, h, m, w=1.0: (p - h)[m].abs().sum(-1).mean() + reg(False)(p, h, m, w),
        "over dimensions",
    ),
    (
        "regression",
        lambda p, h, m, w=1.0: (p - h).abs().mean() + reg(False)(p, h, m, w),
        "In the distance term padding is counted",
    ),
    (
        "regression",
        lambda p, h, m, w=1.0: (
            reg(angle=False)(p, h, m) + w * (1 - F.cosine_similarity(p, h, dim=-1))[m].mean()
        ),
        "1 - cos",
    ),
    ("regression", lambda p, h, m, w=1.0: regression(p, h, m, w).item(), "float; a torch tensor.*gradient"),
    ("regression", lambda p, h, m, w=1.0: regression(p, h, m, w).detach(), "no gradient flows"),
    ("regression", lambda p, h, m, w=1.0: reg()(p, h, m, w) + 0.01, "but .* is right"),
    ("regression", lambda p, h, m, w=1.0: reg()(p, h, m, w) / 0, "not a finite number"),
    ("regression", lambda p, h: (p - h).abs().mean(), "cannot be called with 3 arguments"),
    # the discriminative loss
    ("discriminative", disc(swap=True), "wrong way round"),
    ("discriminative", disc(reduction="mean"), "mean runs over ids"),
    ("discriminative", disc(reduction="sum"), "sum over frames"),
    ("discriminative", disc(masked=False), "number of utterances"),
    (
        "discriminative",
        lambda s, t, m: disc()(s.flatten(0, 1), t.flatten(0, 1), m.flatten() | True),
        "padding is counted",
    ),
    ("discriminative", lambda s, t, m: F.cross_entropy(s[m], t[m].softmax(-1)), "cross-entropy"),
    ("discriminative", lambda s, t, m: -disc()(s, t, m), "sign"),
    ("discriminative", lambda s, t, m: (t.exp() * (t - s)).sum(-1)[m].mean(), "softmax makes distributions"),
    # a loss of one's own
    ("neighbours", lambda p, h, m: (p.diff(dim=1) - h.diff(dim=1)).abs().mean(), "padding is counted"),
    ("neighbours", lambda p, h, m: step(p, h, 1)[m[:, :-1]].mean(), "into the padding"),
    ("neighbours", lambda p, h, m: (step(p, h, 1) * m[:, 1:]).sum() / m.sum(), "one pair less"),
    ("neighbours", lambda p, h, m: step(p, h, 2)[m[:, 1:]].mean(), "squared"),
    ("neighbours", lambda p, h, m: (p - h).abs().mean(-1)[:, 1:][m[:, 1:]].mean(), "states are compared"),
    ("neighbours", lambda p, h, m: p.diff(dim=1).abs().mean(-1)[m[:, 1:]].mean(), "teacher's steps"),
    ("neighbours", lambda p, h, m: neighbours(p.detach(), h, m), "no gradient flows"),
    # temperature
    ("ids_in_play", lambda c, tau: entropies(c, 1).mean().exp(), "temperature is forgotten"),
    ("ids_in_play", lambda c, tau: entropies(c * tau, 1).mean().exp(), "multiplied by tau"),
    ("ids_in_play", lambda c, tau: entropies(c, tau).mean(), "the entropy itself"),
    ("ids_in_play", lambda c, tau: entropies(c, tau).exp().mean(), "before the mean"),
    ("ids_in_play", lambda c, tau: 2 ** entropies(c, tau).mean(), "2 to the entropy"),
    ("ids_in_play", lambda c, tau: entropies(c, tau).exp(), "single number is asked for"),
    (
        "ids_in_play",
        lambda c, tau: entropies((c / tau).softmax(-1).mean(0).log()[None], 1).exp(),
        "shape",
    ),
    (
        "ids_in_play",
        lambda c, tau: entropies((c / tau).softmax(-1).mean(0).log(), 1).exp(),
        "entropy of the mean distribution",
    ),
    (
        "ids_in_play",
        lambda c, tau: (-((q := (c / tau).softmax(-1)) * q.log()).sum(-1)).mean().exp(),
        "not a finite number",
    ),
    # layers
    ("spread_pairs", lambda m, n: [(i, i * n // m) for i in range(m)], "counted from 0"),
    ("spread_pairs", lambda m, n: [(i * n // m, i) for i in range(1, m + 1)], "student's layer first"),
    ("spread_pairs", lambda m, n: [(i, i * n // m) for i in range(1, m)], "last pair is missing"),
    (
        "spread_pairs",
        lambda m, n: [(i, i * n // m - 1) for i in range(1, m + 1)],
        "Off by one on the teacher",
    ),
    ("spread_pairs", lambda m, n: list(range(m)), "list or tuple of pairs"),
    # frames
    ("frames_of", lambda n: (n - 400) // 320, "Off by one"),
    ("frames_of", lambda n: n // 320, "This is n / 320"),
    ("frames_of", lambda n: n // 320 + 7, "but .* is right"),
    ("frames_of", lambda n: (n - 400) / 320 + 1, "float.*//"),
    ("frames_of", lambda n: round((n - 400) / 320) + 1, "rounds to the nearest"),
    ("frames_of", lambda n: (n - 400) // 160 + 1, "Fbank frames"),
    # the codebook
    ("cluster_logits", logits(tau="forget"), "temperature is forgotten"),
    ("cluster_logits", logits(tau="multiply"), "multiplied by the temperature"),
    ("cluster_logits", logits(first=False), "projections are not normalised"),
    ("cluster_logits", logits(second=False), "embeddings are not normalised"),
    ("cluster_logits", logits(first=False, second=False), "Neither side"),
    ("cluster_logits", lambda h, c: logits()(h, c).softmax(-1), "leave the softmax out"),
    ("cluster_logits", lambda h, c: logits()(h, c).T.contiguous()[:1], "returns shape"),
    ("cluster_logits", lambda h, c: logits()(h, c).numpy(), "torch tensor is needed"),
    # PNMI and CKA
    ("phone_information", lambda i, p: phone_information(p, i), "entropy of the ids"),
    ("phone_information", lambda i, p: 1 - phone_information(i, p), "take it from 1"),
    ("phone_information", lambda i, p: probing.phone_purity(i, p), "purity"),
    ("phone_information", lambda i, p: -phone_information(i, p), "sign is wrong"),
    (
        "alignment",
        lambda x, y: np.linalg.norm(y.T @ x) ** 2 / np.linalg.norm(x.T @ x) / np.linalg.norm(y.T @ y),
        "not centred",
    ),
    ("alignment", lambda x, y: np.sqrt(alignment(x, y)), "square root of CKA"),
    (
        "alignment",
        lambda x, y: alignment(x - x.mean(1, keepdims=True), y),
        "but .* is right",
    ),
    # mel filters
    (
        "mel_filters",
        lambda b, n, r, low: mel_filters(b, n, r, low, high=r),
        "upper limit is the sampling rate itself",
    ),
    ("mel_filters", lambda b, n, r, low: mel_filters(b, n, r, low, high=8000), "8,000 Hz whatever the rate"),
    ("mel_filters", lambda b, n, r, low: mel_filters(b, n, r, 20), "lower limit is 20 Hz"),
    ("mel_filters", lambda b, n, r, low: mel_filters(b, n, r, low, axis=False), "evenly in Hz"),
    ("mel_filters", lambda b, n, r, low: mel_filters(b, n, r, low).T, "returns shape"),
    ("mel_filters", lambda b, n, r, low: mel_filters(b, n, r, low).double(), "float64"),
    ("mel_filters", lambda b, n, r, low: mel_filters(b, n, r, low).numpy(), "torch tensor is needed"),
    ("mel_filters", lambda b, n, r, low: mel_filters(b, n, r, low) * 1.1, "element .* of the result"),
    # frames of a convolution
    ("conv_frames", lambda n, k, s, p=0: (n + 2 * p - k) // s, "Off by one"),
    ("conv_frames", lambda n, k, s, p=0: (n + p - k) // s + 1, "both sides"),
    ("conv_frames", lambda n, k, s, p=0: (n - k) // s + 1, "padding is not used"),
    ("conv_frames", lambda n, k, s, p=0: (n + 2 * p - k) / s + 1, "float.*//"),
    ("conv_frames", lambda n, k, s: (n - k) // s + 1, "cannot be called with 4"),
    ("conv_frames", lambda n, k, s, p=0: len(range(0, n + 2 * p - k + 1, s)), "array of lengths"),
    # the adaptation stage
    ("staged_loss", staged(last=-1), "Off by one"),
    ("staged_loss", staged(last=1), "Off by one"),
    ("staged_loss", staged(mean=lambda v, m: v.mean()), "Padding is counted"),
    ("staged_loss", staged(squared=True), "squared"),
    ("staged_loss", staged(always=True), "nobody needs it"),
    ("staged_loss", lambda *a: a[-1](), "used from the start"),
    ("staged_loss", lambda *a: losses.regression_loss(a[3](a[2]), a[4], a[5]), "angle term is added"),
    ("staged_loss", lambda *a: staged_loss(*a).detach(), "No gradient"),
    # text
    ("write_out", blanks_first, "before repeats are merged"),
    ("write_out", off_at_the_start, "Off by one at the start"),
    (
        "write_out",
        lambda ids: " ".join("".join(VOCABULARY[i] for i in ids if i).replace("|", " ").split()),
        "not merged",
    ),
    ("write_out", lambda ids: write_out(ids).replace(" ", "|"), "but .* is right"),
    ("write_out", lambda ids: list(write_out(ids)), "list; a str is asked for"),
    ("frames_needed", lambda text: len(text), "Double letters are forgotten"),
    ("frames_needed", lambda text: 2 * len(text) + 1, "equal"),
    ("frames_needed", lambda text: frames_needed(text) + 1, "one too many"),
    ("frames_needed", lambda text: frames_needed(text) - text.count(" "), "Spaces"),
    ("edits", place_by_place, "place by place"),
    ("edits", dear_substitutions, "substitution costs 2"),
    ("edits", lambda a, b: edits(a, b[:-1]), "last word of the hypothesis"),
    ("edits", lambda a, b: abs(len(a) - len(b)), "difference in length"),
    ("edits", lambda a, b: edits(a, b) if a and b else 0, "empty"),
    ("word_error_rate", lambda r, h: all_errors(r, h) / words(h), "words of the hypothesis"),
    (
        "word_error_rate",
        lambda r, h: np.mean([edits(a.split(), b.split()) / len(a.split()) for a, b in zip(r, h)]),
        "mean of the rates",
    ),
    ("word_error_rate", lambda r, h: 100 * all_errors(r, h) / words(r), "per cent"),
    ("word_error_rate", lambda r, h: all_errors(r, h), "number of errors"),
    ("word_error_rate", lambda r, h: sum(map(edits, r, h)) / sum(map(len, r)), "letters"),
    ("word_error_rate", lambda r, h: min(1.0, all_errors(r, h) / words(r)), "cut off at 1"),
    ("word_error_rate", lambda r, h: all_errors(r, h) // words(r), "but .* is right|cut off"),
]


@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides")
@pytest.mark.parametrize(("name", "attempt", "hint"), WRONG, ids=[f"{n}-{h}" for n, _, h in WRONG])
def test_a_typical_mistake_gets_its_hint(name, attempt, hint, capsys):
    for _ in range(5):  # fresh cases each time: the hint must not depend on luck
        own = check_of(name)(attempt)
        said = capsys.readouterr().out
        assert own is not attempt and re.search(hint, said.split("✗")[1], re.IGNORECASE), said
        assert "goes on with the kit's own" in said and "Right." not in said


@pytest.mark.parametrize("attempt", RIGHT, ids=lambda f: f.__name__)
def test_stubs_and_accidents_are_told_apart_and_the_notebook_goes_on(attempt, capsys):
    check = check_of(attempt.__name__)

    def unfinished(*arguments):
        pass

    def breaks(*arguments):
        values = list(arguments)
        return values.index("nowhere")  # the line that is named

    own = check(unfinished)
    assert "not written yet" in capsys.readouterr().out
    assert check(own) is own and "not yours" in capsys.readouterr().out, "only the check was run again"
    assert check(lambda *arguments: own(*arguments)) is not own, "the kit's own function must pass"
    assert "Right." in capsys.readouterr().out
    check(breaks)
    said = capsys.readouterr().out
    assert "ValueError" in said and 'values.index("nowhere")' in said
    assert f"line {breaks.__code__.co_firstlineno + 2}" in said
    for thing, words in ((None, "not written yet"), (3.5, "not a function")):
        assert check(thing) is not thing
        assert words in capsys.readouterr().out
    check(lambda *arguments: torch.zeros(2, 3, 5, 7))
    assert re_any(capsys.readouterr().out, "shape", "asked for", "is right", "pairs")


def re_any(text, *words):
    return "✗" in text and any(word in text for word in words)


@pytest.mark.parametrize("attempt", RIGHT, ids=lambda f: f.__name__)
def test_every_call_has_cases_of_its_own(attempt, capsys):
    seen = []

    def watched(*arguments):
        seen.append(
            [str(a.sum()) if isinstance(a, torch.Tensor) else repr(a) for a in arguments if not callable(a)]
        )
        return attempt(*arguments)

    rounds = []
    for _ in range(3):
        seen.clear()
        assert check_of(attempt.__name__)(watched) is watched
        rounds.append(str(seen[:6]))
    assert len(set(rounds)) == 3


def spoil(value):
    """Writes into a tensor, an array, a list or the weights of a module; False for anything else."""
    if isinstance(value, torch.Tensor):
        value.data.fill_(1) if value.dtype == torch.bool else value.data.mul_(2)
    elif isinstance(value, np.ndarray):
        value[0] = value[1] if value.dtype.kind == "U" else 2 * value[0] + 1
    elif isinstance(value, list):
        value.append(value[0] if value else 0)
    elif isinstance(value, torch.nn.Module):
        next(value.parameters()).mul_(2)
    else:
        return False
    return True


@pytest.mark.parametrize("attempt", RIGHT, ids=lambda f: f.__name__)
def test_an_answer_that_changes_an_argument_is_wrong_whatever_it_returns(attempt, capsys):
    def spoils(last):
        def answer(*arguments):
            result = attempt(*arguments)
            found = any(spoil(value) for value in (arguments[::-1] if last else arguments))
            changed.append(found)
            return result

        return answer

    for last in (False, True):
        changed = []
        answer = spoils(last)
        kept = check_of(attempt.__name__)(answer) is answer
        said = capsys.readouterr().out
        assert kept == (not any(changed)) and ("changes its argument" in said) == any(changed), said


def test_the_argument_is_named_and_the_callers_own_stays(capsys):
    def answer(cosines, tau):
        cosines /= tau
        return ids_in_play(cosines, 1)

    kept = torch.ones(3, 2)
    with pytest.raises(checking.Wrong, match="changes its argument `cosines`"):
        checking.guard(answer, "ids_in_play")(kept, 0.5)
    assert kept.sum() == 6
    exercises.check_ids_in_play(answer)
    assert "changes its argument `cosines`" in capsys.readouterr().out
    exercises.check_regression_loss(lambda *a: regression(*(x.detach().clone() for x in a[:3]), *a[3:]))
    assert "no gradient flows" in capsys.readouterr().out  # as far as that it was right


def by_table(a, b):
    table = np.zeros((len(a) + 1, len(b) + 1))
    table[:, 0], table[0] = range(len(a) + 1), range(len(b) + 1)
    for i, j in np.ndindex(len(a), len(b)):
        same = table[i, j] + (a[i] != b[j])
        table[i + 1, j + 1] = min(table[i, j + 1] + 1, table[i + 1, j] + 1, same)
    return table[-1, -1]


@pytest.mark.parametrize(
    ("check", "answer"),
    [
        (exercises.check_edits, by_table),
        (exercises.check_frames_of, lambda n: np.floor((n - 400) / 320) + 1),
        (exercises.check_conv_frames, lambda n, k, s, p=0: np.floor((n + 2 * p - k) / s) + 1),
        (exercises.check_frames_needed, lambda text: float(frames_needed(text))),
    ],
    ids=["edits", "frames_of", "conv_frames", "frames_needed"],
)
def test_whole_numbers_may_be_floats(check, answer, capsys):
    assert check(answer) is answer, capsys.readouterr().out


def test_a_float_that_is_no_whole_number_is_told_apart(capsys):
    exercises.check_frames_of(lambda n: n / 320)
    assert "divide with //" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("check", "answer", "words"),
    [
        (exercises.check_staged_loss, lambda s, n, f, h, t, m, usual: usual, "a torch tensor is needed"),
        (
            exercises.check_staged_loss,
            lambda s, n, f, h, t, m, usual: staged_loss(s, n, f, h, t, m, lambda: usual),
            "a torch tensor is needed",
        ),
        (exercises.check_alignment, lambda x, y: alignment(x, y) if len(x) < 0 else x, "one number"),
        (exercises.check_spread_pairs, lambda m, n: [1, 2, 3], "pairs"),
        (exercises.check_word_error_rate, lambda r, h: "12 %", "one rate"),
    ],
)
def test_answers_of_another_type_get_a_word_and_no_traceback(check, answer, words, capsys):
    assert check(answer) is not answer
    assert words in capsys.readouterr().out


def test_an_error_of_the_check_itself_is_a_word_too(capsys):
    def steps(call, rng):
        yield f"it is {call() + 1}"

    own = len
    assert checking.check("answer", lambda: "text", own, steps) is own
    assert "cannot use this answer (TypeError" in capsys.readouterr().out
    checking.check_answer("answer", ["a"], {"a": "b"}.__getitem__)
    assert "cannot use this answer (TypeError" in capsys.readouterr().out


def test_a_loop_without_end_is_stopped(monkeypatch, capsys):
    def endless(samples):
        while samples:
            pass

    monkeypatch.setattr(checking, "PATIENCE", 0.05)
    exercises.check_frames_of(endless)
    assert "longer than 0.05 seconds" in capsys.readouterr().out


def by_matching_blocks(a, b):
    return max(len(a), len(b)) - sum(m.size for m in SequenceMatcher(None, a, b).get_matching_blocks())


def by_two_pointers(a, b):
    i = j = errors = 0
    while i < len(a) and j < len(b):
        if a[i] != b[j]:
            errors += 1
            if i + 1 < len(a) and a[i + 1] == b[j]:
                j -= 1
            elif j + 1 < len(b) and a[i] == b[j + 1]:
                i -= 1
        i, j = i + 1, j + 1
    return errors + len(a) - i + len(b) - j


def in_one_row(a, b):
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        row[0] = i
        for j, y in enumerate(b, 1):
            row[j] = min(row[j] + 1, row[j - 1] + 1, row[j - 1] + (x != y))
    return row[-1]


@pytest.mark.parametrize(
    "answer", [by_matching_blocks, by_two_pointers, in_one_row], ids=lambda f: f.__name__
)
def test_a_plausible_wrong_distance_never_passes(answer, capsys):
    def rate(references, hypotheses):
        pairs = [(r.split(), h.split()) for r, h in zip(references, hypotheses, strict=True)]
        return sum(answer(r, h) for r, h in pairs) / sum(len(r) for r, _ in pairs)

    for _ in range(10):
        assert exercises.check_edits(answer) is not answer
        assert exercises.check_word_error_rate(rate) is not rate


def test_two_boundaries_between_two_words_are_one_space(capsys):
    def answer(ids):
        return (
            "".join(VOCABULARY[i] for i, _ in groupby(ids) if i != VOCABULARY.blank).replace("|", " ").strip()
        )

    exercises.check_write_out(answer)
    assert "✗" in capsys.readouterr().out


def test_words_do_not_match_in_another_utterance(capsys):
    exercises.check_word_error_rate(
        lambda r, h: edits(" ".join(r).split(), " ".join(h).split()) / len(" ".join(r).split())
    )
    assert "another utterance" in capsys.readouterr().out


# --- answers that are read off -----------------------------------------------------------------------------------


def probe(*accuracies, half=0.02):
    layers = tuple(LayerScore(f"H{i}", a, a - half, a + half) for i, a in enumerate(accuracies))
    none = Comparison(0.0, (0.0, 0.0))
    return PhoneProbe(layers, layers[0], layers[0], ("a",), np.zeros((1, 1)), 1, 1, 1, none)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (3, "✓ H3"),
        ("H3", "✓ H3"),
        (np.int64(3), "✓ H3"),
        (2, "cannot tell them apart"),  # within the interval of the best
        (1, "to the right"),
        (4, "to the left"),
        (5, "no layer"),
        ("first", "no layer"),
        (0.7, "number of the layer"),
        (None, "no answer yet"),
    ],
)
def test_the_best_layer_is_that_of_the_run(answer, words, capsys):
    exercises.check_best_layer(answer, probe(0.4, 0.5, 0.69, 0.7, 0.6))
    said = capsys.readouterr().out
    assert words in said and ("✓" in said) == (answer in (2, 3, "H3"))


@pytest.mark.parametrize(("answer", "words"), [(2, "✓ H2, with"), (3, "other voices"), (0, "to the right")])
def test_the_layer_that_dev_chose_is_best_though_another_is_luckier_on_test(answer, words, capsys):
    chosen = replace(probe(0.4, 0.5, 0.69, 0.7, 0.6), on_dev=(0.4, 0.5, 0.7, 0.6, 0.6))
    exercises.check_best_layer(answer, chosen)
    assert words in capsys.readouterr().out


def test_which_term_sees_what(capsys):
    h, mask = torch.randn(2, 5, 4), torch.ones(2, 5, dtype=torch.bool)
    guesses = {"same": h, "double": 2 * h, "other": torch.randn(2, 5, 4), "minus": -h}
    for answer, words in (
        ("double", "right direction"),
        ("same", "no distance"),
        ("minus", "points another way"),
        (["double"], "none of the predictions"),
        ("none", "none of the predictions"),
        (None, "no answer yet"),
    ):
        exercises.check_terms(answer, guesses, h, mask)
        said = capsys.readouterr().out
        assert words in said and ("✓" in said) == (answer == "double")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (10, "✓"),
        (10.4, "✓"),
        (0.1, "per cent"),
        (90, "what is left"),
        (11.1, "smaller model"),
        (16.7, "the paper's deep & thin"),
        (100, "difference in parameters"),
        (50, "another"),
        ("ten", "no number"),
        (None, "no answer yet"),
    ],
)
def test_the_saving_is_read_from_the_table(answer, words, capsys):
    counts = {"tiny-sw-fbank": 900, "tiny-sw-waveform": 1000, "dt-fbank": 833, "dt-waveform": 1000}
    exercises.check_saving(answer, counts, "tiny-sw-fbank")
    said = capsys.readouterr().out
    assert words in said and ("✓" in said) == (words == "✓")


@pytest.mark.parametrize(
    ("interval", "answer", "words"),
    [
        ((-0.3, -0.1), "better", "✓"),
        ((-0.3, -0.1), "Better ", "✓"),
        ((-0.3, -0.1), "worse", "error"),
        ((-0.3, -0.1), "inconclusive", "not inside"),
        ((0.1, 0.2), "worse", "✓"),
        ((-0.3, 0.1), "better", "is 0 inside"),
        ((-0.3, 0.1), "inconclusive", "✓"),
        ((-0.3, 0.1), "perhaps", "none of the words"),
        ((-0.3, 0.1), None, "no answer yet"),
    ],
)
def test_an_interval_has_one_verdict(interval, answer, words, capsys):
    exercises.check_verdict(answer, interval)
    said = capsys.readouterr().out
    assert words in said and ("✓" in said) == (words == "✓")


def test_names_of_the_package():
    with pytest.raises(AttributeError, match="check_nothing"):
        exercises.check_nothing  # noqa: B018
    assert all(callable(getattr(exercises, name)) for name in exercises.__all__)
