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
# A *phone* is a speech sound: *cat* has three, [k], [æ] and [t]. They are written in the International Phonetic
# Alphabet (IPA), one symbol a sound; English has about forty.
#
# **Claim to test.** HuBERT is trained on sound alone: nobody ever tells it what a phone is. Yet its hidden
# states hold phones, of voices it never heard, in a form that one matrix multiplication can read; and they do
# so better in some layers than in others.
#
# **You will**
#
# - listen to an utterance and follow it from samples to hidden states, one vector every 20 ms;
# - see where the heads look, and hear what a *cluster id* of the teacher stands for;
# - write a *linear probe* and put it on every layer, with plain Fbank features as the line to beat;
# - measure how well cluster ids agree with phones (PNMI), and compare layers with layers (CKA);
# - decide which layers a student should learn from, and hand that decision on to notebook 02.
#
# **Device.** Any CPU; a GPU is used where there is one. **Minutes.** About two in profile `quick` on two
# cores, seconds in `smoke`. **Needs** nothing from other notebooks: the toy world's teacher ships with the kit and its
# speech is made on first use; another world's are downloaded, or yours.
#
# **Before.** A little PyTorch (tensors, `nn.Module`) and the idea of a loss; nothing about speech.
#
# **What to skip.** Dots say how much a section matters: ●●● core, what comes later rests on it; ●● useful, an idea of
# its own; ● extra, a look around or more of the same. Short of time, run every cell, read ●●●, and come back for the
# rest.
#
# **Words.** Terms are explained where they first occur, and all of them in the [glossary](../docs/glossary.md).
#
# **Another world.** `world = "librispeech"` is about HuBERT Base and human speech in all four notebooks, and a small
# file (`kdkit.lessons.world_files`) names a teacher and manifests of your own, once for all of them.
#
# **Another teacher, here only.** Change `teacher_name` below, and every cell asks it instead: `"HUBERT_BASE"` or
# another bundle of torchaudio, `"hubert_base_ls960"` (fairseq's file, the one with a codebook), a file, a
# folder or a name on the Hugging Face hub. The speech is then LibriSpeech (dev-clean to train the probes,
# test-clean to judge them, 700 MB), which has no phone times: they are estimated (torchaudio's bundle, 1.2 GB, aligns
# the letters, and eSpeak NG says which phones they are), and the notebook says so. `speech = "synthetic"` keeps the
# exact times; two manifests, `speech = "train.jsonl,test.jsonl"`, are speech of your own. Large teachers want a GPU.

# %% [markdown]
# ## Set-up
#
# The next cell does something only where kdkit is not installed: it installs the folder or the wheel that it finds
# beside this notebook or above it, and leaves an installed torch as it is.

# %% tags=["setup"]
# pair.py puts setup_cell.py here

# %% [markdown]
# Parameters. `kdkit report` and papermill overwrite them; by hand, change them and run everything again.

# %% tags=["parameters"]
# str: "smoke" (does it run?), "quick" (a laptop), "colab" (one GPU), "full" (every study, hours), or
profile = "auto"  # "auto": "colab" where there is a GPU, else "quick"
# str: "toy" (nothing to download), "librispeech" (the paper's: HuBERT Base, 10 GB), a .toml or .json file
world = "auto"  # "auto": "librispeech" where there is a GPU, else "toy"; in "smoke" always "toy"
seed = 0  # int: draws the frames that are probed
out = "runs/notebooks"  # str: run folder, relative to where the notebook runs
teacher_name = ""  # str: what kdkit.load_teacher takes, such as "HUBERT_BASE"; "": the world's teacher
speech = ""  # str: "synthetic", "librispeech" or "train.jsonl,test.jsonl"; "": by the teacher, see above

# %%
from itertools import combinations, pairwise

import numpy as np
import torch
import torch.nn.functional as F
from kdkit import probing
from kdkit.common.statistics import ratio_interval
from kdkit.common.wording import percent
from kdkit.fbank import Fbank
from kdkit.lessons import exercises, plots, sentences
from kdkit.lessons.lesson import Lesson, millions
from kdkit.lessons.plots import probe as figures
from kdkit.lessons.widgets import LayerExplorer, VoiceLayers
from kdkit.probing import listening
from kdkit.probing.activations import ModelLayers, collect
from kdkit.speech.audio import read_audio
from kdkit.speech.frames import num_frames
from kdkit.speech.manifest import frame_phones, subset
from kdkit.teachers import Teacher

lesson = Lesson(
    "01_teacher_probing", "What does each layer of the teacher know?", profile, seed, out, world
)

# %% [markdown]
# ## One utterance of an unseen voice ●●
#
# The voices of the test set are never heard in training, not by the teacher and not by a probe. A probe wants to know
# when each phone begins. In the toy world eSpeak NG speaks, with many voices, and reports these times exactly.
# Recordings of people seldom have them: where they are missing, the times are estimated, and the cell says so.

# %%
teacher_name = teacher_name or lesson.world.teacher
ours = lesson.ships and teacher_name == lesson.world.teacher
train_part, test_part = lesson.speech(speech, teacher_name)
assert not {u.speaker for u in train_part} & {u.speaker for u in test_part}
utterance = min(test_part, key=lambda u: abs(u.duration - 3))
wave = read_audio(utterance.audio)  # (samples,) at 16 kHz
lesson.audio("utterance", wave, f"An unseen voice says: “{utterance.text}”")

# %% [markdown]
# Play it. The toy world's eSpeak is a *formant* synthesiser: it adds up the resonances of a mouth, so it sounds like a
# machine and is as exact as one. The assertion says that no voice of the test set occurs in the training set.

# %% [markdown]
# Its *Fbank* is what speech recognition used for decades, and our baseline: every 10 ms, the logarithm of the energy
# in 80 bands of frequency, spaced as the ear tells them apart (*log-mel energies*; notebook 03 builds them). Look for
# the dark gaps of *stops* (sounds like [p], [t], [k], for which the mouth closes), the high-frequency noise of *s*,
# and the moving bands of vowels: their *formants*, the resonances of throat and mouth.

