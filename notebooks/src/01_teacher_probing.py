# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 1. Teacher probing: what does each layer know?
#
# **Claim to test.** HuBERT is trained on sound alone: nobody ever tells it what a phone is. Yet its hidden
# states hold phones, of voices it never heard, in a form that one matrix multiplication can read; and they do
# so better in some layers than in others.
#
# **You will**
#
# - listen to an utterance and follow it from samples to hidden states, one vector every 20 ms;
# - write a *linear probe* and put it on every layer, with plain Fbank features as the line to beat;
# - measure how well the teacher's *cluster ids* agree with phones (PNMI), and compare layers with layers
#   (CKA);
# - decide which layers a student should learn from.
#
# **Device.** Any CPU; a GPU is used where there is one. **Minutes.** About two in profile `quick` on two
# cores, seconds in `smoke`. **Needs** nothing from other notebooks: the tiny teacher ships with the kit, the
# speech is made on first use.

# %% [markdown]
# ## Set-up
#
# The next cell does something only where kdkit is not installed: it installs the folder that this notebook
# lies in.

# %%
import importlib.util
import subprocess
import sys
from pathlib import Path

if importlib.util.find_spec("kdkit") is None:
    kit = next(f for f in [Path.cwd(), *Path.cwd().parents] if (f / "pyproject.toml").exists())
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", str(kit)], check=True)

# %% [markdown]
# Parameters. `kdkit report` and papermill overwrite them; by hand, change them and run everything again.

# %% tags=["parameters"]
profile = "quick"  # str: "smoke" (does it run?), "quick" (a laptop) or "full" (everything, a night)
seed = 0  # int: draws the frames that are probed
out = "runs/notebooks"  # str: run folder, relative to where the notebook runs

# %%
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F

from kdkit import plots, probing
from kdkit.activations import ModelLayers, collect
from kdkit.audio import read_audio
from kdkit.corpora.synthetic import subset
from kdkit.fbank import Fbank
from kdkit.frontends import num_frames
from kdkit.lessons import Lesson, millions, outcome, percent
from kdkit.manifest import frame_phones

lesson = Lesson("01_teacher_probing", "What does each layer of the teacher know?", profile, seed, out)

# %% [markdown]
# ## The teacher
#
# HuBERT (arXiv 2106.07447) has two parts. A *waveform CNN* turns 16,000 samples a second into 50 frames a
# second. A *Transformer* then lets every frame look at all others. We write
#
# - $x$ for the waveform and $t = 1 \dots T$ for the frames;
# - $H^0$ for the input of layer 1, and $H^l$ for the output of layer $l$, after its residual connection.
#
# It was trained by *masked prediction*: spans of frames are hidden, and at the hidden places the network must
# name the *cluster id* of what was there. Clusters come from k-means, first of MFCCs, then of the network's
# own layers.

# %% [markdown]
# The teacher of the lessons has HuBERT's structure at a size that a laptop can handle. It was pre-trained by
# the kit's own recipe (`data_scripts/make_teacher.py`) on synthetic speech, without any transcript: first its
# CNN learns to be a filterbank, a short cut at this size, then come two iterations of masked prediction.

# %%
teacher = lesson.teacher()
config = teacher.config
structure = {
    "layers": config.layers,
    "width": config.dim,
    "FFN": config.ffn,
    "heads": config.heads,
    "clusters": len(teacher.codebook.label_embeddings),
    "parameters": millions(teacher.model),
}
lesson.table("teacher", [structure], "The tiny teacher.")

# %% [markdown]
# HuBERT Base has the same twelve layers at 768 wide, and lessons 2 and 3 count it beside the tiny one.
# Whatever you learn to measure here works on it unchanged.

# %% [markdown]
# ## One utterance of an unseen voice
#
# The synthetic corpus is spoken by eSpeak NG: many voices, and the exact start time of every phone, which no
# human corpus has. The voices of `test-clean` are never heard in training, not by the teacher and not by a
# probe.

