# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 3. The Fbank front-end: the student loses its CNN
#
# **Claim to test.** The paper (arXiv 2210.15631) replaces the waveform CNN of a distilled student by Fbank
# features and one small convolution, and reports 17 % fewer parameters and twice the inference speed "at
# marginal performance degradation". Three numbers; all three are counted or measured below.
#
# **You will**
#
# - see one utterance as waveform, as CNN features and as Fbank, side by side;
# - build Fbank from its definition, mel filters included, and check it against two implementations;
# - see why both front-ends give the same number of frames, for every length;
# - see what padding does to a group norm, and how to stop it;
# - count parameters, measure speed, distil both twins live, and ask what the swap costs.
#
# **Device.** Any CPU; a GPU is used where there is one. **Minutes.** About three in profile `quick` on two
# cores, seconds in `smoke`. **Needs** nothing from other notebooks: teacher and distilled twins ship with the
# kit.

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
seed = 0  # int: new weights and the order of the speech
out = "runs/notebooks"  # str: run folder, relative to where the notebook runs

# %%
import time

import numpy as np
import torch
import torch.nn.functional as F
import torchaudio
from torch import nn

from kdkit import plots
from kdkit.activations import ModelLayers, collect
from kdkit.audio import read_audio
from kdkit.batches import Batches
from kdkit.corpora.synthetic import subset
from kdkit.distill import DistillConfig, DistillTask, layer_wise
from kdkit.fbank import Fbank, fbank_statistics, mel_filterbank
from kdkit.frontends import KERNELS, STRIDES, num_frames
from kdkit.lessons import Lesson, outcome, percent
from kdkit.models import SpeechModel, parameter_count, preset
from kdkit.probing import last_layer, probe_layers
from kdkit.students import new_student
from kdkit.training import TrainConfig, train

lesson = Lesson("03_fbank_front_end", "The Fbank front-end replaces the waveform CNN", profile, seed, out)

# %% [markdown]
# ## The same sound, three ways
#
# The waveform is 16,000 numbers a second. The teacher's CNN turns it into 50 vectors a second that it has
# *learned*. Fbank turns it into 100 vectors a second by a *recipe* that is decades old: how loud is each band
# of frequencies?

# %%
size = lesson.size
speech, train_speech = lesson.corpus("unlabelled", "train")
test_speech, other_speech = lesson.corpus("test-clean", "test-other")
utterance = min(test_speech, key=lambda u: abs(u.duration - 3))
wave = read_audio(utterance.audio)
lesson.audio("utterance", wave, f"An unseen voice says: “{utterance.text}”")

# %% [markdown]
# Listen first, then look: the three pictures below share one time axis with what you heard.

# %% [markdown]
# Look for what both pictures show (silences, borders between phones) and for what only one does. Fbank's rows
# are frequencies, low ones at the bottom; the CNN's channels have no order at all.

# %%
teacher = lesson.teacher()
waves, lengths = wave[None], torch.tensor([len(wave)])
cnn = teacher.model.front_end.cnn.cpu()
features = cnn(waves, lengths)[0]  # (frames at 50 Hz, channels)
fbank = Fbank()(waves)[0]  # (frames at 100 Hz, 80)
figure = plots.aligned_features(wave, features, fbank, utterance.phones)
lesson.figure("three ways", figure, "One utterance as waveform, CNN features of the teacher, and Fbank.")

# %% [markdown]
# CNN channels are drawn standardised, so that quiet ones show too. Note the widths: Fbank has twice as many
# columns a second. One frame of a student will stand on a few of them.

# %% [markdown]
# ## The mel filters
#
# The ear tells 200 from 300 Hz easily, 7,000 from 7,100 Hz hardly. The *mel scale* counts in steps that sound
# equal:
#
# $$ \mathrm{mel}(f) = 1127 \, \ln(1 + f / 700) $$
#
# Put 82 points at equal distances on the mel axis, from 20 Hz to half the sampling rate. Filter $b$ is a
# triangle: it rises from point $b$ to point $b + 1$ and falls to point $b + 2$. With $m$ the mel value of a
# bin of the spectrum,
#
# $$ w_b(m) = \max\Bigl(0, \min\Bigl(\frac{m - m_b}{m_{b+1} - m_b},
#    \frac{m_{b+2} - m}{m_{b+2} - m_{b+1}}\Bigr)\Bigr) $$


