# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 2. Distillation: a small student learns the teacher's hidden states
#
# **Claim to test.** A student with about a fifth of the teacher's parameters, trained on nothing but speech and the
# teacher's hidden states, comes to hold phones far better than the same network before distillation.
#
# **You will**
#
# - build the regression loss from its formula, on one real batch, and see what padding would do to it;
# - build the discriminative loss, which follows the teacher's cluster ids, and see what its temperature does;
# - connect student and teacher, layer by layer or through prediction heads;
# - compare two structures, *deep & thin* and *shallow & wide*, at equal size;
# - train one of each live, watch the loss fall, then probe what they know, beside some trained for longer;
# - run two small studies, of losses and of structures, with seeds, intervals and verdicts that can say no;
# - write a loss of your own, and train with it;
# - change one thing, a loss or the student that you designed, and let a small study of your own judge it.
#
# **Device.** Any CPU; a GPU is used where there is one. **Minutes.** About four in profile `quick` on two cores, most
# of it training that you can watch; seconds in `smoke`. **Needs** nothing from other notebooks: the toy world's
# teacher and distilled students ship with the kit, another world's are downloaded, or trained where a cell needs
# them. What is trained here is kept in the run folder.
#
# **Before.** What hidden states and cluster ids are (notebook 01, "From samples to hidden states" and "The codebook"),
# and what a gradient does.
#
# **What to skip.** Dots say how much a section matters: ●●● core, what comes later rests on it; ●● useful, an idea of
# its own; ● extra, a look around or more of the same. Short of time, run every cell, read ●●●, and come back for the
# rest.
#
# **Words.** Terms are explained where they first occur, and all of them in the [glossary](../docs/glossary.md).

# %% [markdown]
# ## Set-up
#
# Installs kdkit where it is missing.

# %% tags=["setup"]
# pair.py puts setup_cell.py here

# %% [markdown]
# Parameters, for you to change; `kdkit report` and papermill overwrite them.

# %% tags=["parameters"]
# str: "smoke" (does it run?), "quick" (a laptop), "colab" (one GPU), "full" (every study, hours), or
profile = "auto"  # "auto": "colab" where there is a GPU, else "quick"
# str: "toy" (nothing to download), "librispeech" (the paper's: HuBERT Base, 10 GB), a .toml or .json file
world = "auto"  # "auto": "librispeech" where there is a GPU, else "toy"; in "smoke" always "toy"
seed = 0  # int: new weights and the order of the speech
out = "runs/notebooks"  # str: run folder, relative to where the notebook runs

# %%
import numpy as np
import torch
import torch.nn.functional as F
from kdkit.common.wording import percent
from kdkit.distill import (
    DistillConfig,
    DistillTask,
    default_pairs,
    layer_wise,
    prediction_heads,
)
from kdkit.fbank import fit_statistics
from kdkit.lessons import exercises, plots, sentences
from kdkit.lessons.experiments import compare, steps_in
from kdkit.lessons.guesses import keep_guess
from kdkit.lessons.lesson import Lesson, millions
from kdkit.lessons.rerun import study_in_cell
from kdkit.lessons.trials import Distillations, Trial, loss_variants
from kdkit.lessons.widgets import LossLab, StudentDesigner, TrainingDashboard
from kdkit.lessons.widgets.designer import in_short
from kdkit.losses import Loss, discriminative_loss, regression_loss
from kdkit.model.codebook import ClusterHead
from kdkit.model.costs import cost_table, propose
from kdkit.model.speech_model import SpeechModel, parameter_count, preset
from kdkit.probing import compare_probes, phone_probe
from kdkit.speech.batches import Batches
from kdkit.speech.manifest import subset
from kdkit.students import new_student
from kdkit.teachers.targets import TargetCache
from kdkit.training.loop import train
from kdkit.training.recipe import TrainConfig

lesson = Lesson(
    "02_distillation", "A small student learns the teacher's hidden states", profile, seed, out, world
)

# %% [markdown]
# ## One real batch ●●●
#
# Distillation needs speech, but no transcript and no label. A batch holds utterances of like length, padded
# with zeros to the longest, and remembers how long each of them really is.

# %%
size = lesson.size
dt_waveform, sw_waveform, dt_fbank, sw_fbank = lesson.world.presets  # deep & thin, shallow & wide
speech, dev = lesson.corpus("unlabelled", "dev")
train_speech, test_speech = lesson.speech()
batches = Batches(speech, size.seconds_per_batch, seed)
batch = batches.batch(0).to(lesson.device)
print(
    f"{len(batch)} utterances, {batch.seconds:.1f} s of speech, "
    f"padded to {batch.waves.shape[1] / 16_000:.2f} s each"
)

# %% [markdown]
# `batch.waves` is what networks see, `batch.lengths` is what is true. Everything below has to respect the
# difference.

# %% [markdown]
# The teacher's answer to it: hidden states $H^0 \dots H^{12}$ for every frame. They are the targets. The
# teacher stays in evaluation mode and gets no gradient; at the end of the notebook we check that not one of
# its weights has changed.

# %%
teacher = lesson.teacher()
weights_before = {name: tensor.clone() for name, tensor in teacher.model.state_dict().items()}
target = teacher.hidden(batch.waves, batch.lengths)
print(len(target.hidden), "hidden states of", tuple(target.last.shape))
print(f"{percent(target.mask.float().mean().item())} of the frames are real, the others are padding")

# %% [markdown]
# `target.mask` is true on real frames. What the teacher computes on the others is an accident of this batch,
# and no student should learn it.

# %% [markdown]
# ## The regression loss ●●●
#
# A prediction $p$ of a hidden state $h$ should be near it, and point the same way:
#
# $$ L_\mathrm{reg} = \operatorname{mean} |p - h| \; + \; w_\mathrm{cos} \cdot
#    \operatorname{mean}\bigl( -\log \sigma(\cos(p, h)) \bigr) $$
#
# The first mean runs over all dimensions of all real frames, the second over all real frames; $\sigma$ is the
# logistic function.