# %%
train_speech, test_speech = lesson.corpus("train", "test-clean")
assert not {u.speaker for u in train_speech} & {u.speaker for u in test_speech}
utterance = min(test_speech, key=lambda u: abs(u.duration - 3))
wave = read_audio(utterance.audio)  # (samples,) at 16 kHz
lesson.audio("utterance", wave, f"An unseen voice says: “{utterance.text}”")

# %% [markdown]
# Play it. eSpeak is a formant synthesiser: it sounds like a machine, and it is exact like one. The assertion
# says that no voice of the test set occurs in the training set.

# %% [markdown]
# Its *Fbank* (80 log-mel energies every 10 ms) is what speech recognition used for decades, and our baseline.
# Look for the dark gaps of stops, the high-frequency noise of *s*, the moving bands (formants) of vowels.

# %%
fbank = Fbank()(wave[None])[0]  # (frames at 100 Hz, 80)
lesson.figure(
    "waveform", plots.waveform(wave, utterance.phones), "Waveform of an unseen voice, exact phones."
)
lesson.figure("fbank", plots.spectrogram(fbank, utterance.phones), "Fbank of the same utterance.")

# %% [markdown]
# The vertical lines are the borders that the synthesiser itself reports. Because they are exact, a probe can
# be judged frame by frame; on human speech one would have to estimate them first.

# %% [markdown]
# ## From samples to hidden states
#
# Frame $t$ (counted from 0) of the CNN sees samples $320t$ to $320t + 400$: 25 ms of sound, a new frame every
# 20 ms. An utterance of $n$ samples therefore has $T = \lfloor (n - 400) / 320 \rfloor + 1$ frames, in every
# layer.

# %%
waves, lengths = wave[None].to(lesson.device), torch.tensor([len(wave)], device=lesson.device)
features = teacher.model.front_end.cnn(waves, lengths)  # (1, T, channels)
output = teacher.hidden(waves, lengths)  # H^0 .. H^L, each (1, T, width)
print("waveform    ", tuple(waves.shape))
print("CNN features", tuple(features.shape))
print("H^0 .. H^L  ", len(output.hidden), "times", tuple(output.last.shape))
assert features.shape[1] == output.last.shape[1] == (len(wave) - 400) // 320 + 1 == num_frames(len(wave))

# %% [markdown]
# Three shapes, one $T$. The assertion holds for every utterance, and it is why phones, CNN features, hidden
# states and cluster ids can be laid over one another by frame number alone.

# %% [markdown]
# The figure shows the utterance on its way, frames from left to right, dimensions from bottom to top. Expect
# stripes: neighbouring frames of one phone are alike, and the picture changes where the phone does. No
# dimension has a name; what a layer knows lies in directions, and that is what the probe will look for.