# %%
def mel(hertz):
    return 1127 * np.log1p(np.asarray(hertz) / 700)


points = np.linspace(mel(20), mel(8_000), 82)
bins = mel(np.arange(257) * 16_000 / 512)[:, None]  # mel value of each bin of a 512-point spectrum
rising = (bins - points[:-2]) / (points[1:-1] - points[:-2])
falling = (points[2:] - bins) / (points[2:] - points[1:-1])
filters = torch.from_numpy(np.minimum(rising, falling).clip(0)).float()  # (257, 80)
filters[-1] = 0  # Kaldi leaves the bin at 8,000 Hz out
torch.testing.assert_close(filters, mel_filterbank())

# %% [markdown]
# The assertion compares with the package's filterbank. Every number of it follows from two formulas and four
# constants: 80 bins, 512 points, 20 Hz and half the sampling rate.

# %% [markdown]
# Expect narrow filters at the low end, so narrow that some hold a single bin of the spectrum or none, and
# broad ones at the high end.

# %%
lesson.figure(
    "mel", plots.mel_filters(filters), "The 80 mel filters over frequency, every fifth one in colour."
)

# %% [markdown]
# Where the ear hears fine differences there are many filters, where it does not there are few. That is
# knowledge about hearing, built in. HuBERT's CNN has to find something like it in the data; that of the tiny
# teacher was shown it first.

# %% [markdown]
# ## Fbank, step by step
#
# The rest of the recipe, by the conventions of Kaldi. Cut 25 ms windows every 10 ms, only where a whole
# window fits. In each: remove the mean; *pre-emphasis*, $x_i - 0.97\, x_{i-1}$, lifts the high frequencies; a
# window that goes to zero at both ends. Then the power spectrum, the filters, the logarithm.


# %%
def log_mel(wave):  # (samples,) in -1..1 -> (frames, 80)
    frames = (wave * 32_768).unfold(0, 400, 160)  # Kaldi counts in 16-bit units
    frames = frames - frames.mean(1, keepdim=True)
    frames = frames - 0.97 * torch.cat([frames[:, :1], frames[:, :-1]], 1)
    frames = frames * torch.hann_window(400, periodic=False).pow(0.85)  # "Povey" window
    power = torch.fft.rfft(frames, n=512).abs().square()
    return (power @ filters).clamp_min(torch.finfo(torch.float32).eps).log()


# %% [markdown]
# Two witnesses: the package's module, which does whole batches at once, and torchaudio's port of Kaldi.

# %%
kaldi = torchaudio.compliance.kaldi.fbank(wave[None] * 32_768, num_mel_bins=80, dither=0.0)
ours, module = log_mel(wave), Fbank()(wave[None])[0]
difference = max((ours - kaldi).abs().max().item(), (module - kaldi).abs().max().item())
assert difference < 1e-2, difference
lesson.metric("fbank/largest difference from Kaldi", difference, unit="log energy")
print(
    f"{len(ours)} frames of 80; the largest difference from torchaudio's Kaldi features is {difference:.1e}"
)

# %% [markdown]
# What difference there is comes from the order of float operations; it shows in the quietest bins, where the
# logarithm magnifies. There is nothing in Fbank that could be trained, and nothing that could be lost with a
# checkpoint.

# %% [markdown]
# ## One frame for one frame
#
# A student learns frame by frame, so both front-ends must agree about what a frame is. Fbank comes at 100 Hz;
# one convolution of kernel 5, stride 2 and padding 2 makes 50 Hz of it, a *GLU* (half of the channels gate
# the other half) and a linear map follow. Is it the same number of frames as the CNN's seven convolutions
# give, for *every* length? Often a kit trims a frame here or there. Count instead: a convolution makes
# $\lfloor (n - k) / s \rfloor + 1$ frames of $n$.