# %% [markdown]
# ### Exercise 1: the regression loss
#
# *Difficulty 2 of 3, about ten minutes.* In code it is as long as the formula. Mind the padding.
#
# **Exercises** check themselves. Write into the cell and run it, then run the check beneath: it tries your
# answer on random cases, new ones each time, and says what it found. Hints and a solution are folded away. What
# you leave out the kit fills in, so the notebook runs to its end in any case.


# %% tags=["exercise"]
def regression(p, h, mask, cosine_weight=1.0):
    """Regression loss of predictions p (B, T, D) of hidden states h (B, T, D): one number.

    ``mask`` (B, T) is True on real frames.
    """
    # hint: `p[mask]` is (real frames, D): the padding is gone.
    # hint: `F.cosine_similarity(p, h, dim=-1)` gives one cosine for each frame.
    # hint: `F.logsigmoid` is the logarithm of the logistic function, exact for large arguments, too.
    # stub: return None  # your lines go here
    # solution
    p, h = p[mask], h[mask]  # (real frames, D)
    distance = (p - h).abs().mean()
    angle = -F.logsigmoid(F.cosine_similarity(p, h, dim=-1)).mean()
    return distance + cosine_weight * angle
    # end


# %%
regression = exercises.check_regression_loss(regression)

# %% [markdown]
# The package has the same function. The two must agree on this batch, here with one hidden state as the
# prediction of another.

# %%
middle = teacher.config.layers // 2
h, p = target.hidden[middle], target.hidden[middle - 1]
torch.testing.assert_close(regression(p, h, target.mask), regression_loss(p, h, target.mask))

# %% [markdown]
# Such a check costs one line and catches the usual mistakes: a sum for a mean, a forgotten weight, an inverted mask.

# %% [markdown]
# Why two terms? Here are five predictions of $H^6$. Before you go on, guess for which of them each term is low or
# high.

# %%
guesses = {
    "the target itself": h,
    "twice the target": 2 * h,
    "the mean over all frames": h[target.mask].mean(0).expand_as(h),
    "the layer below": p,
    "minus the target": -h,
}

# %% [markdown]
# ### Exercise 2: what does each term see?
#
# *Difficulty 1 of 3, about three minutes.* Which of the five costs distance, but has an angle term as low as that
# of the target itself? Answer before you look at the table below.

# %% tags=["exercise"]
# hint: The cosine of two vectors does not change when one of them gets longer.
# stub: my_guess = None  # one of the five names, as a text
# solution
my_guess = "twice the target"
# end

# %%
exercises.check_terms(my_guess, guesses, h, target.mask)

# %%
rows = []
for name, guess in guesses.items():
    distance = regression(guess, h, target.mask, cosine_weight=0).item()
    both = regression(guess, h, target.mask).item()
    rows.append({"prediction": name, "distance": f"{distance:.3f}", "angle": f"{both - distance:.3f}"})
lesson.table("terms", rows, f"The two terms of the loss for five predictions of H{middle}.")

# %% [markdown]
# The angle term has a floor above zero, $\log(1 + e^{-1})$, because $\sigma(1) < 1$.
#
# The mean over all frames, which knows nothing about this utterance, often comes surprisingly close. A
# falling loss is therefore not yet a student that has understood anything: how much of the way from the mean
# to the target it goes is what counts.

# %% [markdown]
# ## Padding must not count ●●
#
# Add a second of zeros to every utterance. Nothing that was said has changed, so the loss must not change
# either. With means over *real* frames it does not, up to float error. With means over all frames, the most
# frequent mistake in such code, it does.

# %%
longer = teacher.hidden(F.pad(batch.waves, (0, 16_000)), batch.lengths)
h_longer, p_longer = longer.hidden[middle], longer.hidden[middle - 1]
losses = {
    "real frames, batch as it is": regression(p, h, target.mask).item(),
    "real frames, a second of padding": regression(p_longer, h_longer, longer.mask).item(),
    "all frames, a second of padding": regression(
        p_longer, h_longer, torch.ones_like(longer.mask)
    ).item(),
}
first, second, _ = losses.values()
assert abs(first - second) < 1e-3
rows = [{"mean over": name, "loss": f"{loss:.4f}"} for name, loss in losses.items()]
lesson.table("padding", rows, "What padding does to the loss.")

# %% [markdown]
# The teacher itself did not care about the padding, because its attention is masked and its group norm counts
# real frames only; notebook 03 shows what happens otherwise.

# %% [markdown]
# ## The discriminative loss ●●●
#
# HuBERT was trained to predict cluster ids. Its codebook says, for every frame, how likely each of $K$ cluster ids is
# (notebook 01). With $e_k$ the label embeddings, $\tau$ a temperature and $H^L$ the teacher's last layer,
#
# $$ q_k = \operatorname{softmax}_k \bigl( \cos(\mathrm{final\_proj}(H^L_t),\, e_k) / \tau \bigr),
#    \qquad L_\mathrm{disc} = \operatorname{mean}_t \sum_k q_k \log \frac{q_k}{p_k} $$
#
# where $p_k$ is the student's own distribution over the same ids (not to be confused with the prediction $p$ above).
# This is the Kullback-Leibler divergence of $p$ from $q$, summed over ids and averaged over real frames.

# %% [markdown]
# Three ways to give the student a $p$, all from the paper:
#
# - `codebook`: the student projects its last layer, and is scored by the *teacher's* embeddings;
# - `linear`: a linear layer of its own, one output per id;
# - `hard`: like `codebook`, but only the teacher's best id counts: as a label, with the cross-entropy as the loss.

# %% [markdown]
# ### Exercise 3: the discriminative loss
#
# *Difficulty 3 of 3, about ten minutes.* Both sides come as logits $z$, divided by their temperatures already.
# Write the divergence of $p$ from $q$, without `F.kl_div`: its order of arguments and its `reduction="mean"`
# have misled many.