# %%
shown = [0, config.layers // 3, 2 * config.layers // 3, config.layers]
states = {"CNN features": features[0].cpu()}
states |= {f"H{layer}": output.hidden[layer][0].cpu() for layer in shown}
figure = plots.hidden_states(states, utterance.phones)
lesson.figure("layers", figure, "The same utterance in the CNN and in four hidden states, with its phones.")

# %% [markdown]
# Which panel holds steady longest within a phone? Which one changes *before* a border? The CNN cannot look
# ahead, attention can: a frame of a deep layer knows what comes next.

# %% [markdown]
# ## The codebook: one id every 20 ms
#
# HuBERT carries its own classifier: a projection `final_proj` and one embedding $e_k$ per cluster. The logits
# of cluster $k$ at frame $t$ are cosines, sharpened by a temperature $\tau$:
#
# $$ z_k = \frac{\cos(\mathrm{final\_proj}(H^L_t),\, e_k)}{\tau}, \qquad q = \mathrm{softmax}(z) $$
#
# Cosine of normalised vectors is a dot product, so one matrix multiplication does all clusters at once. The
# assertion checks the lines below against the package.


# %%
def cluster_logits(hidden, codebook):
    projected = F.normalize(codebook.final_proj(hidden), dim=-1)  # (T, 64 or 256)
    embeddings = F.normalize(codebook.label_embeddings, dim=-1)  # (K, same)
    return projected @ embeddings.T / codebook.tau  # (T, K)


logits = cluster_logits(output.last[0], teacher.codebook)
torch.testing.assert_close(logits, teacher.codebook(output.last[0]), rtol=1e-3, atol=1e-3)
ids = logits.argmax(-1).tolist()

# %% [markdown]
# Read the ids under the first phones. Expect ids that repeat within a phone and change with it; a long phone
# may have one id for its beginning and one for its end. That is a phonetic alphabet that nobody wrote.

# %%
labels = frame_phones(utterance, len(ids))
turns = [0] + [t for t in range(1, len(ids)) if labels[t] != labels[t - 1]] + [len(ids)]
rows = [
    {"phone": labels[a] or "(silence)", "frames": b - a, "cluster ids": " ".join(map(str, ids[a:b]))}
    for a, b in pairwise(turns[:13])
]
lesson.table("ids", rows, "Cluster ids of the first phones of the utterance.")

# %% [markdown]
# Say the row of ids aloud, as it were: how many different ids does one phone use, and does the same phone,
# when it comes again, use the same ones? PNMI, below, answers this for thousands of frames.

# %% [markdown]
# ## A linear probe, written out
#
# What does "layer $l$ knows phones" mean? That a *linear* classifier, trained on its frames, names the phones
# of frames it never saw:
#
# $$ p(\text{phone} \mid h) = \mathrm{softmax}(W h + b) $$
#
# The classifier is kept weak on purpose. A deep network could work phones out of almost anything, the
# waveform included; a linear one finds only what lies ready.

# %% [markdown]
# First the frames: a sample of every layer's activations, with the phone under each frame's centre. Speakers
# take turns, silence is left out (every feature finds it, and it would lift all curves alike). The same
# frames are taken for Fbank with its first and second differences ("deltas"), for the CNN features, and for
# every $H^l$.

# %%
size = lesson.size
extract = ModelLayers(teacher)
train = collect(extract, subset(train_speech, size.probe_train_minutes), frames=size.probe_frames, seed=seed)
test = collect(
    extract, subset(test_speech, size.probe_test_minutes), frames=size.probe_frames // 2, seed=seed
)
print(f"{len(train)} frames to train on, {len(test)} of other voices to be judged on")
print("features:", ", ".join(train.names))

# %% [markdown]
# From here on, `train` and `test` hold the same frames seen through every feature: whatever differs between
# two curves comes from the feature, not from the sample.

# %% [markdown]
# Dimensions of a layer differ in scale, so they are standardised, with mean and deviation of the *training*
# frames: the probe must not peek at the test voices, not even for that.

# %%
middle = train.names.index(f"H{config.layers // 2}")
x, test_x = torch.from_numpy(train.features[middle]), torch.from_numpy(test.features[middle])
mean, std = x.mean(0), x.std(0).clamp_min(1e-6)
x, test_x = (x - mean) / std, (test_x - mean) / std

# %% [markdown]
# Then the regression: the mean cross-entropy over the $N$ training frames, and a penalty on the weights,
#
# $$ \min_{W, b} \; -\frac{1}{N} \sum_{n} \log p(\text{phone}_n \mid h_n) + \frac{\lambda}{2} \lVert W \rVert^2 $$
#
# The problem is convex, so there is one best answer and no seed; L-BFGS finds it. The penalty matters more
# than it seems: frames of one voice are alike, and a probe without it learns the voices instead of the
# phones.


# %%
def fit_probe(x, y, classes, penalty=2e-3):
    weight = torch.zeros(x.shape[1], classes, requires_grad=True)
    bias = torch.zeros(classes, requires_grad=True)
    optimiser = torch.optim.LBFGS([weight, bias], max_iter=300, line_search_fn="strong_wolfe")

    def loss():
        optimiser.zero_grad()
        value = F.cross_entropy(x @ weight + bias, y) + penalty / 2 * weight.square().sum()
        value.backward()
        return value

    optimiser.step(loss)
    return weight.detach(), bias.detach()


# %% [markdown]
# Try it on the middle layer, and check it against the package's probe. The accuracy should be far above that
# of always guessing the most frequent phone.

# %%
phones, train_y = np.unique(train.phones, return_inverse=True)
number = {phone: i for i, phone in enumerate(phones)}
test_y = np.array([number.get(phone, -1) for phone in test.phones])  # -1: not in training, always an error
weight, bias = fit_probe(x, torch.from_numpy(train_y), len(phones))
ours = ((test_x @ weight + bias).argmax(1).numpy() == test_y).mean()

# %%
theirs, _ = probing.linear_probe(train.features[middle], train_y, test.features[middle], test_y, len(phones))
assert abs(ours - theirs) < 0.01, (ours, theirs)
guess = (test_y == np.bincount(train_y).argmax()).mean()
print(f"{train.names[middle]}: {percent(ours)} of the frames, the package says {percent(theirs)}")
print(f"always the most frequent phone: {percent(guess)} of {len(phones)} phones")

# %% [markdown]
# Both solve the same convex problem, by different roads, and arrive at the same place. That makes a probe a
# *measurement*: run it twice and you get the same number.

# %% [markdown]
# ## The probe on every layer
#
# Now all of them. What to expect:
#
# - the CNN features *below* Fbank + deltas: the CNN sees 25 ms and knows nothing of its neighbourhood;
# - a rise over the first layers, as attention brings context in;
# - the best layer somewhere inside, neither first nor last: the last layers turn to the training task.

# %%
probe = probing.probe_layers(train, test, seed)
for score in (probe.fbank, probe.front_end, *probe.layers):
    lesson.metric(f"probe/{score.name}", score.accuracy, (score.low, score.high), unit="share")
lesson.metric("probe/gain over Fbank", probe.gain, probe.gain_interval, unit="share")
print(probe)

# %%
figure = plots.layer_curve(probe)
lesson.figure(
    "probe", figure, "Linear phone probe on each layer, frames of unseen voices; bars are 95 % intervals."
)

# %% [markdown]
# The star is the best layer, the dashed line Fbank + deltas, the dotted one the CNN's output. A band is the
# 95 % interval of one curve over utterances. Two layers whose bands overlap may still differ, because both
# were judged on the same utterances; only a paired comparison can tell, and the verdict on the gain is one.

# %% [markdown]
# Verdict: is the best layer better than Fbank + deltas on unseen voices? The interval of the gain comes from
# drawing whole test utterances again and again (bootstrap), both features on the same ones.

# %%
low, high = probe.gain_interval
best = probe.layers[probe.best]
text = f"{best.name} reads {percent(best.accuracy)} of the frames, Fbank + deltas {percent(probe.fbank.accuracy)}: "
text += f"{100 * probe.gain:+.1f} points (95 % interval {100 * low:+.1f} to {100 * high:+.1f})."
lesson.verdict("Best layer against Fbank + deltas", outcome((low, high), (0, 0)), text)

# %% [markdown]
# And the shape: a curve worth looking at has its best layer inside, and layers that differ.

# %%
accuracies = [layer.accuracy for layer in probe.layers]
worst = probe.layers[int(np.argmin(accuracies))]
inside = 0 < probe.best < config.layers
spread = max(accuracies) - min(accuracies)
lesson.metric("probe/best layer", probe.best)
lesson.metric("probe/spread over layers", spread, unit="share")
text = f"{best.name} is best, {worst.name} worst, {100 * spread:.1f} points apart; the best is "
text += "neither the first nor the last." if inside else "at an end of the network."
lesson.verdict("The best layer is inside", "seen" if inside else "not seen", text)

# %% [markdown]
# Which phones are confused? Rows are true phones, columns what the best layer's probe said. Expect the
# mistakes that people make on the telephone: voiced for voiceless stops, one nasal for another, neighbouring
# vowels.

# %%
figure = plots.confusion(probe.confusion, probe.phones)
lesson.figure("confusion", figure, f"Phones said for each true phone, probe on {best.name}, unseen voices.")

# %% [markdown]
# A dark diagonal cell is a phone that is often missed; look along its row for what it is taken for. Rare
# phones miss most: the probe has seen few of them.

# %% [markdown]
# ## Cluster ids against phones: PNMI
#
# A probe needs phone labels to train; cluster ids need none. How much of the phone does the id tell?
# *Phone-normalised mutual information* is the share of the phone's entropy that knowing the id removes:
#
# $$ \mathrm{PNMI} = \frac{I(\text{phone};\, \text{id})}{H(\text{phone})}
#    = \frac{\sum_{p,k} P(p, k) \log \frac{P(p, k)}{P(p) P(k)}}{-\sum_p P(p) \log P(p)} $$
#
# It is 0 when the id says nothing and 1 when it says all. It grows with the number of clusters, and a small
# sample makes it look larger than it is: compare at equal numbers of clusters and frames only.


# %%
def phone_information(ids, phones):
    (_, k), (_, p) = np.unique(ids, return_inverse=True), np.unique(phones, return_inverse=True)
    joint = np.zeros((p.max() + 1, k.max() + 1))
    np.add.at(joint, (p, k), 1 / len(p))  # P(phone, id)
    of_phone, of_id = joint.sum(1, keepdims=True), joint.sum(0, keepdims=True)
    seen = joint > 0
    information = (joint[seen] * np.log((joint / (of_phone * of_id))[seen])).sum()
    return information / -(of_phone * np.log(of_phone)).sum()


# %%
with torch.no_grad():
    last = torch.from_numpy(test.features[-1]).to(lesson.device)
    test_ids = cluster_logits(last, teacher.codebook).argmax(-1).cpu().numpy()
codebook_pnmi = phone_information(test_ids, test.phones)
assert abs(codebook_pnmi - probing.pnmi(test_ids, test.phones)) < 1e-9
lesson.metric("pnmi/codebook", codebook_pnmi, unit="share")
print(f"codebook ids: PNMI {codebook_pnmi:.3f}, {len(set(test_ids.tolist()))} ids in use")

# %% [markdown]
# These ids come from frames that were *not* hidden. In pre-training the network had to name them from the
# neighbourhood alone.

# %% [markdown]
# The same for every layer, with k-means ids of its own frames, the way HuBERT's targets are made: fitted on
# training voices, judged on unseen ones. Expect a curve like that of the probe. Beside it runs the share of
# the *speaker's* entropy that the id removes: features that hear the voice instead of the phone have it high.

# %%
clusters = 100  # fewer than HuBERT's codebooks have: this sample would not fill more
cluster_scores = probing.layer_pnmi(train, test, clusters, seed)
for score in cluster_scores:
    lesson.metric(f"pnmi/{score.name}", score.pnmi, unit="share")
figure = plots.cluster_curve(cluster_scores)
lesson.figure(
    "pnmi", figure, f"What {clusters} k-means ids of each layer tell of the phone and of the speaker."
)

# %% [markdown]
# Where the speakers' curve falls while the phones' rises, the network has learnt to ignore who speaks.
# Fbank's clusters (dashed) are the starting point.

# %%
best_clusters = max(cluster_scores[2:], key=lambda score: score.pnmi)
fbank_clusters = cluster_scores[0]
higher = "better" if best_clusters.pnmi > fbank_clusters.pnmi else "not better"
text = f"k-means of {best_clusters.name}: PNMI {best_clusters.pnmi:.3f}; of Fbank + deltas: {fbank_clusters.pnmi:.3f}; "
text += f"the teacher's own codebook: {codebook_pnmi:.3f}."
lesson.verdict("Clusters of the best layer against clusters of Fbank", higher, text)

# %% [markdown]
# ## Layers against layers: CKA
#
# Two layers may hold the same thing in different coordinates. *Linear centred kernel alignment* (arXiv
# 1905.00414) compares them up to rotation, shift and scale. With $X$ and $Y$ the centred activations of the
# same frames:
#
# $$ \mathrm{CKA}(X, Y) = \frac{\lVert Y^\top X \rVert_F^2}{\lVert X^\top X \rVert_F \, \lVert Y^\top Y \rVert_F} $$


# %%
def alignment(x, y):
    x, y = x - x.mean(0), y - y.mean(0)
    cross = np.linalg.norm(y.T @ x) ** 2
    return cross / (np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y))