# %%
samples = np.arange(400, 200_000)
by_cnn = samples
for kernel, stride in zip(KERNELS, STRIDES, strict=True):
    by_cnn = (by_cnn - kernel) // stride + 1
windows = (samples - 400) // 160 + 1  # Fbank at 100 Hz
by_fbank = (windows + 2 * 2 - 5) // 2 + 1  # padded by 2 on both sides
agree = (by_cnn == by_fbank) & (by_cnn == num_frames(samples))
lesson.metric("frames/share of lengths that agree", float(agree.mean()), unit="share")
print(f"{len(samples)} lengths, up to {samples[-1] / 16_000:.1f} s: {percent(agree.mean())} agree")
assert agree.all()

# %% [markdown]
# With a *centred* spectrogram, the default of most libraries, the counts would differ for most lengths, and a
# frame of the student would stand for another moment than the teacher's frame of the same number.

# %% [markdown]
# ## What padding does to a group norm
#
# Utterances of a batch are padded with zeros to one length. A model should not care: nobody's words should
# depend on their neighbours. Fbank frames and convolutions are local, and attention can be told where an
# utterance ends. One part of HuBERT cannot: after the first convolution stands a *group norm* with one group
# per channel. It normalises each channel by mean and variance **over all of time**, padding included:
#
# $$ y_{c,t} = \gamma_c \, \frac{x_{c,t} - \mu_c}{\sqrt{\sigma_c^2 + \varepsilon}} + \beta_c,
#    \qquad \mu_c, \sigma_c^2 \text{ over } t = 1 \dots T_\text{padded} $$
#
# Zeros pull $\sigma_c$ down, so what is real comes out louder. HuBERT Base was published like this; its
# output for an utterance changes with the batch that it is in. kdkit's `MaskedGroupNorm` takes the statistics
# over *real* frames: alone, an utterance gets the published model's features; in a batch it gets the same
# again.

# %% [markdown]
# Measure it. The same utterance alone, and with two seconds of zeros behind it; first the group norm itself.

# %%
padded = F.pad(waves, (0, 32_000))
plain = nn.GroupNorm(cnn.norm.num_channels, cnn.norm.num_channels)
plain.load_state_dict(cnn.norm.state_dict())
with torch.no_grad():
    alone, longer = cnn.convs[0](waves[:, None]), cnn.convs[0](padded[:, None])  # (1, C, T)
    real = torch.tensor([alone.shape[-1]])
    assert torch.allclose(plain(alone), cnn.norm(alone, real), atol=1e-4)  # one function without padding
    error_plain = (plain(longer)[..., : real[0]] - plain(alone)).abs().max()
    error_masked = (cnn.norm(longer, real)[..., : real[0]] - plain(alone)).abs().max()
print(f"largest change by padding: group norm {error_plain:.2e}, masked group norm {error_masked:.2e}")

# %% [markdown]
# One of the two numbers is float error, the other is not. And nothing but silence was added.

# %% [markdown]
# And at the end of the network, after twelve layers? We compare the teacher with either norm, and a Fbank
# student, as the relative change of the last hidden state. Expect float error for two of them.


# %%
@torch.no_grad()
def change_by_padding(model, masked):
    alone = model(waves, lengths).last
    features = model.front_end(padded, lengths, padded=masked)  # False: the plain group norm
    last = model.encode(features, num_frames(lengths)).last[:, : alone.shape[1]]
    return ((last - alone).norm() / alone.norm()).item()


# %%
waveform_model = teacher.model.cpu()
fbank_model, _ = lesson.student("tiny-dt-fbank")
changes = {
    "waveform CNN, group norm": change_by_padding(waveform_model, masked=False),
    "waveform CNN, masked group norm": change_by_padding(waveform_model, masked=True),
    "Fbank": change_by_padding(fbank_model.cpu(), masked=True),
}