# %% tags=["exercise"]
def discriminative(student, teacher, mask):
    """Discriminative loss of logits (B, T, K), divided by their temperatures: one number, in nats.

    ``mask`` (B, T) is True on real frames.
    """
    # hint: `x.log_softmax(-1)` is $\log p$; its `.exp()` is $p$. Never take the log of a softmax: small ones underflow.
    # hint: The weights are $q$, the teacher's. The sum runs over ids, the mean over real frames.
    # stub: return None  # your lines go here
    # solution
    log_p, log_q = student[mask].log_softmax(-1), teacher[mask].log_softmax(-1)
    return (log_q.exp() * (log_q - log_p)).sum(-1).mean()
    # end


# %%
discriminative = exercises.check_discriminative_loss(discriminative)

# %% [markdown]
# On the batch, with a head that has learnt nothing yet, against the package:

# %%
with torch.no_grad():
    wanted = teacher.codebook.cosines(target.last)  # (B, T, K)
    head = ClusterHead("codebook", teacher.config.dim, teacher.codebook).to(lesson.device)
    guess = head(target.hidden[middle])  # cosines of a new head on a middle layer, in place of a student
tau = teacher.codebook.tau
mine = discriminative(guess / tau, wanted / tau, target.mask)
torch.testing.assert_close(mine, discriminative_loss(guess, wanted, target.mask, tau))
print(f"an untrained head is {mine:.2f} nats away from the teacher")

# %% [markdown]
# The assertion compares the package with the formula. What does it cost to know nothing? A student that finds all ids
# equally likely in every frame pays $\log K$ minus the teacher's mean entropy.

# %% [markdown]
# What does the temperature do? A low one makes the teacher sure of itself, and then `codebook` is nearly
# `hard`. A high one makes all ids alike, and then there is nothing to learn.

# %% [markdown]
# ### Exercise 4: how many ids are in play?
#
# *Difficulty 2 of 3, about eight minutes.* Between how many ids does a frame hesitate? A frame's *entropy*,
# $-\sum_k q_k \log q_k$, is 0 for a certain one and $\log K$ for an even guess; $e$ to the mean entropy counts ids.


# %% tags=["exercise"]
def ids_in_play(cosines, tau):
    """e to the mean entropy of softmax(cosines / tau), 1 .. K, for cosines (N, K) of N frames."""
    # hint: `(cosines / tau).log_softmax(-1)` is $\log q$, finite even where $q$ is nearly 0.
    # hint: First each frame's entropy, then the mean over frames, then `.exp()`.
    # stub: return None  # your lines go here
    # solution
    log_q = (cosines / tau).log_softmax(-1)
    entropy = -(log_q.exp() * log_q).sum(-1)  # (N,)
    return entropy.mean().exp().item()
    # end


# %%
ids_in_play = exercises.check_ids_in_play(ids_in_play)

# %% [markdown]
# The teacher's cosines, before any temperature, are in `wanted`. Before you run the cell: which $\tau$ would you take?

# %%
rows, clusters = [], wanted.shape[-1]
cosines = wanted[target.mask]  # (real frames, K)
for tau in (0.02, 0.05, 0.1, 0.2, 0.5, 1.0):
    count, top = ids_in_play(cosines, tau), (cosines / tau).softmax(-1).amax(-1).mean().item()
    row = {"tau": tau, "entropy, nats": f"{np.log(count):.2f}", "ids in play": f"{count:.1f}"}
    rows.append(row | {"best id's share": percent(top)})
lesson.table(
    "temperature", rows, f"The teacher's distribution over {clusters} ids as its temperature rises."
)

# %% [markdown]
# HuBERT itself was trained with 0.1. The student's temperature $\tau_s$ may be another one. With $\tau_s = 1$ a
# distribution made of cosines can never be sharp; the logits of `linear`, which have no bound, suit that better.

# %% [markdown]
# Turn the knobs. The lab below holds this batch, the teacher, a distilled student and new heads for it. Click into the
# spectrogram to choose a frame; change $\tau$ and see the teacher's bars spread; let the heads take steps and see the
# student's bars follow. Under each id stands the phone that most of its frames belong to: are the ids between which the
# teacher hesitates alike?
#
# The whole loss is $L = L_\mathrm{reg} + \lambda L_\mathrm{disc}$. Which part of it has the larger gradient, and are
# the two about as large at $\lambda = 1$?

# %%
lab = LossLab(teacher, lesson.student(lesson.world.ready)[0], batch, seed, speech=train_speech[:60])
lesson.widget("loss lab", lab, "Losses, cluster distributions of a frame, and gradients, on one batch.")

# %% [markdown]
# Which $\lambda$ to take? The study below tries; the authors tried 0.2 to 1.

# %% [markdown]
# ## Heads: which student layer predicts which teacher layer? ●●●
#
# Student and teacher have different widths, so a *linear head* per pair maps the student's state $S$ to the
# teacher's width. Heads are thrown away after distillation.
#
# - *Deep & thin* (D&T) is as deep as the teacher. Head $l$ maps $S^l$ to $H^l$, for every layer:
#   **layer-wise**.
# - *Shallow & wide* (S&W) has two layers. Three **prediction heads** on its last layer predict $H^4$, $H^8$
#   and $H^{12}$, as in DistilHuBERT: the last layer must hold what three depths of the teacher hold.

# %%
print("deep & thin:   ", layer_wise(preset(dt_fbank), teacher.config))
print("shallow & wide:", prediction_heads(preset(sw_fbank)))

# %% [markdown]
# Pairs are (student layer, teacher layer). Any other mapping is one argument away:
# `DistillConfig(pairs=((6, 6), (12, 12)))`.

