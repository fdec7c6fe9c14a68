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
# marginal performance degradation". Three claims; all three are counted or measured below.
#
# **You will**
#
# - see one utterance as waveform, as CNN features and as Fbank, side by side;
# - build Fbank from its definition, mel filters included, and check it against two implementations;
# - see why both front-ends give the same number of frames, for every length;
# - see what padding does to a group norm, and how to stop it;
# - count parameters, and measure speed in float32, bf16 and int8;
# - distil both twins live, with *front-end adaptation* on and off;
# - give a recogniser that has a CNN an Fbank front-end, without a label, and ask what all this costs in words;
# - change one setting of the front-end, and let a small study of your own judge it.
#
# **Device.** Any CPU; a GPU is used where there is one. **Minutes.** About three in profile `quick` on two cores,
# seconds in `smoke`. **Needs** nothing from other notebooks: the toy world's teacher and distilled twins ship with
# the kit, another world's are downloaded, or trained where a cell needs them.
#
# **Before.** What it means that a student learns hidden states (notebook 02, "The regression loss" and "Heads").
#
# **What to skip.** Dots say how much a section matters: ●●● core, what comes later rests on it; ●● useful, an idea of
# its own; ● extra, a look around or more of the same. Short of time, run every cell, read ●●●, and come back for the
# rest.
#
# **Words.** Terms are explained where they first occur, and all of them in the [glossary](../docs/glossary.md).

# %% [markdown]
# ## Set-up
#
# The first cell installs kdkit where it is missing; the second holds the parameters, which `kdkit report` overwrites.

# %% tags=["setup"]
# pair.py puts setup_cell.py here

# %% tags=["parameters"]
# str: "smoke" (does it run?), "quick" (a laptop), "colab" (one GPU), "full" (every study, hours), or
profile = "auto"  # "auto": "colab" where there is a GPU, else "quick"
# str: "toy" (nothing to download), "librispeech" (the paper's: HuBERT Base, 10 GB), a .toml or .json file
world = "auto"  # "auto": "librispeech" where there is a GPU, else "toy"; in "smoke" always "toy"
seed = 0  # int: new weights and the order of the speech
out = "runs/notebooks"  # str: run folder, relative to where the notebook runs

# %%
from dataclasses import replace

import kaldi_native_fbank
import numpy as np
import torch
import torch.nn.functional as F
from kdkit.bench.inference import bench_inference, ratio
from kdkit.common.statistics import verdict
from kdkit.common.wording import percent
from kdkit.distill import Adaptation, DistillConfig, DistillTask, default_pairs, layer_wise, swap_losses
from kdkit.fbank import Fbank, fit_statistics, mel_filterbank
from kdkit.lessons import exercises, plots, sentences
from kdkit.lessons.experiments import budgets_in, changes_over_steps, compare, summary
from kdkit.lessons.guesses import keep_guess
from kdkit.lessons.lesson import Lesson
from kdkit.lessons.rerun import study_in_cell, train_in_cell
from kdkit.lessons.trials import Distillations, Trial
from kdkit.lessons.widgets import FrontEndLab, TrainingDashboard
from kdkit.model.speech_model import SpeechModel, parameter_count, preset
from kdkit.model.waveform import KERNELS, STRIDES
from kdkit.probing import compare_probes, last_layer, probe_layers
from kdkit.probing.activations import ModelLayers, collect
from kdkit.recognition.ctc import CTCModel
from kdkit.recognition.evaluate import evaluate
from kdkit.speech.audio import read_audio
from kdkit.speech.batches import Batches
from kdkit.speech.frames import num_frames
from kdkit.speech.manifest import subset
from kdkit.students import new_student, swap_front_end
from kdkit.teachers import Teacher
from kdkit.training.recipe import TrainConfig
from torch import nn

lesson = Lesson(
    "03_fbank_front_end", "The Fbank front-end replaces the waveform CNN", profile, seed, out, world
)

# %% [markdown]
# ## The same sound, three ways ●●●
#
# The waveform is 16,000 numbers a second. The teacher's CNN turns it into 50 vectors a second that it has
# *learned*. Fbank turns it into 100 vectors a second by a *recipe* that is decades old: how loud is each band
# of frequencies?

# %%
size = lesson.size
dt_waveform, sw_waveform, dt_fbank, sw_fbank = lesson.world.presets  # deep & thin, shallow & wide
speech, *_ = lesson.corpus("unlabelled", "train", "dev")  # the others for a recogniser further down
lesson.world.fetch_finished()  # what is downloaded is there before anything is trained
train_speech, test_speech = lesson.speech()
tests = lesson.probe_tests()
utterance = min(test_speech, key=lambda u: abs(u.duration - 3))
wave = read_audio(utterance.audio)
lesson.audio("utterance", wave, f"An unseen voice says: “{utterance.text}”")

# %% [markdown]
# Listen first, then look: the three pictures below share one time axis with what you heard. What do the CNN's features
# and Fbank both show (silences, borders between phones), and what only one of them? Fbank's rows are frequencies, low
# ones at the bottom; the CNN's channels have no order at all.

# %%
teacher = lesson.teacher()
waves, lengths = wave[None], torch.tensor([len(wave)])
cnn = teacher.model.front_end.cnn.cpu()
features = cnn(waves, lengths)[0]  # (frames at 50 Hz, channels)
fbank = Fbank()(waves)[0]  # (frames at 100 Hz, 80)
figure = plots.aligned_features(wave, features, fbank, utterance.phones)
lesson.figure("three ways", figure, "One utterance as waveform, CNN features of the teacher, and Fbank.")

# %% [markdown]
# CNN channels are drawn standardised, so that quiet ones show too. Note the widths: Fbank has twice as many columns a
# second. One frame of a student will stand on a few of them.
#
# The paper's Fbank has 80 frequency bands, *bins*, and so has everything up to the section on padding. The toy world's
# students have fewer; *What holds Fbank back?* shows why.