# %%
rows = [{"front-end": name, "relative change": f"{change:.1e}"} for name, change in changes.items()]
lesson.table("padding", rows, "Change of the last hidden state when two seconds of zeros are added.")
for name, change in changes.items():
    lesson.metric(f"padding/{name.replace(',', '')}", change)
safe = max(changes["waveform CNN, masked group norm"], changes["Fbank"]) < 1e-3
text = f"Two seconds of padding move the teacher's last hidden state by {percent(changes['waveform CNN, group norm'])} "
text += "of its length with the plain group norm; with the masked norm, and with Fbank, by "
text += "float error only." if safe else "more than float error."
lesson.verdict("Padding does not change an utterance", "seen" if safe else "not seen", text)

# %% [markdown]
# Plainly: a group norm over time makes every frame depend on every sample, padding included; no attention
# mask behind it can repair that. Where kdkit runs HuBERT models on padded batches, it counts real frames
# only, and the result equals that of the utterance alone. The Fbank front-end has no such norm: its
# statistics are those of the corpus, fixed.

# %% [markdown]
# ## Parameters
#
# Count both front-ends in the deep & thin student, full size and tiny. The full-size saving should be the
# paper's 17 %: seven convolutions go, one comes. (In the tiny models the CNN is narrow, so there is less to
# save.)

# %%
counts, rows = {}, []
for name in ("dt-waveform", "dt-fbank", "tiny-dt-waveform", "tiny-dt-fbank"):
    with torch.device("meta"):  # shapes without memory
        model = SpeechModel(preset(name))
    counts[name] = parameter_count(model)
    row = {"student": name, "front-end": f"{parameter_count(model.front_end):,}"}
    rows.append(row | {"encoder": f"{parameter_count(model.encoder):,}", "all": f"{counts[name]:,}"})
lesson.table("parameters", rows, "Parameters of the deep & thin student.")

# %% [markdown]
# The encoders are equal to the last parameter, so the whole difference is in the front-end.

# %%
saved = 1 - counts["dt-fbank"] / counts["dt-waveform"]
saved_tiny = 1 - counts["tiny-dt-fbank"] / counts["tiny-dt-waveform"]
lesson.metric("parameters saved/full size", saved, unit="share")
lesson.metric("parameters saved/tiny", saved_tiny, unit="share")
matches = round(100 * saved) == 17
text = f"The full-size Fbank student has {percent(saved)} fewer parameters than its waveform twin (the paper: 17 %); "
text += f"for the tiny one it is {percent(saved_tiny)}."
lesson.verdict("The paper's 17 % fewer parameters", "seen" if matches else "not seen", text)

# %% [markdown]
# ## Speed
#
# Measured here, on this machine, now. Weights do not matter for speed, so random ones do. Machines have
# moods, so the models take turns, every round gives one ratio, and we report medians with quartiles. The
# first round warms up and is not counted. One utterance of 5 s, no batch: what somebody who waits for an
# answer feels.


# %%
@torch.inference_mode()
def race(models, seconds, rounds):  # {name: model} -> {name: (rounds,) seconds of computing}
    wave = torch.randn(1, round(16_000 * seconds), device=lesson.device) * 0.1
    lengths = torch.tensor([wave.shape[1]], device=lesson.device)
    times = {name: [] for name in models}
    for turn in range(rounds + 1):
        for name, model in models.items():
            began = time.perf_counter()
            model(wave, lengths, padded=False).last.sum().item()  # .item() waits for the device
            if turn:
                times[name].append(time.perf_counter() - began)
    return {name: np.array(t) for name, t in times.items()}


# %% [markdown]
# Models, lengths and rounds are arguments: try `race` with 1 s and with 20 s. Attention costs grow with the
# square of the length, front-ends in proportion.

# %%
names = ["tiny-teacher", "tiny-dt-waveform", "tiny-dt-fbank", "hubert-base", "dt-waveform", "dt-fbank"]
racers = {name: SpeechModel(preset(name)).eval().to(lesson.device) for name in names}
counts = {name: parameter_count(model) for name, model in racers.items()}
times = race(racers, seconds=5, rounds=size.speed_rounds)
del racers