# %% [markdown]
# ### Exercise 5: a student of half the depth
#
# *Difficulty 1 of 3, about five minutes.* A student of 6 layers could follow the teacher at every second layer:
# its layer 1 learns $H^2$, its layer 6 learns $H^{12}$. Write the pairs for a student of $M$ layers and a teacher
# of $L$, where $M$ divides $L$. Layers count from 1; number 0 is what goes *into* layer 1.


# %% tags=["exercise"]
def spread_pairs(student_layers, teacher_layers):
    """Pairs (student layer, teacher layer), evenly spread; the last layers of both are a pair."""
    # hint: One student layer stands for `teacher_layers // student_layers` teacher layers.
    # hint: `range(1, n + 1)` counts from 1 to n.
    # stub: return None  # your lines go here
    # solution
    stride = teacher_layers // student_layers
    return [(layer, layer * stride) for layer in range(1, student_layers + 1)]
    # end


# %%
spread_pairs = exercises.check_spread_pairs(spread_pairs)
print("four layers:   ", DistillConfig(spread_pairs(4, teacher.config.layers)).pairs)

# %% [markdown]
# The loss of a batch is the mean over the pairs. Written out for a new student, with the package's module for
# the same:

# %%
student = new_student(dt_waveform, teacher.model, seed).to(lesson.device)
pairs = layer_wise(student.config, teacher.config)
task = DistillTask(student, teacher, DistillConfig(pairs)).to(lesson.device).eval()
states = student(batch.waves, batch.lengths).hidden
losses = [
    regression(head(states[s]), target.hidden[t], target.mask)
    for head, (s, t) in zip(task.heads, pairs, strict=True)
]
torch.testing.assert_close(torch.stack(losses).mean(), task(batch)[0])

# %% [markdown]
# `DistillTask` holds student, teacher and heads; its `forward(batch)` returns the loss. That is all that the
# training loop wants to know about distillation.

# %% [markdown]
# ## Structures: where the parameters go ●●
#
# The study (arXiv 2210.15631) compares structures at about the same number of parameters, a quarter of the
# teacher's or less. Each comes with two front-ends: the waveform CNN, and Fbank, which is the subject of notebook 03.
# The toy world's presets roughly keep the proportions. The table counts the paper's, and this world's where it has
# others; heads are not included.

# %%
rows, sizes = [], {}
for first, names in lesson.world.families.items():  # a teacher, and its students
    for name in (first, *names):
        config = preset(name)
        with torch.device("meta"):  # shapes without memory
            sizes[name] = parameter_count(SpeechModel(config))
        row = {"preset": name, "layers": config.layers, "width": config.dim, "FFN": config.ffn}
        row |= {"front-end": config.front_end, "parameters": f"{sizes[name] / 1e6:.2f} M"}
        rows.append(row | {"share of teacher": percent(sizes[name] / sizes[first])})
        lesson.metric(f"parameters/{name}", sizes[name], unit="parameters")
caption = "Teachers and students: the paper's size" + (
    ", and this world's." if lesson.world.students else "."
)
lesson.table("structures", rows, caption)

# %% [markdown]
# Twelve thin layers or two wide ones for the same number of parameters: depth keeps the teacher's order of
# processing, width keeps its vectors. Compare also what the waveform CNN takes of each budget.

# %% [markdown]
# Design one of your own. The stars below are your structure, the line is the budget of the deep & thin student. Can
# you stay under it with less latency than both presets? What costs MACs (multiply-accumulate operations, the unit of a
# network's work) but hardly any parameters? The latency is an estimate until you measure.

# %%
big, rounds = lesson.world.teacher_preset, min(3, size.speed_rounds)
designer = StudentDesigner(sizes[dt_waveform], dt_fbank, big, rounds)
lesson.widget(
    "student designer", designer, "Parameters, MACs and latency of a structure beside the presets."
)

# %% [markdown]
# The structure on show is `designer.config`; "One step by hand", below, begins with it. What you *take*, by the button,
# is `designer.taken`: "Your own experiment", at the end, trains it.

# %% [markdown]
# ## Where a student starts ●●
#
# A student may begin with every part of the teacher that has its shape. Expect much for S&W, which has the
# teacher's width, and little for D&T: a waveform student can take the CNN, an Fbank student has no CNN to
# take.

# %%
rows = []
for name in (dt_waveform, dt_fbank, sw_waveform, sw_fbank):
    parts = new_student(name, teacher.model).from_teacher
    rows.append({"student": name, "takes from the teacher": ", ".join(parts) or "nothing"})
lesson.table("start", rows, "What new students take from the teacher.")

# %% [markdown]
# Heads and everything that is not listed start from random numbers, drawn with the seed of this notebook.

# %% [markdown]
# The input of an Fbank student is normalised, every mel bin to mean 0 and deviation 1. The presets take the mean and
# deviation of the utterance itself, as the group norm of a waveform CNN does: that needs nothing in advance, but the
# whole utterance. Where the end of it is not there yet (live captions), those of a corpus can serve
# (`normalisation="corpus"`): `fit_statistics` takes them from some speech, and they are stored in the checkpoint.


# %%
def start(structure):  # name of a preset, or a ModelConfig
    student = new_student(structure, teacher.model, seed)
    fit_statistics(student, speech[:200])
    return student


# %% [markdown]
# ## One step by hand ●
#
# All of training is this, many times: loss, gradient, a small step against it. Repeated on one batch, the
# loss must fall at once; if it does not, something is broken, and it is better to know now.

# %%
student = start(designer.config)
pairs = default_pairs(student.config, teacher.config)  # layer by layer where both are equally deep
task = DistillTask(student, teacher, DistillConfig(pairs)).to(lesson.device)
optimiser = torch.optim.AdamW((p for p in task.parameters() if p.requires_grad), lr=1e-3)
for step in range(3):
    loss, _ = task(batch)
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    print(f"step {step}: loss {loss.item():.4f}")

# %% [markdown]
# Three numbers that fall are no proof of learning, only of a working gradient. This student is thrown away;
# the ones below start afresh.