first, last = test.features[2].astype(np.float64), test.features[-1].astype(np.float64)
assert abs(alignment(first, first) - 1) < 1e-6  # the same thing
assert abs(alignment(first, last) - probing.linear_cka(first, last)) < 1e-6

# %% [markdown]
# The map of all pairs. Expect a bright diagonal that fades with distance: each layer changes its input a
# little. A bright block is a group of layers that hold much the same, and one of them may stand for all in
# distillation.

# %%
cka = probing.cka_map(test, test)
figure = plots.cka_map(cka, test.names)
lesson.figure("cka", figure, "Linear CKA between all layers, on frames of unseen voices.")
lesson.metric("cka/H0 to last", float(cka[2, -1]))

# %% [markdown]
# Find the two darkest rows: what is unlike everything else? And the largest bright block: if you could keep
# only one of its layers, which would it be?

# %% [markdown]
# ## How much does a layer change its input?
#
# $1 - \cos(H^{l-1}_t, H^l_t)$, averaged over frames, is 0 for a layer that only passes on, and near 1 for one
# that leaves nothing as it was. Layers that change much are costly to leave out.

# %%
change = probing.layer_change(test.features[2:])
figure = plots.layer_change(change)
lesson.figure("change", figure, "How far each layer turns its input: one minus the mean cosine.")