# %%
fbank = Fbank()(wave[None])[0]  # (frames at 100 Hz, 80)
caption = f"Waveform of an unseen voice, {lesson.phone_times} phones."
lesson.figure("waveform", plots.waveform(wave, utterance.phones), caption)
lesson.figure("fbank", plots.spectrogram(fbank, utterance.phones), "Fbank of the same utterance.")

# %% [markdown]
# The vertical lines are the borders of phones. A synthesiser's are exact, so a probe can be judged frame by frame.
# Those of human speech are estimates: near a border a probe may be right where it is counted wrong.

# %% [markdown]
# ## The teacher ●●●
#
# HuBERT (arXiv 2106.07447) has two parts. A *waveform CNN* turns 16,000 samples a second into 50 frames a
# second. A *Transformer* then lets every frame look at all others. We write
#
# - $x$ for the waveform and $t = 1 \dots T$ for the frames;
# - $H^0$ for the input of layer 1, and $H^l$ for the output of layer $l$, after its residual connection.
#
# It was trained by *masked prediction*: spans of frames are hidden, and at the hidden places the network must
# name the *cluster id* of what was there. Clusters come from k-means, first of MFCCs (mel-frequency cepstral
# coefficients: the smooth shape of one Fbank frame in 13 numbers), then of the network's own layers.

# %% [markdown]
# World `librispeech` has HuBERT Base itself, pre-trained on 960 hours. The toy world's teacher has HuBERT's structure
# at a size that a laptop can handle. It was pre-trained by the kit's own recipe (`data_scripts/make_teacher.py`) on
# synthetic speech, without any transcript: first its CNN learns to be a filterbank, a short cut at this size; then come
# several iterations of masked prediction, the first with clusters of MFCCs, each further one with clusters of the
# network before it.

# %%
teacher = lesson.teacher(teacher_name)
config = teacher.config
structure = {
    "layers": config.layers,
    "width": config.dim,
    "FFN": config.ffn,
    "heads": config.heads,
    "clusters": len(teacher.codebook.label_embeddings) if teacher.codebook else "no codebook",
    "parameters": millions(teacher.model),
}
lesson.table("teacher", [structure], f"The teacher: {teacher_name}.")

# %% [markdown]
# The FFN (feed-forward network) is the part of a layer that works on each frame alone; its size is its inner
# width. HuBERT Base has twelve layers, 768 wide, with an FFN of 3,072. Whatever you learn to measure here works on any
# teacher unchanged: `teacher_name = "WAVLM_BASE"` and run again.

# %% [markdown]
# ## From samples to hidden states ●●●
#
# Frame $t$ (counted from 0) of the CNN sees samples $320t$ to $320t + 400$: 25 ms of sound, a new frame every
# 20 ms. All layers above it keep its frames.

# %% [markdown]
# ### Exercise 1: how many frames?
#
# *Difficulty 1 of 3, about three minutes.* How many frames $T$ does an utterance of $n$ samples have? A frame
# counts only where all its samples are there.
#
# **Exercises** check themselves. Write into the cell and run it, then run the check beneath: it tries your
# answer on random cases, new ones each time, and says what it found. Hints and a solution are folded away. What
# you leave out the kit fills in, so the notebook runs to its end in any case.


# %% tags=["exercise"]
def frames_of(samples):
    """Number of 20 ms frames that the CNN makes of so many samples (int, 400 or more)."""
    # hint: The first frame needs 400 samples. How many does each further one need?
    # hint: Whole numbers only: `//` divides and rounds down.
    # stub: return None  # your line goes here
    # solution
    return (samples - 400) // 320 + 1
    # end


# %%
frames_of = exercises.check_frames_of(frames_of)

# %% [markdown]
# Now the real network: is it what comes out?

# %%
waves, lengths = wave[None].to(lesson.device), torch.tensor([len(wave)], device=lesson.device)
features = teacher.model.front_end.cnn(waves, lengths)  # (1, T, channels)
output = teacher.hidden(waves, lengths)  # H^0 .. H^L, each (1, T, width)
print("waveform    ", tuple(waves.shape))
print("CNN features", tuple(features.shape))
print("H^0 .. H^L  ", len(output.hidden), "times", tuple(output.last.shape))
assert features.shape[1] == output.last.shape[1] == frames_of(len(wave)) == num_frames(len(wave))

# %% [markdown]
# Three shapes, one $T = \lfloor (n - 400) / 320 \rfloor + 1$. The assertion holds for every utterance, and it is
# why phones, CNN features, hidden states and cluster ids can be laid over one another by frame number alone.

# %% [markdown]
# The figure shows the utterance on its way through the CNN and every layer, frames from left to right,
# dimensions from bottom to top. Expect stripes: neighbouring frames of one phone are alike, and the picture
# changes where the phone does. No dimension has a name; what a layer knows lies in directions, and that is
# what the probe will look for.

# %%
states = {"CNN": features[0].cpu()}
states |= {f"H{layer}": hidden[0].cpu() for layer, hidden in enumerate(output.hidden)}
figure = plots.hidden_states(states, utterance.phones, height=0.75)
lesson.figure(
    "layers", figure, "The same utterance in the CNN and in every hidden state, with its phones."
)

# %% [markdown]
# Which panel holds steady longest within a phone? Which one changes *before* a border? The CNN cannot look
# ahead, attention can: a frame of a deep layer knows what comes next.

# %% [markdown]
# ## Where the heads look ●
#
# The attention of a layer has several *heads*. Each gives every frame (from bottom to top) its weights on all frames
# (from left to right). Three kinds are known from large models: heads that look at the next neighbours (a bright
# diagonal), heads that look at the same phone elsewhere (blocks), and heads that look at the same few frames from
# everywhere (vertical stripes: often silence). The figure shows the head that looks nearest, in the first, a middle and
# the last layer.