# %% [markdown]
# ## The mel filters ●●
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


# %% [markdown]
# ### Exercise 1: a mel filterbank
#
# *Difficulty 3 of 3, about fifteen minutes.* Build the filters for any number of them, any sampling rate and
# any size of the spectrum; `mel` above is yours to use.
#
# **Exercises** check themselves. Write into the cell and run it, then run the check beneath: it tries your
# answer on random cases, new ones each time, and says what it found. Hints and a solution are folded away. What
# you leave out the kit fills in, so the notebook runs to its end in any case.


# %% tags=["exercise"]
def mel_filters(bins, fft, rate, low):
    """Triangular mel filters from ``low`` Hz to half the sampling ``rate``: float32 (fft // 2 + 1, bins).

    Bin k of the spectrum, 0 to fft // 2, lies at k * rate / fft Hz.
    """
    # hint: `bins` triangles stand on `bins + 2` points: `np.linspace(mel(low), mel(rate / 2), bins + 2)`.
    # hint: `points[:-2]`, `points[1:-1]` and `points[2:]` are left end, top and right end of all triangles at once.
    # hint: A column of mel values, `[:, None]`, against rows of points makes the whole table.
    # hint: `torch.from_numpy(...).float()` at the end.
    # stub: return None  # your lines go here
    # solution
    points = np.linspace(mel(low), mel(rate / 2), bins + 2)
    spectrum = mel(np.arange(fft // 2 + 1) * rate / fft)[
        :, None
    ]  # mel value of each bin of the spectrum
    rising = (spectrum - points[:-2]) / (points[1:-1] - points[:-2])
    falling = (points[2:] - spectrum) / (points[2:] - points[1:-1])
    return torch.from_numpy(np.minimum(rising, falling).clip(0)).float()
    # end


# %%
mel_filters = exercises.check_mel_filters(mel_filters)

# %% [markdown]
# The filters of Fbank: 80, on a spectrum of 512 points.

# %%
filters = mel_filters(80, 512, 16_000, 20)  # (257, 80)
filters[-1] = 0  # Kaldi leaves the bin at 8,000 Hz out
torch.testing.assert_close(filters, mel_filterbank())

# %% [markdown]
# The assertion compares with the package's filterbank. Every number of it follows from two formulas and four
# constants: 80 filters, 512 points, 20 Hz and half the sampling rate.

# %% [markdown]
# Expect narrow filters at the low end, so narrow that a filter may hold a single point of the spectrum, and broad ones
# at the high end.

# %%
lesson.figure(
    "mel", plots.mel_filters(filters), "The 80 mel filters over frequency, every fifth one in colour."
)

# %% [markdown]
# Where the ear hears fine differences there are many filters, where it does not there are few. That is
# knowledge about hearing, built in. HuBERT's CNN has to find something like it in the data; the toy world's teacher
# was shown it first.

# %% [markdown]
# ## Fbank, step by step ●
#
# The rest of the recipe, by the conventions of Kaldi. Cut 25 ms of sound every 10 ms, only where a whole window fits.
# From each window subtract its mean; lift the high frequencies by *pre-emphasis*, $x_i - 0.97\, x_{i-1}$; multiply by a
# function that goes to zero at both ends. Then the power spectrum, the filters, the logarithm.


# %%
def log_mel(wave):  # (samples,) in -1..1 -> (frames, 80)
    frames = (wave * 32_768).unfold(0, 400, 160)  # Kaldi counts in 16-bit units
    frames = frames - frames.mean(1, keepdim=True)
    frames = frames - 0.97 * torch.cat([frames[:, :1], frames[:, :-1]], 1)
    frames = frames * torch.hann_window(400, periodic=False).pow(0.85)  # "Povey" window
    power = torch.fft.rfft(frames, n=512).abs().square()
    return (power @ filters).clamp_min(torch.finfo(torch.float32).eps).log()


# %% [markdown]
# Two witnesses: the package's module, which does whole batches at once, and kaldi-native-fbank, Kaldi's own code in
# C++.

# %%
options = kaldi_native_fbank.FbankOptions()
options.frame_opts.dither, options.mel_opts.num_bins, options.energy_floor = 0.0, 80, 0.0
native = kaldi_native_fbank.OnlineFbank(options)
native.accept_waveform(16_000, (wave * 32_768).numpy())
native.input_finished()
kaldi = torch.tensor(np.stack([native.get_frame(t) for t in range(native.num_frames_ready)]))
ours, module = log_mel(wave), Fbank()(wave[None])[0]
difference = max((ours - kaldi).abs().max().item(), (module - kaldi).abs().max().item())
assert difference < 5e-2, difference  # of logarithms; in the quietest bins
lesson.metric("fbank/largest difference from Kaldi", difference, unit="log energy")
print(f"{len(ours)} frames of 80; the largest difference from Kaldi's features is {difference:.1e}")

# %% [markdown]
# What difference there is comes from the order of float operations; it shows in the quietest bins, where the
# logarithm magnifies. There is nothing in Fbank that could be trained, and nothing that could be lost with a
# checkpoint.

# %% [markdown]
# ## One frame for one frame ●●●
#
# A student learns frame by frame, so both front-ends must agree about what a frame is. Fbank comes at 100 Hz; one
# convolution of kernel 5, stride 2 and padding 2 makes 50 Hz of it. A *GLU* (gated linear unit: half of the channels,
# through a sigmoid, scale the other half) and a linear map follow.
#
# The toy world's students have a second convolution, before that one and without a stride, which changes no number of
# frames; *What holds Fbank back?* below shows why it is there.
#
# Are these as many frames as the CNN's seven convolutions give, for *every* length? Often a kit trims a frame here or
# there. Count instead.

# %% [markdown]
# ### Exercise 2: frames of a convolution
#
# *Difficulty 1 of 3, about five minutes.* A kernel of $k$ numbers slides over $n$ numbers in steps of $s$; with
# padding $p$, that many zeros stand at *both* ends. In how many places does it come to stand?


# %% tags=["exercise"]
def conv_frames(n, kernel, stride, padding=0):
    """Frames that a convolution makes of n (an int, or an array of them)."""
    # hint: Draw it for n = 7, kernel 3, stride 2: the kernel starts at 0, 2 and 4.
    # hint: The first place costs `kernel` numbers, each further one `stride`.
    # stub: return None  # your line goes here
    # solution
    return (n + 2 * padding - kernel) // stride + 1
    # end


# %%
conv_frames = exercises.check_conv_frames(conv_frames)

# %% [markdown]
# Both front-ends, at two hundred thousand lengths at once:

# %%
samples = np.arange(400, 200_000)
by_cnn = samples
for kernel, stride in zip(KERNELS, STRIDES, strict=True):
    by_cnn = conv_frames(by_cnn, kernel, stride)
windows = conv_frames(samples, 400, 160)  # Fbank at 100 Hz
by_fbank = conv_frames(windows, 5, 2, padding=2)
agree = (by_cnn == by_fbank) & (by_cnn == num_frames(samples))
lesson.metric("frames/share of lengths that agree", float(agree.mean()), unit="share")
print(f"{len(samples)} lengths, up to {samples[-1] / 16_000:.1f} s: {percent(agree.mean())} agree")
assert agree.all()

# %% [markdown]
# The same number is not enough: frame $t$ must stand for the same moment. Draw the stretch of sound that each
# frame has seen. Look for the middles: they should lie one under the other.

# %%
lesson.figure(
    "alignment",
    plots.frame_alignment(),
    "What each frame has seen: CNN, Fbank windows, and five of these.",
)
middle_cnn = 320 * np.arange(10) + 200  # samples
middle_fbank = 160 * (2 * np.arange(10)) + 200  # the middle one of its five windows
assert (middle_cnn == middle_fbank).all()
print("middles of the first frames:", ", ".join(f"{m / 16:.1f} ms" for m in middle_cnn[:4]))

sees_more = (4 * 160 + 400 - 400) / 2 / 16  # ms: five windows, 10 ms apart, against one
print(f"Fbank with one convolution sees {sees_more:.0f} ms more to either side, where there is sound")

# %% [markdown]
# With a *centred* spectrogram, the default of most libraries, the counts would differ for most lengths, and a
# frame of the student would stand for another moment than the teacher's frame of the same number.

# %% [markdown]
# ## What padding does to a group norm ●●
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
# over *real* frames: alone, an utterance gets the published model's features, and in a batch it gets the same.

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
# One of the two numbers is float error, the other is not, although nothing but silence was added.

# %% [markdown]
# And at the end of the network, after all layers? Compare the teacher with either norm, and an Fbank student, by the
# relative change of the last hidden state. Expect float error for two of them.


# %%
@torch.no_grad()
def change_by_padding(model, masked):
    alone = model(waves, lengths).last
    features = model.front_end(padded, lengths, padded=masked)  # False: the plain group norm
    last = model.encode(features, num_frames(lengths)).last[:, : alone.shape[1]]
    return ((last - alone).norm() / alone.norm()).item()


# %%
waveform_model = teacher.model.cpu()
fbank_model, _ = lesson.student(dt_fbank)
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
text = "Two seconds of padding move the teacher's last hidden state by "
text += f"{percent(changes['waveform CNN, group norm'])} of its length with the plain group norm; "
text += "with the masked norm, and with Fbank, by "
text += "float error only." if safe else "more than float error."
lesson.verdict("Padding does not change an utterance", "seen" if safe else "not seen", text)

# %% [markdown]
# Plainly: a group norm over time makes every frame depend on every sample, padding included; no attention mask behind
# it can repair that. Where kdkit runs HuBERT models on padded batches, the norm counts real frames only, and the
# result equals that of the utterance alone. The same holds for the kit's Fbank students, whose input is normalised by
# the mean and deviation of its own utterance: of its real frames.

# %% [markdown]
# ## What loudness does ●
#
# The same norm has a good side: it divides by the deviation of the channel, so the same words recorded at another
# level give the same features, as far as $\varepsilon$ is small beside $\sigma_c^2$. What does Fbank do? A gain of
# $g$ dB adds $g \ln(10) / 10$ to *every* log energy. Where Fbank is normalised by the mean and deviation of a corpus,
# these stay where they are; the mean of the utterance moves along. The utterance 20 dB quieter, and 20 dB louder:


# %%
@torch.no_grad()
def change_by_gain(model, decibels):
    plain, other = (model(gain * waves, lengths).last for gain in (1, 10 ** (decibels / 20)))
    return ((other - plain).norm() / plain.norm()).item()


# %%
by_corpus = SpeechModel(replace(fbank_model.config, normalisation="corpus"))  # the same weights
by_corpus.load_state_dict(fbank_model.state_dict())
fit_statistics(by_corpus, lesson.corpus("unlabelled")[0][:200])
rows, usual = [], cnn.norm.eps
for name, model, eps in (
    ("waveform CNN", waveform_model, usual),
    ("waveform CNN, smaller ε", waveform_model, 1e-12),
    ("Fbank, statistics of the corpus", by_corpus.eval(), usual),
    ("Fbank, of the utterance", fbank_model.cpu(), usual),
):
    cnn.norm.eps = eps
    quieter, louder = (change_by_gain(model, decibels) for decibels in (-20, 20))
    lesson.metric(f"loudness/{name.replace(',', '')}", quieter)
    rows.append({"front-end": name, "20 dB quieter": f"{quieter:.1e}", "20 dB louder": f"{louder:.1e}"})
cnn.norm.eps = usual
lesson.table("loudness", rows, "Relative change of the last hidden state when the level changes.")

# %% [markdown]
# Compare the first two rows: what the CNN does change when the sound is quiet is the work of $\varepsilon$
# alone. Where recordings differ in level, Fbank needs a front-end that normalises every utterance by itself
# (`normalisation="utterance"`, as here), or random gains in training (`kdkit finetune --gain 20`). The CNN did two
# things at once; whoever takes a part out should ask what else goes with it.

# %% [markdown]
# ## Parameters ●●●
#
# Count both front-ends, in the paper's deep & thin student and in this world's students. The paper's should save its
# 17 %: seven convolutions go, one comes. (The toy world's CNN is narrow, so there is less to save.)

# %%
counts, rows = {}, []
for name in dict.fromkeys(["dt-waveform", "dt-fbank", dt_waveform, dt_fbank, sw_waveform, sw_fbank]):
    with torch.device("meta"):  # shapes without memory
        model = SpeechModel(preset(name))
    counts[name] = parameter_count(model)
    row = {"student": name, "front-end": f"{parameter_count(model.front_end):,}"}
    rows.append(row | {"encoder": f"{parameter_count(model.encoder):,}", "all": f"{counts[name]:,}"})
lesson.table("parameters", rows, "Parameters of students with either front-end.")

# %% [markdown]
# The encoders of twins are equal to the last parameter, so the whole difference is in the front-end.

# %% [markdown]
# ### Exercise 3: read the table
#
# *Difficulty 1 of 3, about two minutes.* The paper's 17 % is of its deep & thin student. What does this world's
# *shallow & wide* student save, in per cent of its waveform twin? Its rows are the last two.

# %% tags=["exercise"]
# hint: What is saved, divided by what one had before, times 100.
# stub: my_saving = None  # per cent, a number
# solution
my_saving = 100 * (1 - counts[sw_fbank] / counts[sw_waveform])
# end

# %%
exercises.check_saving(my_saving, counts, sw_fbank)

# %%
scales = {"": "full size"} | (
    {lesson.world.students: lesson.world.name} if lesson.world.students else {}
)
saved = {}
for scale, words in scales.items():
    saved[words] = 1 - counts[f"{scale}dt-fbank"] / counts[f"{scale}dt-waveform"]
    lesson.metric(f"parameters saved/{words}", saved[words], unit="share")
matches = round(100 * saved["full size"]) == 17
text = (
    f"The full-size Fbank student has {percent(saved['full size'])} fewer parameters than its waveform "
)
text += "twin (the paper: 17 %)"
text += (
    "".join(f"; in world {name}, {percent(s)}" for name, s in saved.items() if name != "full size") + "."
)
lesson.verdict("The paper's 17 % fewer parameters", "seen" if matches else "not seen", text)

# %% [markdown]
# ## Speed ●●●
#
# Measured here, on this machine, now, with random weights, which change nothing about speed. Timings fluctuate, so the
# models take turns, every round gives one ratio, and we report medians with quartiles. One utterance of 5 s, no
# batch: the latency of a single request. (On a GPU it is a batch of 32: with a single utterance, launching kernels
# may take longer than computing them, and the time would be that of the number of layers.)
#
# *plain* is the model as it was trained; *fp32* the same function prepared for inference (`kdkit.model.inference`);
# *bf16* and *int8* are coarser numbers: half and a quarter of the memory, and faster where the processor supports
# them.

# %%
names = [lesson.world.teacher_preset, dt_waveform, dt_fbank]
names += (
    ["hubert-base", "dt-waveform", "dt-fbank"] if size.speed_full_size and lesson.world.students else []
)
kinds = ("plain", "fp32", "bf16", "int8")
count, what = (
    (1, "one utterance of 5 s") if lesson.device.type == "cpu" else (32, "32 utterances of 5 s at once")
)
races = bench_inference(names, kinds, shapes=((count, 5.0),), rounds=size.speed_rounds, peer=False)
speeds, timed = {}, {(race.name, race.precision): race for race in races}
for race in races:
    low, median, high = race.rtf
    speeds.setdefault(race.name, {})[race.precision] = (1 / high, 1 / median, 1 / low)
    quartiles = (1 / high, 1 / low)
    name = f"speed/{race.name} {race.precision}"
    lesson.metric(name, 1 / median, quartiles, "x real time", timing=True, note="quartiles")

# %%
threads = torch.get_num_threads()
where = f"{what}, {lesson.device}, {threads} thread" + "s" * (threads > 1)
figure = plots.speed_bars(speeds, where.capitalize())
lesson.figure("speed", figure, "Speed of teachers and deep & thin students in every precision.")

# %% [markdown]
# Where does the time go? Front-end and encoder apart: what the CNN costs, and what is left without it. (GMAC: billions
# of multiply-accumulate operations, the unit of work.)

# %%
rows = []
for race in races:
    front, whole = 1e3 * np.median(race.front_end), 1e3 * np.median(race.whole)
    row = {
        "model": race.name,
        "precision": race.precision,
        "parameters": f"{race.parameters / 1e6:.2f} M",
    }
    row |= {"GMAC for 1 s": f"{race.macs / 1e9:.3f}", "front-end, ms": f"{front:.1f}"}
    rows.append(
        row | {"encoder, ms": f"{whole - front:.1f}", "weights, MB": f"{1e3 * race.weights:.1f}"}
    )
lesson.table("speed", rows, f"Inference, {where}: medians.")

# %% [markdown]
# Parameters and speed are different things. The CNN holds a modest part of a student's parameters, but its first layer
# works at 3,200 positions a second (16,000 samples in steps of 5), where the encoder works at 50.

# %% [markdown]
# Verdict on the "2x", in every precision: every round gives a ratio of the twins' times; "better" when even
# the lower quartile is above 2.

# %%
for scale, words in scales.items():
    for kind in kinds:
        if (f"{scale}dt-fbank", kind) not in timed:
            continue  # a precision that this machine does not have
        twins_ratio = ratio(timed[f"{scale}dt-waveform", kind], timed[f"{scale}dt-fbank", kind])
        low, median, high = twins_ratio
        name = f"speed-up/{words} {kind}"
        lesson.metric(name, median, (low, high), "x", timing=True, note="quartiles")
        text = f"The Fbank student is {median:.1f} times as fast as its waveform twin "
        text += f"(quartiles {low:.1f} to {high:.1f})."
        lesson.verdict(f"More than twice as fast {words} {kind}", verdict((low - 2, high - 2)), text)

# %% [markdown]
# The toy world's CNN is narrow where it costs most, so its ratio can be smaller than the full-size one.
#
# And the student that one would deploy, in its fastest precision, against the teacher in *its* fastest:

# %%
best = {}
for (name, _), race in timed.items():
    if name not in best or np.median(race.whole) < np.median(best[name].whole):
        best[name] = race
for big, small in ((lesson.world.teacher_preset, dt_fbank), ("hubert-base", "dt-fbank"))[: len(scales)]:
    if big in best:
        low, median, high = ratio(best[big], best[small])
        lesson.metric(
            f"speed-up/{small} against {big}", median, (low, high), "x", timing=True, note="quartiles"
        )
        print(
            f"{small} ({best[small].precision}) is {median:.1f} times as fast as {big} "
            f"({best[big].precision}), "
            f"quartiles {low:.1f} to {high:.1f}"
        )

# %% [markdown]
# ## Distil both twins, live: front-end adaptation on and off ●●●
#
# The same teacher, steps, batches and seed; only the front-end differs. The waveform twin starts with the
# teacher's own CNN; the Fbank student's front-end starts at random, and its encoder must learn from features that
# mean nothing yet.
#
# Hence *front-end adaptation*, the paper's "simple and effective algorithm" (is it effective here? A study below asks).
# For the first $N$ steps nothing but the front-end $f_\theta$ learns, to give what the teacher's first layer gets,
# through a linear map $W$ that is thrown away:
#
# $$ L_\text{adapt} = \operatorname{mean} \bigl| W f_\theta(x) - H^0(x) \bigr| $$
#
# and after that the usual losses take over. Only front-ends are computed in these steps, so they cost little.
# The stage is part of the checkpoint: a run that is stopped in the middle goes on in its stage.

# %% [markdown]
# ### Exercise 4: the adaptation stage
#
# *Difficulty 2 of 3, about ten minutes.* Write the loss of step `step` (counted from 0) of such a run. The usual
# losses are a function, so that you can leave them uncomputed.


# %% tags=["exercise"]
def staged_loss(step, adaptation_steps, features, head, target, mask, usual_loss):
    """Loss of a step: adaptation in the first ``adaptation_steps``, then ``usual_loss()``; one number.

    ``features`` (B, T, D) is what the front-end gives, ``head(features)`` (B, T, E) the linear map of it,
    ``target`` (B, T, E) the teacher's H^0, ``mask`` (B, T) True on real frames.
    """
    # hint: With two steps of adaptation, steps 0 and 1 belong to it.
    # hint: The formula has the absolute difference alone; its mean runs over real frames, as in notebook 02.
    # hint: Call `usual_loss()` only where it is needed: it computes the whole network.
    # stub: return None  # your lines go here
    # solution
    if step < adaptation_steps:
        return (head(features)[mask] - target[mask]).abs().mean()
    return usual_loss()
    # end


# %%
staged_loss = exercises.check_staged_loss(staged_loss)

# %% [markdown]
# The package does the same in `DistillTask`. On one batch, in the first step and in the one after the stage:

# %%
batch = Batches(speech, size.seconds_per_batch, seed).batch(0)
student = new_student(dt_fbank, teacher.model, seed)
losses = DistillConfig(layer_wise(student.config, teacher.config), adaptation=Adaptation(2))
task = DistillTask(student, teacher, losses).eval()
target, frames = task.targets(task.prepare(batch), 0)[0], num_frames(batch.lengths)
mask = torch.arange(target.shape[1]) < frames[:, None]  # (B, T)
with torch.no_grad():
    features = student.front_end(batch.waves, batch.lengths)
    for step in (0, 2):
        task.schedule(step, 4)
        arguments = (step, 2, features, task.adaptation_head, target, mask)
        torch.testing.assert_close(staged_loss(*arguments, lambda: task(batch)[0]), task(batch)[0])

# %%
recipe = TrainConfig(
    steps=size.twin_steps, lr=lesson.world.lr, seed=seed, log_every=max(1, size.twin_steps // 30)
)
batches = Batches(speech, size.seconds_per_batch, seed, cache=size.at_hand)
adapted = f"{dt_fbank}, adapted"
labels = {"regression": "regression loss", "adaptation": "adaptation loss"}
board = TrainingDashboard(tuple(labels), labels)
board.show()

# %%
logs, twins = {}, {}
for name in (dt_waveform, dt_fbank, adapted):
    structure = name.removesuffix(", adapted")
    twins[name, "live"] = student = new_student(structure, teacher.model, seed)
    fit_statistics(student, speech[:200])
    losses = DistillConfig(layer_wise(student.config, teacher.config))
    stages = ()
    if name == adapted:
        losses = replace(losses, adaptation=Adaptation(size.adaptation_steps))
        stages = (size.adaptation_steps,)  # the learning rate starts anew after it
    task = DistillTask(student, teacher, losses)
    folder = lesson.out / "training" / "03_fbank_front_end" / name.replace(", ", "-")
    settings = replace(recipe, stages=stages)
    logs[name] = await board.train(name, task, batches, settings, folder)

# %%
labels |= {"times_real_time": "seconds of speech per second"}
figure = plots.training_curves(logs, tuple(labels), labels, "Twins, distilled in this run")
lesson.figure(
    "twins", figure, "Distillation with both front-ends and with adaptation, trained in this run."
)
for name, log in logs.items():
    lesson.metric(f"twin loss/{name}", log[-1]["regression"])
    lesson.metric(
        f"twin training speed/{name}", log[-1]["times_real_time"], unit="x real time", timing=True
    )

# %% [markdown]
# Left, the regression loss over steps: which student learns more from a batch? The adapted one starts later, its
# first steps went to the front-end (middle). Right, speed, the teacher's forward pass included.

# %% [markdown]
# What has a front-end learnt? The lab lays waveform, CNN and Fbank over one another, frame by frame: click to choose
# a frame and see what each of them has heard of it. Change bins and window, and read below the picture what happens
# to the number of frames and to their middles. Then choose a front-end and read how much of $H^0$ a linear map finds
# in it: compare the student that was adapted with the one that was not.

# %%
front_ends = {name: twins[name, "live"] for name in (dt_fbank, adapted)}
lab = FrontEndLab(teacher, test_speech[:16], front_ends).update(student=adapted)
lesson.widget(
    "front-end lab", lab, "Waveform, CNN and Fbank of one utterance, and what a front-end tells of H0."
)

# %% [markdown]
# One seed of a short run decides nothing. For the toy world the same comparison was run with more seeds when the kit
# was made (`data_scripts/make_study.py front-ends`): **shipped**, nothing of it was trained in this run. The steps of
# adaptation count, so that all had equal steps, except where they came *on top*; differences are against the Fbank
# student without adaptation.

# %%
caption = "Shipped study of front-ends: linear phone probe on the last layer of the deep & thin student."
front_end_study = lesson.shipped("study_front_ends")
lesson.study("study of front-ends, shipped", front_end_study, caption, "shipped")

# %% [markdown]
# Your guess: is adaptation worth its steps, when they are some of the steps that all have? And when they come on top?

# %%
changes = changes_over_steps(front_end_study)
for name, of_trial in changes.items():
    for steps, change in of_trial.items():
        title = f"{name} against no adaptation, {steps:,} steps"
        lesson.compare(title, change, "Shipped.", "shipped")

adapted_ones = {name: c[max(c)] for name, c in changes.items() if "adaptation" in name}
if adapted_ones:
    lesson.text("adaptation", sentences.adaptation(adapted_ones))

# %% [markdown]
# What adaptation alone reaches, followed by a long fine-tuning, is among the levers below.

# %% [markdown]
# ## The price ●●●
#
# What do the twins know? The linear phone probe of notebook 01 on their last layer, on unseen voices, clean and harder
# (`test-other`: in the toy world noise, reverberation and unseen accents). The live twins had equal steps. The toy
# world's shipped ones were made with the kit and **not trained in this run**: the waveform student was distilled from
# the teacher, and the Fbank student is that student with another front-end (*swap*, below).

# %%
steps, inherits = {(name, "live"): recipe.steps for name in logs}, ""
for name in (dt_waveform, dt_fbank) if lesson.ships else ():
    twins[name, "shipped"], meta = lesson.student(name)
    steps[name, "shipped"] = meta["steps"]
    if meta.get("teacher") == dt_waveform:  # its front-end was swapped
        inherits = f"The Fbank student learnt from its twin, {meta['steps']:,} steps after it."

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
# Verdict: "marginal degradation" is a phrase; here is the difference in points, paired over the utterances. Live twins
# are compared at equal steps only.

# %%
for age, split in sorted({key[1:] for key in probes}):
    mel_bins, cnn = (probes[name, age, split] for name in (dt_fbank, dt_waveform))
    took = [steps[name, age] for name in (dt_waveform, dt_fbank)]
    name = f"Fbank against waveform {age} twins on {split}"
    if age == "shipped" and inherits:
        lesson.compare(name, compare_probes(mel_bins, cnn), inherits)
    elif took[0] == took[1]:
        lesson.compare(name, compare_probes(mel_bins, cnn), f"After {took[0]:,} steps.")
    else:
        lesson.verdict(
            name,
            "inconclusive",
            f"The steps differ, {took[0]} and {took[1]}: this says nothing about the front-ends.",
        )

# %% [markdown]
# ### The price in words
#
# A *recogniser* is a student with one linear layer that gives every frame a letter or none. It is fine-tuned with
# *CTC*, a loss that sums over all ways to spread the letters of the transcript over the frames. Its *word error rate*
# (WER) counts the words that it substitutes, leaves out or adds, as a share of those that were said. Notebook 04
# derives both.
#
# Recognisers made of the toy world's students, fine-tuned and scored when the kit was made: **shipped** figures, greedy
# decoding (the best symbol of every frame), 95 % intervals over utterances. (In another world, what words cost is what
# the swap below finds.)

# %%
rows = []
for score in lesson.scores():
    if score["system"] == "teacher" or score["start"] not in ("distilled", "swapped"):
        continue
    row = {
        "student": score["system"],
        "start": score["start"],
        "labelled minutes": f"{score['minutes']:g}",
    }
    row |= {"test set": score["split"], "WER": percent(score["wer"], score["wer_interval"])}
    rows.append(row)
if rows:
    lesson.table(
        "price in words", rows, "Shipped: word error rate of fine-tuned students of both front-ends."
    )

# %% [markdown]
# Those have one seed, and their intervals are not paired. The study of few labels (**shipped**, notebook 04 shows all
# of it) has an Fbank and a waveform student, several seeds each, on the same test utterances, so here the difference
# itself gets an interval. Your guess: does Fbank cost words, and does the price fall with more labels?

# %%
few_labels = lesson.shipped("low_resource")
ours, theirs = (f"{student} distilled" for student in (sw_fbank, sw_waveform))
prices = {m: compare(few_labels, ours, theirs, m) for m in budgets_in(few_labels, ours, theirs)}
for minutes, price in prices.items():
    name = f"Fbank against waveform {sw_fbank.removesuffix('-fbank')} {minutes:g} min"
    lesson.compare(name, price, f"Shipped: {ours} against {theirs}.", "shipped")

# %%
if prices:
    lesson.text("does Fbank cost words", sentences.price(prices))

# %% [markdown]
# These are short fine-tunings, and the Fbank student had its twin to learn from (*swap*, below). Is it Fbank that costs
# or saves what the sentence says, or something of all this?

# %% [markdown]
# ### What holds Fbank back?
#
# Measured in the toy world when the kit was made (`data_scripts/fbank_levers.py`, on a GPU): ten minutes of labels of
# only *four* voices, so that what a student knows of voices comes from the teacher, and long fine-tuning: 6,000 steps
# of 16 s, with several seeds, which the table shows. One *lever* after the other is pulled on the Fbank student:
#
# - **slow**: in fine-tuning the front-end learns at a tenth of the rate;
# - **swap**: the front-end is put before the *waveform* student, adapted and distilled (the next section does it live);
# - **two convolutions** instead of one;
# - **utterance**: mean and variance of every utterance are taken out of its Fbank, not those of the corpus (remember
#   what loudness does);
# - **40 bins** instead of 80, and a floor under the energies, so that all silences are equally deep.
#
# The toy world's Fbank students have the last of these front-ends, with half the channels. The twin beside which they
# are drawn has no lever to pull: it is the waveform student, fine-tuned in the same way.
#
# Your guess before you run the cell: which one brings most, and does any of them reach the waveform twin?

# %%
LEVERS = {  # trial: (what it changes, against which trial)
    "fbank, scratch": ("Fbank student, not distilled", ""),
    "fbank": ("distilled from the teacher", "fbank, scratch"),
    "fbank, slow front-end": ("+ front-end at a tenth of the rate", "fbank"),
    "swap, deep, slow": ("+ swap, two convolutions", "fbank, slow front-end"),
    "swap, utterance, deep, slow": ("+ utterance normalisation", "swap, deep, slow"),
    "swap, best, slow": ("+ 40 bins, floor", "swap, utterance, deep, slow"),
    "swap, best": ("front-end at the full rate again", "swap, best, slow"),
    "shipped": ("half the channels: the kit's student", "swap, best"),
    "shipped, scratch": ("aside: the kit's student, not distilled", "shipped"),
    "swap, 40 bins, slow": ("aside: 40 bins, but one convolution, no floor", "swap, best, slow"),
    "adapted only, slow": ("aside: 600 steps of adaptation, no distillation", "swap, deep, slow"),
    "adapted longer, slow": ("aside: 4,000 steps of adaptation, no distillation", "swap, deep, slow"),
    "swap, best, long, slow": ("aside: four times as long", "swap, best, slow"),
}
levers = lesson.shipped("study_fbank_levers")
pulled = {
    name: compare(levers, name, against) for name, (_, against) in LEVERS.items() if levers and against
}

# %%
rows, points = [], []
for name, (what, against) in LEVERS.items() if levers else ():
    found, change = summary(levers, name), pulled.get(name)
    lesson.metric(f"levers/{name}", found.value, found.interval, "share", "shipped")
    points.append(
        {"name": what, "value": found.value, "interval": found.interval, "aside": "aside" in what}
    )
    parameters = next(f.parameters for f in levers if f.name == name)
    row = {"lever": what, "parameters": f"{parameters:,}", "WER": found}
    row |= {"against": LEVERS[against][0] if against else "", "points": change.points if change else ""}
    row["each seed"] = change.each_seed if change else ""
    rows.append(row | {"verdict": change.verdict if change else ""})

# %%
if levers:
    twin = summary(levers, "waveform")
    figure = plots.wer_points(
        points, ("waveform twin", twin.value, twin.interval), "Shipped; seeds: see the table"
    )
    lesson.figure(
        "levers", figure, "WER of the Fbank student, lever after lever; 95 % intervals over utterances."
    )
    lesson.table("levers", rows, "In numbers, every lever against the trial without it; shipped.")

# %%
if levers:
    before, after = (compare(levers, name, "waveform") for name in ("fbank", "swap, best"))
    size_of = {f.name: f"{f.parameters:,}" for f in levers}
    lesson.compare("Fbank against waveform, 6,000 steps: no lever", before, "Shipped.", "shipped")
    text = (
        f"Shipped. {size_of['swap, best']} parameters against {size_of['waveform']}. The best of these "
    )
    text += "front-ends was chosen on the same test speech, which flatters it."
    lesson.compare("Fbank against waveform, 6,000 steps: the best levers", after, text, "shipped")
    one_by_one = {LEVERS[name][0].lstrip("+− "): pulled[name] for name in list(LEVERS)[2:7]}
    lesson.text("what holds Fbank back", sentences.what_held_back(one_by_one, before, after))

# %% [markdown]
# So far the twin was the measure. And the same network that never saw a teacher? Guess again: of what the best
# front-end gains over the first, how much comes from the teacher, and how much does the front-end do alone?

# %%
if levers:
    first = compare(levers, "fbank", "fbank, scratch")
    best = compare(levers, "shipped", "shipped, scratch")
    lesson.compare(
        "Distilled against scratch, 6,000 steps: the first Fbank front-end", first, "Shipped.", "shipped"
    )
    lesson.compare(
        "Distilled against scratch, 6,000 steps: the best front-end", best, "Shipped.", "shipped"
    )
    lesson.text("what the teacher gave", sentences.what_the_teacher_gave(first, best))

# %% [markdown]
# ## Swap the front-end of a recogniser that is good already ●
#
# Somebody has a waveform recogniser and wants it fast. Distilling again from the big teacher is not needed. Keep
# encoder and CTC head, and put a new Fbank front-end before them. *Adapt* it to what the encoder is used to (no linear
# map in between: this very encoder will use it). Then let all of it follow the old model's hidden states for a while.
# That needs speech, but **no labels**.

# %%
kept = {
    name: r for name, (r, _) in lesson.recognisers().items() if r.model.config.front_end == "waveform"
}
old_name = min(kept, key=lambda name: parameter_count(kept[name]))  # the smallest one
old = kept[old_name]
old_model = old.model.cpu()
new_model = swap_front_end(old_model, seed, like=sw_fbank)
fit_statistics(new_model, speech[:200])
print(f"{old_name}: the new front-end has {parameter_count(new_model.front_end):,} parameters, ")
print(f"the old one {parameter_count(old_model.front_end):,}; the encoder is the same to the bit")

# %%
guide = Teacher(old_model.requires_grad_(False).eval(), None, old_name, {})
first_stage = max(1, size.swap_steps // 3)
swap_task = DistillTask(new_model, guide, swap_losses(old_model.config, first_stage))
swap_recipe = TrainConfig(
    steps=size.swap_steps,
    lr=lesson.world.lr,
    stages=(first_stage,),
    seed=seed,
    log_every=max(1, size.swap_steps // 30),
)
folder = lesson.out / "training" / "03_fbank_front_end" / "swap"
log = train_in_cell(swap_task, batches, swap_recipe, folder, title="swap")
labels = {"adaptation": "adaptation loss", "regression": "regression loss"}
figure = plots.training_curves(
    {"swap": log}, tuple(labels), labels, "The new front-end, trained in this run"
)
lesson.figure(
    "swap", figure, "First the front-end alone, then all of it, following the waveform recogniser."
)

# %% [markdown]
# Now the words. The same test speech for the old recogniser and the new one, which has never seen a label.

# %%
new = CTCModel(new_model)
new.head, new.mask_embedding = old.head, old.mask_embedding
rows = []
for split, test in tests.items():
    for name, recogniser in (("waveform, before", old), ("Fbank, after the swap", new)):
        result = evaluate(recogniser.to(lesson.device), test).score
        lesson.metric(f"swap/{name}/{split}", result.wer, result.wer_interval, "share")
        rows.append(
            {"recogniser": name, "test set": split, "WER": percent(result.wer, result.wer_interval)}
        )
caption = f"{old_name} and its swapped form after {size.swap_steps} steps of this run, without labels."
lesson.table("swap", rows, caption)

# %% [markdown]
# The toy world's shipped figures above have rows "swapped": a longer swap of this kind, of a recogniser. On the
# command line `kdkit swap RECOGNISER --out FOLDER` does it, and `kdkit export RECOGNISER --to onnx` makes one file of
# the result, Fbank included.

# %% [markdown]
# ## Your own experiment ●●
#
# **Change one thing**, **predict**, **run**, **read**: a study by your own question, with seeds. Both trials, yours and
# the standard one, learn from the same teacher by the same steps and batches. Some ideas:
#
# | what (the standard is the toy world's front-end) | in the cell below |
# |---|---|
# | mean and variance of the corpus, not of each utterance | `{"normalisation": "corpus"}` |
# | more bins, or fewer | `{"bins": 80}` |
# | no floor under the energies, or another one, in dB below the loudest | `{"fbank_floor": 0.0}` |
# | one convolution | `{"fbank_channels": 0}` |
# | no Fbank | `{"front_end": "waveform"}` |
# | adaptation before distillation | `my_losses = {"adaptation": Adaptation(10)}` |
#
# In another world the standard is the paper's front-end, which has 80 bins, no floor and one convolution already:
# change it the other way round.
#
# Give each change a name of its own, `my_change`: results are kept by it. A study that you stop goes on when its cell
# runs again.

# %%
my_change, my_settings = "statistics of the corpus", {"normalisation": "corpus"}  # name, of ModelConfig
my_losses = {}  # of DistillConfig

like = preset(sw_fbank)
pairs = default_pairs(like, teacher.config)
standard = Trial("standard", like, DistillConfig(pairs))
mine = Trial(my_change, replace(like, **my_settings), DistillConfig(pairs, **my_losses))

# %% [markdown]
# Predict: will more frames be read off the last layer of yours than off the standard one's? With so few steps and
# seeds, "inconclusive" is a guess, too.

# %%
my_guess = None  # "better", "worse" or "inconclusive"


# %%
def prepare(student):
    fit_statistics(student, speech[:200])


def judge(student):
    parts = ((train_speech, size.probe_train_minutes), (test_speech, size.probe_test_minutes))
    train_frames, test_frames = (sample(student, *part, size.probe_frames // 2) for part in parts)
    return probe_layers(train_frames, test_frames, seed)


def in_order_of(study_seed):
    return Batches(speech, size.seconds_per_batch, study_seed, cache=size.at_hand)


own_recipe = TrainConfig(
    steps=size.own_steps, lr=lesson.world.lr, log_every=max(1, size.own_steps // 20)
)
own_study = Distillations([standard, mine], teacher, judge, in_order_of, own_recipe, prepare)
folder = lesson.out / "training" / "03_fbank_front_end" / "own experiment"
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
# A student that learns faster in the first steps need not end better. Larger numbers in the place of `size.own_steps`
# and `size.study_seeds` make you surer; a new guess comes first.

# %% [markdown]
# ## Quiz
#
# Five questions, about five minutes. No answer depends on the numbers of this run.

# %%
exercises.quiz("03_fbank_front_end")

# %% [markdown]
# ## What you have seen
#
# - Fbank is a few lines of arithmetic and a matrix of triangles, equal to Kaldi's.
# - Both front-ends make exactly the same frames, so nothing is ever trimmed.
# - A norm over time makes an utterance depend on its padding; statistics over real frames undo that.
# - What Fbank saves, counted and timed on your machine in several precisions, and what it costs.
# - Front-end adaptation, and a front-end swapped without labels.
#
# **Limits.** Speed is that of this machine, at one length and size of batch; `kdkit bench inference` has more. The
# intervals of word errors speak for more test speech of the same voices, not for other seeds. The toy world's speech
# has none of the accidents of microphones and rooms, its `test-other` a few.
#
# **Readings.** The paper (arXiv 2210.15631); wav2vec 2.0, from which HuBERT has its CNN (arXiv 2006.11477);
# the Kaldi documentation on feature extraction.
#
# **Before:** [2. Distillation](02_distillation.ipynb). **Next:** [4. Low-resource
# fine-tuning](04_low_resource_finetuning.ipynb): the student learns to write.

# %%
lesson.finish()