# %%
rows = []
for name, t in times.items():
    low, median, high = 1e3 * np.quantile(t, [0.25, 0.5, 0.75])
    row = {"model": name, "parameters": f"{counts[name] / 1e6:.2f} M", "ms for 5 s": f"{median:.0f}"}
    rows.append(row | {"quartiles": f"{low:.0f} to {high:.0f}", "x real time": f"{5e3 / median:.0f}"})
    speeds = 5e3 / median, (5e3 / high, 5e3 / low)
    lesson.metric(f"speed/{name}", *speeds, "x real time", timing=True, note="quartiles")
where = f"{lesson.device}, {torch.get_num_threads()} threads"
lesson.table("speed", rows, f"Inference, one utterance of 5 s, float32, {where}.")

# %% [markdown]
# The quartiles say how far to trust a median on this machine today: if they are wide, something else is
# running.

# %%
systems = [{"name": n, "parameters": counts[n], "speed": 5 / np.median(t)} for n, t in times.items()]
figure = plots.size_and_speed(systems, "Parameters, and speed on this machine")
lesson.figure("speed", figure, "Parameters and speed of teachers and deep & thin students, 1 x 5 s.")

# %% [markdown]
# Parameters and speed are different things. The CNN holds a modest part of a student's parameters, but works
# at up to 16,000 positions a second, where the encoder works at 50.

# %% [markdown]
# Verdict on the "2x": every round gives a ratio of the twins' times; "better" when even the lower quartile is
# above 2.

# %%
for scale, words in (("", "full size"), ("tiny-", "tiny")):
    ratios = times[f"{scale}dt-waveform"] / times[f"{scale}dt-fbank"]
    low, median, high = np.quantile(ratios, [0.25, 0.5, 0.75])
    lesson.metric(f"speed-up/{words}", median, (low, high), "x", timing=True, note="quartiles")
    text = f"The Fbank student is {median:.1f} times as fast as its waveform twin (quartiles {low:.1f} to {high:.1f})."
    lesson.verdict(f"More than twice as fast {words}", outcome((low, high), (2, 2)), text)

# %% [markdown]
# The tiny CNN is narrow where it costs most, so the tiny ratio can be smaller than the full-size one.

# %% [markdown]
# ## Distil both twins, live
#
# The same teacher, steps, batches and seed; only the front-end differs. The waveform twin starts with the
# teacher's own CNN, the Fbank student must find out what sounds are from nothing. So expect the waveform twin
# ahead in these few steps, and the Fbank student to get through its steps faster.