# %% [markdown]
# Compare with the probe's curve. A layer can turn its input far without adding anything that a phone probe
# sees, because it may work on something else: voice, position, or the pre-training task.

# %% [markdown]
# ## Which layers would you distil?
#
# The next lesson has two kinds of students. *Deep & thin* has as many layers as the teacher, and each of its
# layers learns from the teacher's layer of the same number. *Shallow & wide* has two layers and three
# prediction heads, and somebody must choose three teacher layers for them; DistilHuBERT (arXiv 2110.01900)
# took 4, 8 and 12.
#
# Everything measured so far, side by side. Which three would you take? A good choice holds phones, and its
# members hold *different* things.

# %%
rows = [
    {
        "layer": score.name,
        "phone probe": percent(score.accuracy),
        "PNMI": f"{cluster_scores[2 + layer].pnmi:.3f}",
        "change of its input": f"{change[layer - 1]:.3f}" if layer else "",
        f"CKA with {best.name}": f"{cka[2 + layer, 2 + probe.best]:.3f}",
    }
    for layer, score in enumerate(probe.layers)
]
lesson.table("layers", rows, "The layers of the teacher, measured on unseen voices.")

# %% [markdown]
# No column alone decides. The next cell compares DistilHuBERT's choice with the best layer of this teacher.