# %%
weights = probing.attention_weights(teacher, wave)  # layers x (heads, T, T)
reach = torch.stack(
    [probing.attention_distance(w).mean(-1) for w in weights]
)  # (layers, heads), seconds
picked = [(layer, int(reach[layer].argmin())) for layer in (0, config.layers // 2, config.layers - 1)]
maps = torch.stack([weights[layer][head] for layer, head in picked])
names = [f"layer {layer + 1}, head {head + 1}" for layer, head in picked]
lesson.figure(
    "attention", figures.attention_maps(maps, utterance.phones, names), "Where three heads look."
)

# %% [markdown]
# How far do they look? Weights spread evenly would reach a third of the utterance on average. A head far
# below that has a place of its own to look at. The nearest head is chosen on the utterance above, so it must
# prove itself on others. Do not be surprised if the toy world's teacher has hardly any: its *positional convolution*, a
# wide one by which HuBERT tells frames their places, brings the neighbourhood in before attention begins.

# %%
others = [u for u in test_part if u is not utterance][:20]
heads, counts = probing.head_reach(
    teacher, others
)  # (utterances, layers, heads) s over all frames, (utterances,)
even = probing.even_distance(counts) * counts
layer, head = divmod(int(reach.argmin()), config.heads)
nearest = heads[:, layer, head]
share, interval = nearest.sum() / even.sum(), ratio_interval(nearest, even, seed)
mean = heads.mean((1, 2))
lesson.metric(
    "attention/mean reach", mean.sum() / counts.sum(), ratio_interval(mean, counts, seed), unit="s"
)
lesson.metric("attention/nearest head against even weights", share, interval, unit="share")

# %%
text = f"In {len(others)} other utterances, head {head + 1} of layer {layer + 1} reaches "
text += f"{percent(share, interval)} as far as even weights would, "
text += f"all heads together {percent(mean.sum() / even.sum())}."
lesson.verdict("Some heads look near", "seen" if interval[1] < 0.5 else "not seen", text)

# %% [markdown]
# ## The codebook: one id every 20 ms ●●●
#
# HuBERT carries its own classifier: a projection `final_proj` and one embedding $e_k$ per cluster. The logits
# of cluster $k$ at frame $t$ are cosines, sharpened by a temperature $\tau$:
#
# $$ z_k = \frac{\cos(\mathrm{final\_proj}(H^L_t),\, e_k)}{\tau}, \qquad q = \mathrm{softmax}(z) $$
#
# Of full-size HuBERT only fairseq's own files carry the codebook. Where a teacher has none, the next cell
# makes one of k-means centroids of its last layer, and says so.

# %%
if teacher.codebook is None:
    from kdkit.teachers.pretrain import kmeans_codebook

    teacher.codebook = kmeans_codebook(teacher.model, train_part, clusters=100, seed=seed).to(
        lesson.device
    )
    lesson.text(
        "codebook", f"{teacher_name} has no codebook: 100 k-means centroids of its last layer serve."
    )

# %% [markdown]
# ### Exercise 2: the logits of the codebook
#
# *Difficulty 2 of 3, about eight minutes.* Write the formula. The cosine of two vectors is the dot product of
# both divided by their lengths, so one matrix multiplication does all frames and all clusters at once.


# %% tags=["exercise"]
def cluster_logits(hidden, codebook):
    """Logits z of every frame over the cluster ids: (T, D) -> (T, K).

    ``codebook.final_proj(hidden)`` is (T, E), ``codebook.label_embeddings`` (K, E), ``codebook.tau``
    a number.
    """
    # hint: `F.normalize(x, dim=-1)` divides each row by its length.
    # hint: (T, E) times (E, K) is (T, K): `a @ b.T`.
    # hint: No softmax: $q$ is made of the logits later.
    # stub: return None  # your lines go here
    # solution
    projected = F.normalize(codebook.final_proj(hidden), dim=-1)  # (T, 64 or 256)
    embeddings = F.normalize(codebook.label_embeddings, dim=-1)  # (K, same)
    return projected @ embeddings.T / codebook.tau  # (T, K)
    # end


# %%
cluster_logits = exercises.check_cluster_logits(cluster_logits)

# %% [markdown]
# On the utterance, against the package's codebook:

# %%
logits = cluster_logits(output.last[0], teacher.codebook)
torch.testing.assert_close(logits, teacher.codebook(output.last[0]), rtol=1e-3, atol=1e-3)
ids = logits.argmax(-1).tolist()

# %% [markdown]
# Read the ids under the first phones. Guess first: does an id last as long as its phone, as a letter would, or
# does it change from frame to frame?

# %%
labels = frame_phones(utterance, len(ids))
turns = [0] + [t for t in range(1, len(ids)) if labels[t] != labels[t - 1]] + [len(ids)]
rows = [
    {"phone": labels[a] or "(silence)", "frames": b - a, "cluster ids": " ".join(map(str, ids[a:b]))}
    for a, b in pairwise(turns[:13])
]
lesson.table("ids", rows, "Cluster ids of the first phones of the utterance.")
lesson.text("ids over time", sentences.steadiness(ids, labels))

# %% [markdown]
# The sentence is about this utterance. How many different ids does one phone use, and does the same phone, when
# it comes again, use the same ones? PNMI, below, answers this for thousands of frames.

# %% [markdown]
# ## What a cluster sounds like ●●
#
# An id is only a number; its frames can be heard. The next cell looks up every run of every id in some test
# utterances. Then it takes the ids whose frames agree best on a phone and plays what they stand for: the
# frames of one id, from many places and voices, one after the other.

# %%
runs = listening.occurrences(teacher, test_part[:60])  # {id: its runs of frames}
shares = {k: listening.phone_shares(of_id) for k, of_id in runs.items()}
spoken = [k for k in runs if shares[k][0][0] and sum(len(run.phones) for run in runs[k]) >= 10]
purest = sorted(spoken, key=lambda k: -shares[k][0][1])
shown = list({shares[k][0][0]: k for k in reversed(purest)}.values())[
    ::-1
]  # the purest id of each phone

# %%
rows = [
    {
        "id": k,
        "runs": len(runs[k]),
        "voices": len({run.utterance.speaker for run in runs[k]}),
        "phones under its frames": ", ".join(
            f"{p or 'silence'} {100 * share:.0f} %" for p, share in shares[k][:3]
        ),
    }
    for k in shown[:10]
]
lesson.table("clusters heard", rows, "Ids that agree best on a phone, one for each phone.")
for k in shown[:3]:
    caption = f"Id {k}: mostly [{shares[k][0][0]}], {min(30, len(runs[k]))} of {len(runs[k])} runs."
    lesson.audio(f"cluster {k}", listening.play(runs[k]), caption)

# %% [markdown]
# Play them, short and cut off as they are: is it one sound, in different voices? To hear another id, put its
# number into `listening.play(runs[...])`. The last ones of `purest` are the ids that no phone owns: what do
# *they* have in common?

# %% [markdown]
# ## A linear probe, written out ●●●
#
# What does "layer $l$ knows phones" mean? That a *linear* classifier, trained on its frames, names the phones
# of frames it never saw:
#
# $$ p(\text{phone} \mid h) = \mathrm{softmax}(W h + b) $$
#
# The classifier is kept weak on purpose. A deep network could work phones out of almost anything, the
# waveform included; a linear one finds only what lies ready.

# %% [markdown]
# First the frames: a sample of every layer's activations, with the phone under each frame's centre. Utterances are
# taken from all speakers in turn, so that no voice dominates, and silence is left out (every feature finds it, and it
# would lift all curves alike). The same frames are taken for Fbank with its first and second differences ("deltas"),
# for the CNN features, and for every $H^l$.
#
# Three sets of voices, none of which is in two of them: *train* fits the probes, *dev* chooses (the best layer),
# *test* judges what was chosen. Choosing and judging on the same frames flatters the choice: the best of many numbers
# is partly the luckiest.

# %%
size = lesson.size
extract = ModelLayers(teacher)
train_part, test_part = (
    subset(train_part, size.probe_train_minutes),
    subset(test_part, size.probe_test_minutes),
)
judged = {"frames": size.probe_frames // 2, "seed": seed, "per_utterance": 15}  # from many utterances
train_part, dev_part = probing.held_out(train_part)  # every fifth voice is dev
train = collect(extract, train_part, frames=size.probe_frames, seed=seed)
dev, test = (collect(extract, part, **judged) for part in (dev_part, test_part))
voices = [set(frames.speakers) for frames in (train, dev, test)]
assert not any(a & b for a, b in combinations(voices, 2))
print(
    f"{len(train)} frames to train on, {len(dev)} to choose by, {len(test)} to be judged on: "
    "of other voices each"
)
print("features:", ", ".join(train.names))

# %% [markdown]
# From here on, `train`, `dev` and `test` hold the same frames seen through every feature: whatever differs between
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
# $$ \min_{W, b} \; -\frac{1}{N} \sum_{n} \log p(\text{phone}_n \mid h_n) + \frac{\rho}{2} \lVert W \rVert^2 $$
#
# The problem is convex, so there is one best answer and no seed; L-BFGS, an optimiser that looks at all frames in every
# step, finds it. The penalty ($\rho$, `penalty` below) matters more than it seems: frames of one voice are alike, and a
# probe without it learns the voices instead of the phones.


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
test_y = np.array(
    [number.get(phone, -1) for phone in test.phones]
)  # -1: not in training, always an error
weight, bias = fit_probe(x, torch.from_numpy(train_y), len(phones))
written = ((test_x @ weight + bias).argmax(1).numpy() == test_y).mean()

# %%
theirs, _ = probing.linear_probe(
    train.features[middle], train_y, test.features[middle], test_y, len(phones)
)
assert abs(written - theirs) < 0.01, (written, theirs)
guess = (test_y == np.bincount(train_y).argmax()).mean()
print(f"{train.names[middle]}: {percent(written)} of the frames, the package says {percent(theirs)}")
print(f"always the most frequent phone: {percent(guess)} of {len(phones)} phones")

# %% [markdown]
# Both solve the same convex problem, by different roads, and arrive at the same place. That makes a probe a
# *measurement*: run it twice and you get the same number.

# %% [markdown]
# ## The probe on every layer ●●●
#
# Now all of them. Three guesses, which the cells below confirm or refute:
#
# - the CNN features close to Fbank + deltas: the CNN was trained, but it sees 25 ms and nothing of its
#   neighbourhood, of which deltas tell a little;
# - a rise over the first layers, as attention brings context in;
# - the best layer somewhere inside, neither first nor last: the last layers turn to the training task.

# %%
probe = probing.probe_layers(train, test, seed, dev)  # dev chooses the best layer
for score in (probe.fbank, probe.front_end, *probe.layers):
    lesson.metric(f"probe/{score.name}", score.accuracy, (score.low, score.high), unit="share")
lesson.difference("probe/gain over Fbank", probe.gain)

# %%
figure = plots.layer_curve(probe)
lesson.figure(
    "probe",
    figure,
    "Linear phone probe on each layer, frames of unseen voices; bars are 95 % intervals.",
)

# %% [markdown]
# The star is the layer that is best on dev, drawn at what it reads of *test*; another may be highest there. The dashed
# line is Fbank + deltas, the dotted one the CNN's output, and the grey line *chance*: always saying the most frequent
# phone. A band is the 95 % interval of one curve over utterances.

# %% [markdown]
# ### Exercise 3: read the curve
#
# *Difficulty 1 of 3, about two minutes.* Which layer holds phones best? Give its number, 0 for $H^0$.

# %% tags=["exercise"]
# hint: The number stands on the horizontal axis, under the star.
# hint: The solution does not look at a picture: it asks the probe.
# stub: my_best_layer = None  # a number
# solution
my_best_layer = probe.best
# end

# %%
exercises.check_best_layer(my_best_layer, probe)

# %% [markdown]
# The numbers behind the curve:

# %%
print(probe)

# %% [markdown]
# Two layers whose bands overlap may still differ, because both were judged on the same utterances. Only a *paired*
# comparison can tell: whole test utterances are drawn again and again (*bootstrap*), both features on the same ones,
# and the interval is that of the difference.

# %% [markdown]
# Verdict: is the best layer better than Fbank + deltas on unseen voices?

# %%
best = probe.layers[probe.best]
text = f"{best.name}, chosen on dev, reads {percent(best.accuracy)} of the frames, Fbank + deltas "
text += f"{percent(probe.fbank.accuracy)}."
lesson.compare("Best layer against Fbank + deltas", probe.gain, text)

# %% [markdown]
# And the shape, guess by guess.

# %%
accuracies = [layer.accuracy for layer in probe.layers]
worst = probe.layers[int(np.argmin(accuracies))]
inside = 0 < probe.best < config.layers
spread = max(accuracies) - min(accuracies)
lesson.metric("probe/best layer", probe.best)
lesson.metric("probe/spread over layers", spread, unit="share")
below = f"{100 * (best.accuracy - worst.accuracy):.1f} points below it"
text = f"{best.name} is best on dev; on test {worst.name} is worst, {below}. The best is "
text += "neither the first nor the last." if inside else "at an end of the network."
lesson.verdict("The best layer is inside", "seen" if inside else "not seen", text)
lesson.text("shape of the curve", sentences.shape(probe))

# %% [markdown]
# Which phones are confused? Rows are true phones, columns what the best layer's probe said, ordered by class:
# stops, fricatives (noise, such as [s]), nasals (such as [m]), vowels, ... A guess: the mistakes that people make
# on the telephone, voiced for voiceless stops ([b] for [p]), one nasal for another, neighbouring vowels.

# %%
figure = plots.confusion(probe.confusion, probe.phones)
lesson.figure(
    "confusion", figure, f"Phones said for each true phone, probe on {best.name}, unseen voices."
)
lesson.text("mistakes", sentences.likely_mistakes(probe.confusion, probe.phones))

# %% [markdown]
# A dark diagonal cell is a phone that is often missed; look along its row for what it is taken for. Are the phones that
# are missed most the rare ones, of which the probe has seen few?

# %% [markdown]
# ## Who speaks? ●
#
# The same probe, another question: whose voice is it? All voices are unseen by the teacher; the probe hears
# half of each voice's utterances and is judged on the other half. Recognition wants the phone and not the
# voice. Guess: is the voice plainest in Fbank, and does it fade where the phones are clear?

# %%
speakers = probing.probe_speakers(test, seed)
curves = {"phones": probe.layers, "speakers": speakers[2:]}
lesson.figure(
    "speakers",
    figures.two_curves(curves, "Phones and speakers, frame by frame"),
    "Linear probes for phone and speaker.",
)
for score in speakers:
    lesson.metric(f"speaker/{score.name}", score.accuracy, (score.low, score.high), unit="share")

# %%
fbank_voice, last_voice = speakers[0], speakers[-1]
text = f"Of {len(set(test.speakers))} voices, Fbank + deltas tells {percent(fbank_voice.accuracy)} of "
text += (
    f"the frames, the last layer {percent(last_voice.accuracy)}, always the most frequent voice about "
)
text += f"{percent(sentences.chance(test.speakers))}. "
change = probing.compare_layers(last_voice, fbank_voice, seed, "speaker accuracy")
text += f"The last layer against Fbank: {change}. {sentences.fades(probe.layers, speakers[2:])}"
faded = "seen" if change.verdict == "worse" else "not seen"
lesson.verdict("The voice fades from Fbank to the last layer", faded, text)

# %% [markdown]
# ## Cluster ids against phones: PNMI ●●
#
# A probe needs phone labels to train; cluster ids need none. How much of the phone does the id tell?
# *Phone-normalised mutual information* is the share of the phone's entropy that knowing the id removes:
#
# $$ \mathrm{PNMI} = \frac{I(\text{phone};\, \text{id})}{H(\text{phone})}
#    = \frac{\sum_{p,k} P(p, k) \log \frac{P(p, k)}{P(p) P(k)}}{-\sum_p P(p) \log P(p)} $$
#
# $I$ is the mutual information, and $H(\text{phone})$ the entropy, how uncertain the phone is (no hidden state this
# time). PNMI is 0 when the id says nothing and 1 when it says all. It grows with the number of clusters, and a small
# sample makes it look larger than it is: compare at equal numbers of clusters and frames only.

# %% [markdown]
# ### Exercise 4: PNMI from its formula
#
# *Difficulty 3 of 3, about fifteen minutes.* The first line is given: it turns ids and phones into numbers from
# 0 on. What remains is a table of $P(p, k)$, its two margins, and two sums.


# %% tags=["exercise"]
def phone_information(ids, phones):
    """PNMI, 0 .. 1, of the ids and phones of the same n frames (arrays of n ints, n texts)."""
    # hint: `np.add.at(table, (p, k), 1 / len(p))` adds 1/n to a cell of the table for every frame.
    # hint: $P(p)$ is the table summed over ids, $P(k)$ summed over phones; `keepdims=True` lets them be multiplied
    #   to a table again.
    # hint: A cell of 0 adds nothing, but its logarithm is not finite: take the cells above 0 only.
    # stub: (_, k), (_, p) = np.unique(ids, return_inverse=True), np.unique(phones, return_inverse=True)
    # stub: return None  # your lines go here
    # solution
    (_, k), (_, p) = np.unique(ids, return_inverse=True), np.unique(phones, return_inverse=True)
    joint = np.zeros((p.max() + 1, k.max() + 1))
    np.add.at(joint, (p, k), 1 / len(p))  # P(phone, id)
    of_phone, of_id = joint.sum(1, keepdims=True), joint.sum(0, keepdims=True)
    seen = joint > 0
    information = (joint[seen] * np.log((joint / (of_phone * of_id))[seen])).sum()
    return information / -(of_phone * np.log(of_phone)).sum()
    # end


# %%
phone_information = exercises.check_phone_information(phone_information)

# %%
with torch.no_grad():
    last = torch.from_numpy(test.features[-1]).to(lesson.device)
    test_ids = cluster_logits(last, teacher.codebook).argmax(-1).cpu().numpy()
codebook_pnmi = phone_information(test_ids, test.phones)
assert abs(codebook_pnmi - probing.pnmi(test_ids, test.phones)) < 1e-9
interval = probing.pnmi_interval(test_ids, test.phones, test.utterances)
lesson.metric("pnmi/codebook", codebook_pnmi, interval, unit="share")
print(f"codebook ids: PNMI {codebook_pnmi:.3f}, {len(set(test_ids.tolist()))} ids in use")

# %% [markdown]
# These ids come from frames that were *not* hidden. In pre-training the network had to name them from the
# neighbourhood alone.

# %% [markdown]
# ### How sure is the codebook?
#
# A student can learn from the whole distribution $q$, not only from the first id. How much there is to learn
# depends on $\tau$. Two numbers tell: how many ids a frame hesitates between ($e$ to the mean entropy of
# $q$), and how many are in use at all ($e$ to the entropy of the mean $q$). Guess the two ends: what does a
# frame say at a very small $\tau$, and what at a very large one?

# %%
taus = sorted({0.03, 0.05, 0.1, 0.2, 0.5, 1.0, teacher.codebook.tau})
usage = probing.codebook_usage(teacher.codebook, test.features[-1], taus, test.utterances, seed)
trained = next(u for u in usage if u.tau == teacher.codebook.tau)
lesson.figure("temperature", figures.usage_over_temperature(usage), "Ids in play over the temperature.")
lesson.metric("codebook/choices of a frame", trained.choices, trained.choices_interval)
lesson.metric("codebook/ids in use", trained.used, trained.used_interval)
text = f"At the codebook's own temperature, {trained.tau:g}, a frame hesitates between "
text += f"{trained.choices:.1f} ids, and {trained.used:.0f} of "
text += f"{len(teacher.codebook.label_embeddings)} are in use."
lesson.text(
    "temperature", f"{text} {sentences.sharpness(usage, len(teacher.codebook.label_embeddings))}"
)

# %% [markdown]
# Between the two ends lies the range in which $q$ says more than its first id. The discriminative loss of
# notebook 02 takes its temperature from there.

# %% [markdown]
# The same for every layer, with k-means ids of its own frames, the way HuBERT's targets are made: fitted on
# training voices, judged on unseen ones. Beside it runs the share of the *speaker's* entropy that the id removes:
# features that hear the voice instead of the phone have it high. Two guesses: is PNMI highest where the probe is,
# and does the speakers' curve fall where the phones' curve rises?

# %%
clusters = 100  # fewer than HuBERT's codebooks have: this sample would not fill more
ids_of = probing.layer_ids(
    train, dev, test, clusters=clusters, seed=seed
)  # of each feature: dev's, test's
cluster_scores = [
    probing.cluster_score(name, own, test) for name, (_, own) in zip(test.names, ids_of, strict=True)
]
for score in cluster_scores:
    lesson.metric(f"pnmi/{score.name}", score.pnmi, score.interval, unit="share")
figure = plots.cluster_curve(cluster_scores)
lesson.figure(
    "pnmi", figure, f"What {clusters} k-means ids of each layer tell of the phone and of the speaker."
)

# %% [markdown]
# Fbank's clusters (dashed) are the starting point. Where the speakers' curve falls while the phones' rises, the
# network has learnt to ignore who speaks; where both rise, its ids say more of both. Which of the two is it here?

# %%
of_phones, of_voices = ([getattr(s, key) for s in cluster_scores[2:]] for key in ("pnmi", "speaker_nmi"))
probed = ("the probe", [score.accuracy for score in probe.layers])
lesson.text("PNMI and probe", sentences.together(("PNMI", of_phones), probed))
lesson.text(
    "ids and voices", sentences.together(("phones by id", of_phones), ("speakers by id", of_voices))
)

# %% [markdown]
# Verdict on the best layer, chosen on dev again, and paired: each test utterance is left out of both once
# (*jackknife*), which estimates the error of the difference, and the bias that small samples have.

# %%
dev_pnmi = [probing.pnmi(own, dev.phones) for own, _ in ids_of[2:]]
chosen = 2 + int(np.argmax(dev_pnmi))  # place of the layer in the list of features
change = probing.compare_ids(ids_of[chosen][1], ids_of[0][1], test)
best_clusters, fbank_clusters = cluster_scores[chosen], cluster_scores[0]
text = f"k-means of {best_clusters.name}: PNMI {best_clusters.pnmi:.3f}; of Fbank + deltas: "
text += f"{fbank_clusters.pnmi:.3f}; the teacher's own codebook: {codebook_pnmi:.3f}."
lesson.compare("Clusters of the best layer against clusters of Fbank", change, text)

# %% [markdown]
# ## Layers against layers: CKA ●●
#
# Two layers may hold the same thing in different coordinates. *Linear centred kernel alignment* (arXiv
# 1905.00414) compares them up to rotation, shift and scale. With $X$ and $Y$ the centred activations of the
# same frames:
#
# $$ \mathrm{CKA}(X, Y) = \frac{\lVert Y^\top X \rVert_F^2}{\lVert X^\top X \rVert_F \, \lVert Y^\top Y \rVert_F} $$

# %% [markdown]
# ### Exercise 5: CKA
#
# *Difficulty 2 of 3, about five minutes.* Two lines, or three.


# %% tags=["exercise"]
def alignment(x, y):
    """Linear CKA, 0 .. 1, of the activations (n, D1) and (n, D2) of the same n frames."""
    # hint: Centred: every dimension has mean 0 over the frames, `x.mean(0)`.
    # hint: `np.linalg.norm` of a matrix is the Frobenius norm.
    # stub: return None  # your lines go here
    # solution
    x, y = x - x.mean(0), y - y.mean(0)
    cross = np.linalg.norm(y.T @ x) ** 2
    return cross / (np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y))
    # end


# %%
alignment = exercises.check_alignment(alignment)

# %%
first, last = test.features[2].astype(np.float64), test.features[-1].astype(np.float64)
assert abs(alignment(first, first) - 1) < 1e-6  # the same thing
assert abs(alignment(first, last) - probing.linear_cka(first, last)) < 1e-6

# %% [markdown]
# The map of all pairs. A guess: a bright diagonal that fades with distance, because each layer changes its input
# a little. A bright block is a group of layers that hold much the same, and one of them may stand for all in
# distillation.

# %%
cka, without = probing.cka_jackknife(test, test)  # (features, features); the same without each utterance
figure = plots.cka_map(cka, test.names)
lesson.figure("cka", figure, "Linear CKA between all layers, on frames of unseen voices.")

# %% [markdown]
# Find the two darkest rows: what is unlike everything else? And the largest bright block: if you could keep
# only one of its layers, which would it be?
#
# How sure is the map? What two layers share by chance counts as alike, so CKA of few frames is *too high*;
# drawing utterances again, as the bootstrap does, makes it higher still. The jackknife estimates this bias as well as
# the error. From here on the bias is taken off.

# %%
alike = probing.unbiased_share(cka, without)  # (features, features, 3): value, low, high
far, *far_interval = alike[2, -1]
pairs = [(2 + layer, 3 + layer) for layer in range(config.layers)]
nearest = min(pairs, key=lambda pair: alike[pair][1])  # the neighbours of which least can be said
near, *near_interval = alike[nearest]
change = probing.compare_cka(cka, without, nearest, (2, len(cka) - 1))
lesson.metric("cka/H0 to last", far, far_interval)
lesson.metric("cka/least alike neighbours", near, near_interval)
bias = np.abs(cka - alike[..., 0]).max()
text = f"Neighbours have a CKA of {near:.3f} ({near_interval[0]:.3f} to {near_interval[1]:.3f}) "
text += f"or more, H0 and the last layer {far:.3f} ({far_interval[0]:.3f} to {far_interval[1]:.3f}). "
text += f"On {len(without)} utterances the bare map is up to {bias:.3f} away from these values. "
text += f"The difference: {change}."
lesson.verdict(
    "Likeness fades with distance", "seen" if change.verdict == "better" else "not seen", text
)

# %% [markdown]
# ## How much does a layer change its input? ●
#
# $1 - \cos(H^{l-1}_t, H^l_t)$, averaged over frames, is 0 for a layer that only passes on, and near 1 for one
# that leaves nothing as it was. A guess: layers that change much are the ones that a student can least do without.

# %%
change = probing.layer_changes(test, seed)  # of layers 1 .. L: value, low, high
figure = plots.layer_change(change)
caption = (
    "How far each layer turns its input: one minus the mean cosine, 95 % intervals over utterances."
)
lesson.figure("change", figure, caption)

# %% [markdown]
# Compare with the probe's curve. A layer can turn its input far without adding anything that a phone probe
# sees, because it may work on something else: voice, position, or the pre-training task.

# %% [markdown]
# ## Which layers would you distil? ●●●
#
# The next lesson has two kinds of students. *Deep & thin* has as many layers as the teacher, and each of its
# layers learns from the teacher's layer of the same number. *Shallow & wide* has two layers and three
# prediction heads, and somebody must choose three teacher layers for them; DistilHuBERT (arXiv 2110.01900)
# took 4, 8 and 12.
#
# Everything measured so far, side by side, with 95 % intervals over utterances. Which three would you take? A
# good choice holds phones, and its members hold *different* things.


# %%
def between(value, low, high):
    return f"{value:.3f} ({low:.3f} to {high:.3f})"


rows = [
    {
        "layer": score.name,
        "phone probe": percent(score.accuracy, (score.low, score.high)),
        "PNMI": between(cluster_scores[2 + layer].pnmi, *cluster_scores[2 + layer].interval),
        "change of its input": between(*change[layer - 1]) if layer else "",
        f"CKA with {best.name}": between(*alike[2 + layer, 2 + probe.best]),
    }
    for layer, score in enumerate(probe.layers)
]
lesson.table("layers", rows, "The layers of the teacher, measured on unseen voices.")

# %% [markdown]
# No column alone decides. One simple rule: of all sets of three layers, take the one with the best mean phone
# probe, on dev, *minus* how alike its members are (mean CKA). Below it stands beside DistilHuBERT's choice. If you
# would rather take others, write them into `choice`.

# %%
accuracy = np.array([score.accuracy for score in probe.layers])
on_dev = np.array(probe.on_dev)


def likeness(layers):  # mean CKA of the pairs: value, low, high
    first, second = np.array(list(combinations(layers, 2))).T + 2
    return probing.unbiased_share(cka[first, second].mean(), without[:, first, second].mean(1))


def worth(layers):
    return on_dev[list(layers)].mean() - likeness(layers)[0]


choice = max(combinations(range(1, config.layers + 1), 3), key=worth)
published = tuple(layer for layer in (4, 8, 12) if layer <= config.layers)
rows = [
    {
        "choice": name,
        "layers": ", ".join(f"H{layer}" for layer in layers),
        "phone probe, mean": percent(accuracy[list(layers)].mean()),
        "CKA, mean": between(*likeness(layers)),
    }
    for name, layers in (("by the rule", choice), ("DistilHuBERT", published))
]
lesson.table("choices", rows, "Two choices of three teacher layers.")

# %%
lesson.keep_layers(choice, teacher_name)
text = f"Layers {', '.join(map(str, choice))} of {teacher_name} go into notebook 02: its shallow & wide "
text += "student learns them through prediction heads. Layer-wise students learn all layers anyhow."
lesson.text("layers to distil", text)

# %% [markdown]
# The rule is a proposal, not a law: it asks only for phones and for variety. The last layer, for instance,
# is what the codebook reads, and the discriminative loss needs a student that can get there.

# %% [markdown]
# ## The same questions to a student ●●
#
# Every measure takes a student as well as a teacher. Where a deep & thin student (12 thin layers, Fbank front-end) is
# there already, as in the toy world, here is its CKA with its teacher, on the same frames. Layer-wise distillation
# wants its layer $l$ to be like the teacher's layer $l$. Is the diagonal the brightest?

# %%
if ours:
    student, _ = lesson.student(lesson.world.student("dt", "fbank"))
    dev_theirs, theirs = (
        collect(ModelLayers(student), part, **judged) for part in (dev_part, test_part)
    )
    across, across_without = probing.cka_jackknife(theirs, test)
    lesson.figure(
        "student",
        plots.cka_map(across, theirs.names, test.names),
        "CKA: student (rows), teacher (columns).",
    )
    same = np.arange(2, 3 + config.layers)
    own = probing.unbiased_share(across[same, same].mean(), across_without[:, same, same].mean(1))
    lesson.metric("cka/student with teacher, same layer", own[0], own[1:].tolist())
    followed = [
        int(np.argmax(row[2:])) for row in probing.unbiased_share(across, across_without)[2:, :, 0]
    ]
    text = (
        f"CKA of a student's layer with the teacher's of the same number is {between(*own)} on average. "
    )
    text += f"The student's layers 0, 1, 2, ... are most like the teacher's {followed}."
    near = np.mean(np.abs(np.array(followed) - np.arange(config.layers + 1)))
    lesson.verdict(
        "A student's layers follow the teacher's", "seen" if near <= 1.5 else "not seen", text
    )

# %% [markdown]
# ## Look around: the layer explorer ●
#
# Everything so far for any utterance and layer. Move the layer and watch: are the ids of some layers steadier
# within a phone than those of others? Does attention narrow? Then choose a second layer, or the student, under
# *compare*, and read the CKA of the two below the picture. Ids are k-means clusters of that layer's frames.
#
# The widget is a picture with controls. Without a kernel (in the report) the picture stays as it begins.

# %%
compared, curves, seen = {teacher_name: teacher}, {teacher_name: probe}, {teacher_name: train}
if ours:
    compared["student"] = Teacher(student, None, lesson.world.student("dt", "fbank"), {})
    seen["student"] = collect(ModelLayers(student), train_part, frames=size.probe_frames, seed=seed)
    curves["student"] = probing.probe_layers(seen["student"], theirs, seed, dev_theirs)

# %%
explorer = LayerExplorer(compared, test_part[:20], curves, seen)
if "student" in compared:
    explorer.update(other="student")
lesson.widget(
    "layer explorer", explorer, "An utterance in two layers: phones, cluster ids, attention, accuracy."
)

# %% [markdown]
# ## Your own voice ●
#
# Say the text below into your microphone, or choose a sound file: a synthetic voice says it, too, and both go through
# the teacher. The middle picture compares every frame of yours with every frame of the other by their cosine, and the
# line is the path on which the two fit best (*dynamic time warping*: one may speak slower than the other).
#
# On the right is the mean cosine along that path, layer by layer, and beside it the same for two other sentences of the
# synthetic voice: the distance between the two curves is what a layer holds of the *words*.
#
# A guess first: deep layers are said to keep the phone and forget the voice. Does the distance grow from H0 on?
#
# The sound goes from the browser to the kernel of this notebook and nowhere else (on Colab, the kernel is a machine of
# Google's). It is in no output and no file unless you press *Save*. Browsers give the microphone to pages from
# localhost or https; in VS Code, choose a file, or write `voice.use("speech.wav")` in a cell. Where nobody has recorded
# anything, as in the report, a third voice stands in for yours.

# %%
voice = VoiceLayers(teacher, utterance.text, lesson.out / "own voice")
lesson.widget("own voice", voice, "Two voices that say the same, layer by layer.")

# %% [markdown]
# Run the next cell again after you have recorded yourself.

# %%
lesson.text("own voice", voice.sentence())

# %% [markdown]
# Whatever you find is about two voices and one sentence. The toy world's teacher never heard a person: compare your
# curves with the stand-in's (*Forget* brings it back). Change the text, the voice, the microphone's distance: what
# moves the curves most?

# %% [markdown]
# On the command line `kdkit probe STUDENT --against TEACHER --out runs/probe` makes the whole table, with intervals,
# and saves it; both are names or files.

# %% [markdown]
# ## Quiz
#
# Five questions, about five minutes. No answer depends on the numbers of this run.

# %%
exercises.quiz("01_teacher_probing")

# %% [markdown]
# ## What you have seen
#
# - A teacher that never saw a label, and a linear probe that reads phones of unseen voices from it; the
#   verdict cells say how much better than from Fbank and than by chance, and in which layer.
# - Cluster ids that can be heard, and how much of the phone they tell; layers, and how alike they are.
# - Three layers, chosen for what they know and for being different, that notebook 02 distils.
#
# **Limits.** A probe says what *can* be read linearly, not what the model uses. The toy world's voices are cleaner and
# more regular than people; its absolute figures do not carry over to human speech, the way of measuring does. Estimated
# phone times make every probe look a little worse than it is.
# Intervals speak for more utterances of this kind, not for another teacher.
#
# **Readings.** HuBERT (arXiv 2106.07447); layer-wise analysis of self-supervised speech models (Pasad et al.,
# arXiv 2107.04734); CKA (arXiv 1905.00414); DistilHuBERT (arXiv 2110.01900).
#
# **Next:** [2. Distillation](02_distillation.ipynb): a student learns these hidden states.

# %%
lesson.finish()