# %%
recipe = TrainConfig(steps=size.twin_steps, lr=2e-3, seed=seed, log_every=max(1, size.twin_steps // 30))
batches = Batches(speech, size.seconds_per_batch, seed, cache=True)
logs, twins = {}, {}
for name in ("tiny-dt-waveform", "tiny-dt-fbank"):
    twins[name, "live"] = student = new_student(name, teacher.model, seed)
    if name.endswith("fbank"):
        student.front_end.set_statistics(*fbank_statistics(speech[:200]))
    task = DistillTask(student, teacher, DistillConfig(layer_wise(student.config, teacher.config)))
    folder = lesson.out / "training" / "03_fbank_front_end" / name
    logs[name] = train(task, batches, recipe, folder, resume=size.from_nothing, title=name)

# %%
labels = {"loss": "regression loss", "times_real_time": "seconds of speech per second"}
figure = plots.training_curves(logs, ("loss", "times_real_time"), labels, "Twins, distilled in this run")
lesson.figure("twins", figure, "Distillation of the same student with both front-ends, trained in this run.")
for name, log in logs.items():
    lesson.metric(f"twin loss/{name}", log[-1]["loss"])
    lesson.metric(f"twin training speed/{name}", log[-1]["times_real_time"], unit="x real time", timing=True)

# %% [markdown]
# Left, loss over steps: who learns more from a batch? Right, speed, teacher's forward pass included: who gets
# through more batches? For a student that must be trained for days, both count.

# %% [markdown]
# ## The price
#
# What do the twins know? The linear phone probe of lesson 1 on their last layer, on unseen voices, clean and
# with noise, reverberation and unseen accents (`test-other`). The live twins had equal steps. The shipped
# ones were distilled when the kit was made and **not trained in this run**; the table says for how many
# steps.

# %%
steps = {(name, "live"): recipe.steps for name in logs}
for name in logs if not size.from_nothing else ():
    twins[name, "shipped"], meta = lesson.student(name)
    steps[name, "shipped"] = meta["steps"]
tests = {"test-clean": test_speech, "test-other": other_speech}

# %% [markdown]
# Only the last layer is probed, the one that a recogniser will stand on, and Fbank + deltas beside it.


# %%
def sample(model, utterances, minutes, frames):
    return last_layer(collect(ModelLayers(model), subset(utterances, minutes), frames, seed))


probes = {}
for (name, age), model in twins.items():
    train_frames = sample(model, train_speech, size.probe_train_minutes, size.probe_frames)
    for split, test in tests.items():
        test_frames = sample(model, test, size.probe_test_minutes, size.probe_frames // 2)
        probes[name, age, split] = probe_layers(train_frames, test_frames, seed)

# %% [markdown]
# The same frames for all of them, so that whatever differs comes from the students.

# %%
rows = []
for (name, age, split), probe in probes.items():
    last, line = probe.layers[-1], probe.fbank
    score = last.accuracy, (last.low, last.high)
    lesson.metric(
        f"probe/{name} {age}/{split}", *score, "share", note=f"{steps[name, age]} distillation steps"
    )
    row = {"student": f"{name}, {age}", "steps": steps[name, age], "test set": split}
    rows.append(row | {"last layer": percent(*score), "Fbank + deltas": percent(line.accuracy)})
lesson.table("price", rows, "Frames of unseen voices whose phone a linear probe reads, 95 % intervals.")

# %% [markdown]
# Verdict: "marginal degradation" is a phrase; here is the difference in points, and whether the intervals
# overlap. Twins are compared at equal steps only.

# %%
for age, split in sorted({key[1:] for key in probes}):
    cnn, mel80 = (probes[name, age, split].layers[-1] for name in logs)
    equal = steps["tiny-dt-waveform", age] == steps["tiny-dt-fbank", age]
    text = f"{percent(mel80.accuracy)} with Fbank, {percent(cnn.accuracy)} with the waveform CNN, "
    text += f"{100 * (mel80.accuracy - cnn.accuracy):+.1f} points, after "
    text += " and ".join(str(steps[name, age]) for name in reversed(logs)) + " steps."
    result = outcome((mel80.low, mel80.high), (cnn.low, cnn.high)) if equal else "inconclusive"
    text += "" if equal else " The steps differ, so this says nothing about the front-ends."
    lesson.verdict(f"Fbank against waveform {age} twins on {split}", result, text)

# %% [markdown]
# ## What you have seen
#
# - Fbank is a few lines of arithmetic and a matrix of triangles, equal to Kaldi's.
# - Both front-ends make exactly the same frames, so nothing is ever trimmed.
# - A norm over time makes an utterance depend on its padding; statistics over real frames undo that.
# - What the swap saves, counted and timed on your machine, and what it costs.
#
# **Limits.** Speed is that of this machine, at one length, without a batch, in float32. The probe is not a
# recogniser: the price in word errors is lesson 4's. Synthetic speech has none of the accidents of
# microphones and rooms, `test-other` a few.
#
# **Readings.** The paper (arXiv 2210.15631); wav2vec 2.0, from which HuBERT has its CNN (arXiv 2006.11477);
# the Kaldi documentation on feature extraction.
#
# **Before:** [2. Distillation](02_distillation.ipynb). **Next:** [4. Low-resource
# fine-tuning](04_low_resource_finetuning.ipynb): the student learns to write.

# %%
lesson.finish()