# %%
chosen = [layer for layer in (4, 8, 12) if layer <= config.layers]
pairs = [(a, b) for a in chosen for b in chosen if a < b]
closest = max(pairs, key=lambda pair: cka[2 + pair[0], 2 + pair[1]])
text = f"DistilHuBERT's layers {chosen} read "
text += ", ".join(percent(probe.layers[layer].accuracy) for layer in chosen)
text += f" of the frames here, {best.name} reads {percent(best.accuracy)}; the two most alike are H{closest[0]} and "
text += f"H{closest[1]}, with CKA {cka[2 + closest[0], 2 + closest[1]]:.2f}."
lesson.text("layers to distil", text)

# %% [markdown]
# ## What you have seen
#
# - A teacher that never saw a label, and a linear probe that reads phones of unseen voices from it; the
#   verdict cells say how much better than from Fbank, and in which layer.
# - Cluster ids that follow phones, and layers that resemble their neighbours.
#
# **Limits.** A probe says what *can* be read linearly, not what the model uses. Synthetic voices are cleaner
# and more regular than people; absolute figures do not carry over to human speech, the way of measuring does.
# Intervals speak for more utterances of this kind, not for another teacher.
#
# **Readings.** HuBERT (arXiv 2106.07447); layer-wise analysis of self-supervised speech models (Pasad et al.,
# arXiv 2107.04734); CKA (arXiv 1905.00414); DistilHuBERT (arXiv 2110.01900).
#
# **Next:** [2. Distillation](02_distillation.ipynb): a student learns these hidden states.

# %%
lesson.finish()