# %% [markdown]
# ## Training, live ●●●
#
# `kdkit.training.loop.train`, which the dashboard below calls, is the same loop with what a longer run needs:
# warm-up and decay of the learning rate, clipping, checkpoints. It calls a function of ours now and then,
# which measures the loss on `dev`: other voices than those it learns from.

# %%
quarter = max(1, size.distill_steps // 4)
recipe = TrainConfig(
    steps=size.distill_steps,
    lr=lesson.world.lr,
    seed=seed,
    log_every=max(1, quarter // 8),
    evaluate_every=quarter,
)
dev_batches = list(Batches(dev, size.seconds_per_batch).epoch())


@torch.no_grad()
def unseen_voices(task):
    losses = [task(batch.to(lesson.device))[0].item() for batch in dev_batches]
    return {"dev loss": sum(losses) / len(losses)}


# %% [markdown]
# Evaluation goes through the same loss, without gradient, and leaves the data order of the training
# untouched: a run that is stopped and resumed sees the same batches.

# %% [markdown]
# Now the two structures, both with the Fbank front-end, which costs least: D&T, which starts from nothing,
# and S&W, which starts with two layers of the teacher behind a front-end of random
# numbers. Expect both losses to fall steeply first and slowly then.
#
# The heads of S&W learn the layers that notebook 01 chose, if it ran in this run folder, else DistilHuBERT's.
#
# The dashboard shows the curves as they come. *Stop* saves and ends the cell; run it again, and it goes on where it
# was, in a restarted kernel, too. What is finished is loaded then. (`await`: the cell waits for the training, but
# hears the button meanwhile.)

# %%
labels = {"loss": "loss, training voices", "dev loss": "loss, unseen voices"}
board = TrainingDashboard(("loss", "dev loss"), labels)
board.show()

# %%
chosen = lesson.layers()
live, logs = {}, {}
for name in (dt_fbank, sw_fbank):
    student = start(name)
    deep = student.config.layers == teacher.config.layers
    mapping = (
        layer_wise(student.config, teacher.config) if deep else prediction_heads(student.config, chosen)
    )
    task = DistillTask(student, teacher, DistillConfig(mapping))
    folder = lesson.out / "training" / "02_distillation" / name
    logs[name] = await board.train(name, task, batches, recipe, folder, unseen_voices)
    live[name] = student
    lesson.keep_student(name, student, {"structure": name, "steps": recipe.steps, "seed": seed})

# %%
figure = plots.training_curves(logs, ("loss", "dev loss"), labels, "Distillation, live")
lesson.figure("losses", figure, "Regression loss of two students, trained in this run.")

# %% [markdown]
# Left and right should agree. If the left fell and the right did not, the student would be memorising its training
# voices. Plenty of unlabelled speech is the remedy.

# %% [markdown]
# The two losses are means over different teacher layers (all of them; three), so the curves say how
# each student improves, not which is better. That is for the probe. First: did the loss on unseen voices
# fall?

# %%
for name, log in logs.items():
    curve = [row["dev loss"] for row in log if "dev loss" in row]
    speed = [row["times_real_time"] for row in log if "times_real_time" in row][-1]
    lesson.metric(f"dev loss/{name}", curve[-1])
    lesson.metric(f"training speed/{name}", speed, unit="x real time", timing=True)
    text = f"On unseen voices from {curve[0]:.3f} to {curve[-1]:.3f} between the first and the last "
    text += f"measurement, at {speed:.0f} times real time."
    lesson.verdict(f"The loss of {name} falls", "seen" if curve[-1] < curve[0] else "not seen", text)

# %% [markdown]
# Speed is part of the lesson: seconds of speech per second of computing, teacher included. The teacher's
# forward pass is paid by both, the Fbank student's own part is small.

# %% [markdown]
# ## What do students know? ●●●
#
# The judge is the linear phone probe of notebook 01, on voices that neither student nor probe has heard. Each
# structure is probed in up to three states:
#
# - **new**, as it started;
# - **live**, after the minutes above;
# - **shipped**, in the toy world: made with the kit, not in this run. Its waveform twin was distilled from the teacher,
#   from speech through random equalisers and noise (`AugmentConfig`) while the teacher heard it clean; then the twin's
#   front-end was replaced by Fbank, and the whole learnt from the twin (notebook 03 shows how). The table's steps are
#   those of this second part.
#
# In world `librispeech` there is a **published** student instead: DistilHuBERT, shallow & wide with a waveform CNN. It
# was not trained in this run either.
#
# Expect new < live on the last layer, the one that a recogniser will stand on. The teacher need not be the ceiling
# there: its own last layer may have turned to its task (notebook 01). A deep & thin student that copies it well ends
# close to it, while the one last layer of a shallow & wide student has to tell three depths, phones of the middle
# among them.

# %%
students, steps = {"teacher": teacher.model}, {}
for name in live:
    students |= {f"{name} new": start(name).to(lesson.device), f"{name} live": live[name]}
    steps |= {f"{name} new": 0, f"{name} live": recipe.steps}
    if lesson.ships:
        students[f"{name} shipped"], meta = lesson.student(name)
        steps[f"{name} shipped"] = meta["steps"]
for name in lesson.world.finished:
    students[f"{name} published"], meta = lesson.student(name)
    steps[f"{name} published"] = meta["steps"]

# %% [markdown]
# Every line of the printout says where a model is from. What was trained elsewhere is never shown as trained
# here.

# %%
train_set = subset(train_speech, size.probe_train_minutes)
test_set = subset(test_speech, size.probe_test_minutes)
counts = {"frames": size.probe_frames // 2, "test_frames": size.probe_frames // 4, "seed": seed}
probes = {name: phone_probe(model, train_set, test_set, **counts) for name, model in students.items()}

# %%
rows = []
for name, probe in probes.items():
    last, best = probe.layers[-1], probe.layers[probe.best]
    score = last.accuracy, (last.low, last.high)
    lesson.metric(
        f"probe/{name}", *score, "share", note=f"distillation steps: {steps.get(name, 'none')}"
    )
    row = {"model": name, "steps": steps.get(name, ""), "parameters": millions(students[name])}
    row |= {"last layer": percent(*score)}
    rows.append(row | {"best layer": f"{best.name}: {percent(best.accuracy)}"})
rows.append({"model": "Fbank + deltas", "best layer": percent(probe.fbank.accuracy)})
lesson.table("probes", rows, "Frames of unseen voices whose phone a linear probe reads, 95 % intervals.")

# %% [markdown]
# Read the last layer first. A *new* S&W student can already read phones in layers that it copied from the
# teacher: that is inheritance, not learning, and the reason for probing "new" at all.

# %% [markdown]
# Layer by layer for the deep & thin student: layer-wise distillation should pull its whole curve towards the
# teacher's.

# %%
deep = {name: probe for name, probe in probes.items() if name == "teacher" or name.startswith(dt_fbank)}
figure = plots.layer_curve(deep, title="Teacher and deep & thin student, layer by layer")
lesson.figure(
    "deep and thin",
    figure,
    f"Linear phone probe on unseen voices: {', '.join(deep)}.",
)

# %% [markdown]
# Where does the student follow the teacher's curve, and where does it fall behind? Change `seed`, and the details move;
# what survives several seeds is worth believing.

# %% [markdown]
# ## Verdict ●●●
#
# Distilled against new, on the same frames, paired over utterances.

# %%
top = percent(probes["teacher"].layers[-1].accuracy)
for name, probe in probes.items():
    structure, _, age = name.partition(" ")
    if age in ("live", "shipped"):
        new = probes[f"{structure} new"]
        text = f"{percent(probe.layers[-1].accuracy)} of the frames; the teacher's last layer: {top}."
        lesson.compare(f"{name} against new", compare_probes(probe, new), text)

# %% [markdown]
# ## A study of losses ●●
#
# Does the discriminative loss help? One run cannot say: another seed gives another student. A *study* trains every
# variant with several seeds, at equal steps and on the same batches, and asks the same probe. All share
# the teacher's targets; where there is room, these are computed once and kept on disk, with their size announced first.

# %%
study_speech = subset(speech, size.study_minutes)
cache = TargetCache(teacher, range(1, teacher.config.layers + 1), study_speech)
print(
    cache.announcement
    if size.at_hand
    else "too much speech to keep targets of: computed as they are needed"
)
targets = cache.build() if size.at_hand else None
study_recipe = TrainConfig(
    steps=size.study_steps, lr=lesson.world.lr, log_every=max(1, size.study_steps // 20)
)

# %% [markdown]
# Each trial is a structure and its losses. `quick` compares the three kinds of loss; `full` adds the student
# variants, the paper's values of $\lambda$, and other temperatures.

# %%
shallow = preset(sw_fbank)
heads = prediction_heads(shallow)
losses = loss_variants(whole=size.overnight)
for name, settings in losses.items():
    print(f"{name:15}", settings or "as it is by default")
trials = [Trial(name, shallow, DistillConfig(heads, **settings)) for name, settings in losses.items()]


# %% [markdown]
# The judge is the linear phone probe on the last layer, on unseen voices, with the same frames for everybody. Stop the
# study when you like (■ in the toolbar): what is finished is kept, and the cell goes on when it runs again.


# %%
def judge(student):
    counts = {"frames": size.probe_frames // 2, "test_frames": size.probe_frames // 2, "seed": seed}
    return phone_probe(student, train_set, test_set, last_only=True, **counts)


def in_order_of(study_seed):
    return Batches(study_speech, size.seconds_per_batch, study_seed, cache=size.at_hand, targets=targets)


def prepare(student):
    fit_statistics(student, speech[:200])


folder = lesson.out / "training" / "02_distillation" / "losses"
common = (teacher, judge, in_order_of, study_recipe, prepare)
study = Distillations(trials, *common)
findings = study_in_cell([study], size.study_seeds, folder, lesson.jobs)

# %%
caption = f"Frames of unseen voices read off the last layer: {study_recipe.steps} steps, seeds "
caption += f"{', '.join(map(str, size.study_seeds))}."
lesson.study("study of losses", findings, caption)

# %% [markdown]
# Verdicts, paired over utterances and seeds. "Better" asks that the interval leaves 0 out *and* that every
# seed agrees: one lucky seed is not a finding.

# %%
for name in ("discriminative", "both"):
    found = compare(findings, name, "regression")
    lesson.compare(f"{name} against regression only", found, f"After {study_recipe.steps} steps.")

# %% [markdown]
# A minute of training is a look, not a study. For the toy world a study with more seeds and variants, and trained for
# several lengths, was made with the kit (`data_scripts/make_study.py`). It is **shipped**, nothing of it was trained in
# this run; the differences are against regression only. Profile `full`, which has just made one of its own, leaves it
# out.
#
# Your guess: does a verdict of a short training outlive a longer one?

# %%
if not size.overnight:
    caption = "Shipped study of losses: linear phone probe on the student's last layer."
    lesson.study("study of losses, shipped", lesson.shipped("study_losses"), caption, "shipped")

# %% [markdown]
# Note what was measured: a *phone probe*. Cluster ids tell much of the phone (PNMI in notebook 01), so a loss about ids
# has a short way to this judge. Whether a recogniser that has few labels agrees is the question of notebook 04.

# %% [markdown]
# ## A study of structures ●
#
# Deep & thin, shallow & wide, and two in between, at equal budget, with the waveform front-end: `propose` makes
# the widest network of each depth that a number of parameters allows. Parameters are equal; the work
# (multiply-accumulates, MACs) and the waiting need not be.

# %%
budget = parameter_count(SpeechModel(preset(dt_waveform))) + 10_000
structures = propose(budget, like=preset(dt_waveform), layers=(2, 4, 8, 12))
costs = cost_table(structures, seconds=5, rounds=size.speed_rounds)
full = propose(sizes["dt-waveform"] + 100_000, like=preset("dt-waveform"), layers=(2, 4, 8, 12))
elsewhere = bool(lesson.world.students)  # is the paper's size another one?
full_costs = cost_table(full, rounds=0) if elsewhere else []

# %%
rows = []
for cost in costs + full_costs:
    row = {
        "structure": cost.name,
        "FFN": cost.config.ffn,
        "parameters": f"{cost.parameters / 1e6:.2f} M",
    }
    row |= {"GMAC for 1 s": f"{cost.macs / 1e9:.3f}"}
    row["ms for 5 s, median (quartiles)"] = ""
    if cost.latency:
        low, median, high = (1e3 * value for value in cost.latency)
        row["ms for 5 s, median (quartiles)"] = f"{median:.0f} ({low:.0f} to {high:.0f})"
        speeds = (5 / cost.latency[1], (5 / cost.latency[2], 5 / cost.latency[0]))
        lesson.metric(
            f"structure speed/{cost.name}", *speeds, "x real time", timing=True, note="quartiles"
        )
    rows.append(row)
caption = "Structures of equal budget: this world's, timed here"
caption += ", and the paper's, counted." if full_costs else "."
lesson.table("cost of structures", rows, caption)

# %% [markdown]
# More layers of the same total size do more work one after the other: watch the milliseconds more than the
# MACs.
#
# Now distil all four: layer by layer where student and teacher are equally deep, through prediction heads otherwise.
#
# Equal parameters are not yet an equal task. Layer by layer, the last layer of the deepest copies the teacher's last,
# from which fewer phones can be read than from the middle (notebook 01); the heads of the others ask one layer for 4, 8
# and 12 at once. So the deepest is distilled a second time, with the heads of the others: only its targets change.

# %%
trials = [Trial(n, c, DistillConfig(default_pairs(c, teacher.config))) for n, c in structures.items()]
shallowest, deepest = trials[0].name, trials[-1].name
with_heads, same_heads = f"{deepest}, prediction heads", prediction_heads(structures[deepest])
if trials[-1].losses.pairs != same_heads:
    trials.append(Trial(with_heads, structures[deepest], DistillConfig(same_heads)))
folder = lesson.out / "training" / "02_distillation" / "structures"
study = Distillations(trials, *common)
structure_findings = study_in_cell([study], size.structure_seeds, folder, lesson.jobs)

# %%
caption = f"Equal parameters, {study_recipe.steps} steps, waveform front-end."
lesson.study("study of structures", structure_findings, caption)

# %%
for trial in trials[len(structures) - 1 :]:
    found = compare(structure_findings, trial.name, shallowest)
    name = f"Deepest ({trial.name}) against shallowest ({shallowest})"
    lesson.compare(name, found, f"After {study_recipe.steps} steps.")

# %% [markdown]
# Few seeds of a short training say little. For the toy world, here is the same study with more seeds and for longer,
# **shipped**, not trained in this run; the differences are against the shallowest. (Profile `full`, which has just made
# one, leaves it out.)

# %%
if not size.overnight:
    caption = "Shipped study of structures at equal parameters, waveform front-end."
    shipped = lesson.shipped("study_structures")
    lesson.study("study of structures, shipped", shipped, caption, "shipped")
    if shipped:
        longest = steps_in(shipped, shallowest, deepest, with_heads)[-1]
        own, same = (
            compare(shipped, trial, shallowest, steps=longest) for trial in (deepest, with_heads)
        )
        lesson.text("depth or targets", f"After {longest:,} steps: {sentences.same_targets(own, same)}")

# %% [markdown]
# A short training favours networks that learn fast, which is not the same as networks that end well. Do the curves come
# nearer to 0 with more steps, and would they cross it?

# %% [markdown]
# ## A loss of your own ●●
#
# What if the *movement* of the states matters, from frame to frame, and not only where they are? Then the loss is
#
# $$ L_\mathrm{own} = \operatorname{mean} \bigl| (p_{t+1} - p_t) - (h_{t+1} - h_t) \bigr| $$
#
# over all dimensions and all pairs of neighbouring frames of which both are real. Such an idea takes a few lines: a
# function of what the student gives, what the teacher gives, and the mask.

# %% [markdown]
# ### Exercise 6: the difference of neighbouring frames
#
# *Difficulty 2 of 3, about eight minutes.* Which entry of the mask belongs to the pair of frames $t$ and $t+1$?


# %% tags=["exercise"]
def neighbours(p, h, mask):
    """Mean absolute difference of the steps p[t + 1] - p[t] and h[t + 1] - h[t], for p, h (B, T, D).

    ``mask`` (B, T) is True on real frames; a step counts where both of its frames are real.
    """
    # hint: `p.diff(dim=1)` is (B, T - 1, D): the steps from each frame to the next.
    # hint: Padding comes last, so a step is real where the frame it leads to is: `mask[:, 1:]`.
    # hint: `(x * mask).sum() / mask.sum()` is `x[mask].mean()`, in operations that a CUDA graph can repeat.
    # stub: return None  # your lines go here
    # solution
    apart = (p.diff(dim=1) - h.diff(dim=1)).abs().mean(-1)  # (B, T - 1)
    both = mask[:, 1:]
    return (apart * both).sum() / both.sum()
    # end


# %%
neighbours = exercises.check_neighbours(neighbours)

# %% [markdown]
# `DistillTask` adds any number of such losses to its own: a name for the log, a weight, the function, and the teacher
# layers that it reads. This student is as wide as its teacher. For another width the function would be an `nn.Module`
# with a linear layer in it, which is trained and saved with the run.

# %%
last = teacher.config.layers


def own(output, states, mask):
    return neighbours(output.last, states[last], mask)


student = start(sw_fbank)
losses = DistillConfig(prediction_heads(student.config, chosen))
task = DistillTask(student, teacher, losses, extra=[Loss("neighbours", 1.0, own, layers=(last,))])
folder = lesson.out / "training" / "02_distillation" / "own loss"
log = train(
    task, batches, TrainConfig(steps=6, lr=lesson.world.lr, seed=seed, log_every=1), folder, resume=False
)
rows = [{name: f"{row[name]:.3f}" for name in ("loss", "regression", "neighbours")} for row in log]
lesson.table("own loss", rows, "Six steps with a loss of one's own: the sum, and its two parts.")

# %% [markdown]
# The sum is what falls; six steps prove nothing about the idea. A study can judge it: "Your own experiment", below.

# %% [markdown]
# And the teacher: not a weight has moved.

# %%
assert all(torch.equal(weights_before[n], t) for n, t in teacher.model.state_dict().items())
print("the teacher is bit for bit what it was")

# %% [markdown]
# ## On the command line ●
#
# The same for long runs. A run that is killed goes on where it was and ends with the same weights; several processes
# give the weights of one with a batch of the same size.
#
# ```
# kdkit distill sw-fbank --teacher hubert_base_ls960 --data train.jsonl \
#     --discriminative 0.4 --cache --steps 5000 --out runs/student
# accelerate launch --num_processes 4 -m kdkit distill dt-fbank \
#     --teacher hubert.safetensors --data train.jsonl --accumulate 2 \
#     --precision bf16 --tensorboard --out runs/base
# kdkit bench distill --size full
# ```
#
# From a notebook, `accelerate.notebook_launcher` starts a function that builds the task and calls `train`, in a
# fresh kernel: one process on a CPU (a test), one for each GPU where there are some (not tried yet).

# %% [markdown]
# ## Your own experiment ●●
#
# **Change one thing**, **predict**, **run**, **read**: a study by your own question. Both trials, yours and a standard
# one, have the same steps, batches, judge and seeds; what differs is what you change. Some ideas:
#
# | what | in the cell below |
# |---|---|
# | the loss of exercise 6, or another | change `own`, or the weight in `Loss("own", 1.0, ...)` |
# | the student that you designed | press *take this student* in the designer, or `my_change = "my student"` |
# | how the regression loss measures | `settings = {"distance": "l2"}` or `{"cosine_weight": 0.0}` |
# | the cluster ids as well | `settings = {"discriminative_weight": 0.4}` |
#
# Without a student that was taken, `"my student"` has six layers, as wide as the budget of the deep & thin student
# allows. Give each change a name of its own, `my_change`: results are kept by it. A study that you stop goes on when
# its cell runs again.

# %%
my_change = "my student" if designer.taken else "my loss"  # or a name for another change
settings = {}  # of DistillConfig, for such a change

like = preset(dt_fbank if my_change == "my student" else sw_fbank)
shape, extra = like, ()
if my_change == "my student":
    shape = designer.taken or next(iter(propose(sizes[dt_fbank], like, layers=(6,)).values()))
elif my_change == "my loss":
    extra = (Loss("own", 1.0, own, layers=(last,)),)
standard = Trial("standard", like, DistillConfig(default_pairs(like, teacher.config)))
mine = Trial(
    my_change, shape, DistillConfig(default_pairs(shape, teacher.config), **settings), extra=extra
)
print(f"standard: {in_short(like)}")
print(f"{my_change}: {in_short(shape)}", settings or "", *(f"+ loss {loss.name!r}" for loss in extra))

# %% [markdown]
# Predict: will more frames be read off the last layer of yours than off the standard one's? With so few steps and
# seeds, "inconclusive" is a guess, too.

# %%
my_guess = None  # "better", "worse" or "inconclusive"

# %%
own_recipe = TrainConfig(
    steps=size.own_steps, lr=lesson.world.lr, log_every=max(1, size.own_steps // 20)
)
own_study = Distillations([standard, mine], teacher, judge, in_order_of, own_recipe, prepare)
folder = lesson.out / "training" / "02_distillation" / "own experiment"
counted = keep_guess(my_guess, [own_study], size.study_seeds, folder)

# %%
own_findings = study_in_cell([own_study], size.study_seeds, folder, lesson.jobs)
caption = (
    f"Your own experiment: {own_recipe.steps} steps, seeds {', '.join(map(str, size.study_seeds))}."
)
lesson.study("own experiment", own_findings, caption)

# %%
found = compare(own_findings, mine.name, standard.name)
lesson.compare(
    f"Own experiment: {mine.name} against standard", found, sentences.beside_guess(counted, found)
)

# %% [markdown]
# What would you need to be surer: more seeds, more steps, more speech to judge on? `size.own_steps` and
# `size.study_seeds` are yours to replace by other numbers; a new guess comes first.

# %% [markdown]
# ## Quiz
#
# Five questions, about five minutes. No answer depends on the numbers of this run.

# %%
exercises.quiz("02_distillation")

# %% [markdown]
# ## What you have seen
#
# - A loss of a few lines, made of a distance and an angle, over real frames only; and one that follows the teacher's
#   cluster ids.
# - Two ways to connect a student: a head for every layer, or a few heads on the last.
# - A student that learns from hidden states alone; the verdicts say how far a minute of training carries, and
#   how far a longer distillation.
#
# **Limits.** The probe asks for phones; a student may lose what it does not ask for. The live and shipped students are
# of one seed and one teacher: their intervals speak for more test speech, not for other seeds. In the studies the judge
# is the probe, not a recogniser, and what is true after few steps need not last.
#
# **Readings.** The study this kit follows (arXiv 2210.15631); DistilHuBERT (arXiv 2110.01900); FitHuBERT,
# deep and thin (arXiv 2207.00555).
#
# **Before:** [1. Teacher probing](01_teacher_probing.ipynb). **Next:** [3. The Fbank
# front-end](03_fbank_front_end.ipynb): the student loses its CNN.

# %%
lesson.finish()
