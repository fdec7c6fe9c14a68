# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 4. Low-resource fine-tuning: the student learns to write
#
# **Claim to test.** With few minutes of transcribed speech, a distilled student becomes a recogniser that
# makes far fewer errors than *the same network* trained from scratch on the same minutes for the same number
# of steps.
#
# **You will**
#
# - look at what a recogniser emits every 20 ms, and turn it into text by hand;
# - write the CTC loss as a sum over alignments, and the word error rate as an edit distance;
# - fine-tune a distilled student and its twin from scratch, live, on the same labels for the same steps;
# - run finished recognisers on voices nobody trained on, read and listen to their errors;
# - give one of them a dictionary and a language model, and see what that buys and what it cannot buy;
# - see how the error falls with minutes of labels, and whether the discriminative loss helps *more* when they
#   are few;
# - change one thing, the labels or the way they are learnt, and let a small study of your own judge it.
#
# **Device.** Any CPU; a GPU is used where there is one. **Minutes.** About two in profile `quick` on two cores;
# seconds in `smoke`. **Needs** nothing from other notebooks: the toy world's distilled students and recognisers ship
# with the kit, another world's are downloaded, or trained where a cell needs them.
#
# **Before.** What a distilled student is (notebook 02, "Heads" and "Training, live"); nothing of notebook 03.
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
seed = 0  # int: new weights, masking, the order of the speech
out = "runs/notebooks"  # str: run folder, relative to where the notebook runs
digits = ""  # str: folder of `kdkit prepare fsdd --out FOLDER` (real voices), or nothing

# %%
import copy
import random
import time
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from kdkit.common.errors import CheckpointError
from kdkit.common.wording import percent
from kdkit.distill import DistillConfig, DistillTask, default_pairs
from kdkit.fbank import fit_statistics
from kdkit.lessons import exercises, plots, sentences
from kdkit.lessons.experiments import (
    budgets_in,
    by_steps,
    compare,
    interaction,
    names_in,
    summary,
)
from kdkit.lessons.guesses import keep_guess
from kdkit.lessons.lesson import Lesson
from kdkit.lessons.rerun import study_in_cell, train_in_cell
from kdkit.lessons.trials import FineTunings
from kdkit.lessons.widgets import CTCViewer, TrainingDashboard, VoiceText
from kdkit.model.speech_model import parameter_count
from kdkit.recognition.ctc import CTCModel, CTCTask, trainable
from kdkit.recognition.decode import collapse, greedy, with_language_model
from kdkit.recognition.error_browser import error_browser
from kdkit.recognition.evaluate import emissions, evaluate
from kdkit.recognition.finetune import FineTuneConfig, from_scratch
from kdkit.recognition.lm import estimate
from kdkit.recognition.search import NEEDS_FLASHLIGHT, available
from kdkit.recognition.transcribe import locate_words
from kdkit.recognition.tune import tune
from kdkit.recognition.wer import compare as compare_scores
from kdkit.recognition.wer import describe_collapse
from kdkit.speech.audio import read_audio
from kdkit.speech.batches import Batches
from kdkit.speech.corpora.synthetic.grammar import sentence
from kdkit.speech.frames import num_frames
from kdkit.speech.manifest import read_manifest, subset
from kdkit.speech.text import VOCABULARY
from kdkit.students import new_student
from kdkit.teachers import load_teacher
from kdkit.training.recipe import TrainConfig

lesson = Lesson(
    "04_low_resource_finetuning", "From minutes of labels to a recogniser", profile, seed, out, world
)

# %% [markdown]
# ## Finished recognisers ●●●
#
# A *recogniser* is a speech model with one linear layer on top, the **CTC head**. At every frame it gives a
# score to each of 29 symbols: 26 letters, the apostrophe, `|` between words, and the *blank*, which says
# "nothing new here". Those of the toy world were fine-tuned when the kit was made, and are loaded here; in another
# world two are fine-tuned now, unless this run folder has them.

# %%
size = lesson.size
_, sw_waveform, _, sw_fbank = lesson.world.presets  # shallow & wide
train_speech, dev_speech, *test_speech = lesson.corpus("train", "dev", *lesson.world.tests)
tests = dict(zip(lesson.world.tests, test_speech, strict=True))
clean, clean_speech = next(iter(tests.items()))  # the first test set
(utterance,) = lesson.with_phones([min(clean_speech, key=lambda u: abs(u.duration - 3))])
published_lm = lesson.world.lm_files() if available() else None
shipped = lesson.recognisers()
print("symbols:", " ".join(VOCABULARY))

# %% [markdown]
# Every line says how a recogniser began: *pretrained* (the teacher), *distilled* (a student that learnt from
# it) or *scratch* (random numbers), and how many minutes of labels it saw.

# %% [markdown]
# ## What a recogniser emits ●●●
#
# One utterance of an unseen voice through a distilled student. Expect long runs of blanks, and short spikes:
# a letter is said *once*, somewhere within its sound, usually for a frame or two. Compare the spikes with the *phones*
# (speech sounds) above the picture.

# %%
wave = read_audio(utterance.audio)
distilled_ones = {
    name: meta["minutes"] for name, (_, meta) in shipped.items() if meta["start"] == "distilled"
}
viewed = max(distilled_ones, key=distilled_ones.get)  # the one with most labels
viewed_recogniser = recogniser = shipped[viewed][0]
with torch.no_grad():
    logits, frames = recogniser(wave[None], torch.tensor([len(wave)]))  # (1, T, 29), (1,)
lesson.audio("utterance", wave, f"An unseen voice says: “{utterance.text}”")

# %% [markdown]
# The speech is transcribed, and its phones have times, exact or estimated; but the recogniser was never told *when* a
# letter is said.

# %%
probabilities = logits[0].softmax(-1)
figure = plots.emissions(probabilities, VOCABULARY, utterance.phones)
lesson.figure(
    "emissions", figure, f"Emissions of the recogniser {viewed}, with the phones of the utterance."
)
blanks = (probabilities.argmax(-1) == 0).float().mean().item()
print(f"the blank is the best symbol in {percent(blanks)} of the frames")

# %% [markdown]
# The bottom row is the blank. Where two letters light up in one column, the recogniser is in doubt. Spelling
# is not pronunciation: find a silent letter, and see where it was put.

# %% [markdown]
# ## From emissions to text ●●●
#
# *Greedy decoding* takes the best symbol of every frame, merges repeats, and drops blanks, in that order. The
# blank, written `-` here, keeps double letters apart: `l l` is one l, `l - l` are two.

# %% [markdown]
# ### Exercise 1: greedy decoding
#
# *Difficulty 2 of 3, about eight minutes.* Write what the frames say. `VOCABULARY[number]` is the letter of a
# symbol; number 0 is the blank, and `|` stands between words.
#
# **Exercises** check themselves. Write into the cell and run it, then run the check beneath: it tries your
# answer on random cases, new ones each time, and says what it found. Hints and a solution are folded away. What
# you leave out the kit fills in, so the notebook runs to its end in any case.


# %% tags=["exercise"]
def write_out(ids):
    """Text of a list with the number of the best symbol of each frame, words separated by spaces."""
    # hint: A symbol is kept where it differs from the one before; the first has none before it.
    # hint: `ids[i - 1]` is the *last* symbol for i = 0.
    # hint: `" ".join(text.split())` leaves single spaces between words and none at the ends.
    # stub: return None  # your lines go here
    # solution
    merged = [symbol for i, symbol in enumerate(ids) if i == 0 or symbol != ids[i - 1]]
    letters = [VOCABULARY[symbol] for symbol in merged if symbol != 0]
    return " ".join("".join(letters).replace("|", " ").split())
    # end


# %%
write_out = exercises.check_write_out(write_out)

# %% [markdown]
# The utterance above, letter by letter, and against the package's decoder:

# %%
best = logits[0].argmax(-1).tolist()
assert [write_out(best)] == greedy(logits, frames)
print("frames    ", "".join(VOCABULARY[symbol] for symbol in best))
print("hypothesis", write_out(best))
print("reference ", utterance.text)

# %% [markdown]
# If the order were the other way round, first blanks out and then repeats merged, no word with a double
# letter could be written.

# %% [markdown]
# ## An alignment, after all ●
#
# Nobody told the recogniser when a letter is said, but it can be asked: among all paths that spell a text,
# the best one puts every letter somewhere (*forced alignment*, the Viterbi algorithm on the same graph). Here
# with the *reference*; `kdkit transcribe --format json` gives the times of its own words this way.

# %%
words = locate_words(logits[0].log_softmax(-1), utterance.text)
marks = [(word.start, word.word) for word in words]
figure = plots.emissions(probabilities, VOCABULARY, marks)
lesson.figure(
    "alignment", figure, "The same emissions with the reference's words where the best path says them."
)
first_sound = next(start for start, phone in utterance.phones if phone)
print(f"first word from {words[0].start:.2f} s; its sound begins at {first_sound:.2f} s")
print(", ".join(f"{word.word} {word.score:.2f}" for word in words))

# %% [markdown]
# The number behind a word is its *score*: the mean probability of its letters on that path, low where the
# recogniser would rather have written something else. It is not the probability that the word is right: on
# speech unlike its training speech a network can be sure and wrong.

# %% [markdown]
# ## CTC: a loss without an alignment ●●●
#
# The transcript says *what* was said, not *when*. *Connectionist temporal classification* (Graves et al.
# 2006) does not choose: a path $\pi$ names a symbol for each frame, $\mathcal{B}$ merges and drops as above,
# and the probability of a text $y$ is that of all its paths together:
#
# $$ P(y \mid x) = \sum_{\pi :\, \mathcal{B}(\pi) = y} \; \prod_{t=1}^{T} p_t(\pi_t),
#    \qquad L_\mathrm{CTC} = -\log P(y \mid x) $$
#
# For a toy of five frames and three symbols all paths can be listed. A real utterance has far too many, $29^T$; dynamic
# programming does the same sum in $O(T \cdot |y|)$ steps. Do they agree? (`collapse` is $\mathcal{B}$: your greedy
# decoding, with numbers for letters.)

# %%
toy = torch.randn(5, 3).log_softmax(-1)  # five frames; blank, a, b
text = (1, 1, 2)  # "aab"
paths = [path for path in product(range(3), repeat=5) if collapse(path) == list(text)]
total = sum(torch.exp(sum(toy[t, symbol] for t, symbol in enumerate(path))) for path in paths)

# %%
by_torch = F.ctc_loss(toy[:, None], torch.tensor([text]), torch.tensor([5]), torch.tensor([3]))
torch.testing.assert_close(-total.log() / len(text), by_torch)  # torch divides by the length of the text
for path in paths:
    print("".join("-ab"[symbol] for symbol in path), end="  ")
print(f"\n{len(paths)} of {3**5} paths say aab; loss {-total.log():.4f}")

# %% [markdown]
# The loss of a whole utterance is the same sum. Its gradient raises every path that spells the text, most of
# all those that are likely already: alignments sharpen by themselves, which is where the spikes come from.

# %% [markdown]
# ### Exercise 2: room for a text
#
# *Difficulty 1 of 3, about four minutes.* Where there are too few frames, no path spells the text, and the loss
# is infinite. How many frames does a text need at least? Look at the paths of *aab* above.


# %% tags=["exercise"]
def frames_needed(text):
    """The least number of frames in which CTC can write a text; the space is a symbol like any letter."""
    # hint: Every symbol needs a frame of its own.
    # hint: What has to stand between two equal letters in a row, so that they are not merged?
    # stub: return None  # your lines go here
    # solution
    doubles = sum(text[i] == text[i - 1] for i in range(1, len(text)))
    return len(text) + doubles
    # end


# %%
frames_needed = exercises.check_frames_needed(frames_needed)

# %%
from kdkit.speech.text import frames_needed as of_the_package

room = {u.id: num_frames(u.samples) / frames_needed(u.text) for u in clean_speech}
assert all(frames_needed(u.text) == of_the_package(VOCABULARY.encode(u.text)) for u in clean_speech)
print(f"{len(room)} utterances have {min(room.values()):.1f} times the frames that they need, or more")

# %% [markdown]
# At 50 frames a second there is room to spare. Somebody who speaks very fast, or a transcript of another
# utterance, may leave none: kdkit leaves such utterances out and says so.
#
# One thing more follows from the sum: early in training the easiest improvement is to say *blank* everywhere.
# A recogniser that writes nothing has not failed yet, it has just begun.
#
# How much blank *should* one expect before anything is known? The gradient of the loss tells: with respect to the
# logits, it is the probabilities that the recogniser gives minus those that the alignments ask for.

# %%
frames, written = (
    num_frames(clean_speech[0].samples),
    VOCABULARY.encode(clean_speech[0].text),
)
uniform = torch.zeros(frames, len(VOCABULARY), requires_grad=True)  # every symbol as likely as the next
log_likely, target = uniform.log_softmax(-1), torch.tensor([written])
F.ctc_loss(log_likely, target, (frames,), (len(written),), reduction="sum").backward()
believed = uniform.detach().softmax(-1)
aligned = (believed - uniform.grad)[:, 0].mean().item()
print(f'{frames} frames of "{clean_speech[0].text}", nothing known:')
print(
    f"{percent(believed[0, 0].item())} blank is believed, {percent(aligned)} blank is in the alignments"
)

# %% [markdown]
# A head whose weights are drawn by chance finds *some* letter likelier than the others in every frame. The loss can
# then fall for a while by saying that letter everywhere, and training may stay there: a recogniser that writes *e* for
# all it hears. `CTCModel` therefore begins with a bias that makes blank as likely as all letters together. All blank
# is a plateau too, but one that training leaves.

# %% [markdown]
# ## Counting errors ●●●
#
# The *word error rate* is the least number of substitutions, deletions and insertions that turn the
# hypothesis into the reference, divided by the number of reference words:
#
# $$ \mathrm{WER} = \frac{S + D + I}{N} $$
#
# The least number comes from a table: the cell for the first $i$ words of one and $j$ of the other needs only
# its three neighbours. The *character error rate* (CER) is the same with letters.

# %% [markdown]
# ### Exercise 3: the edit distance
#
# *Difficulty 3 of 3, about fifteen minutes.* One row of the table is enough to remember: the row of reference
# word $i$ is made from that of word $i - 1$.


# %% tags=["exercise"]
def edits(reference, hypothesis):
    """Least number of substitutions, deletions and insertions between two lists of words (or texts)."""
    # hint: Row 0 says what an empty reference costs: 0, 1, 2, ... insertions.
    # hint: Three ways into a cell: from above (the reference word is deleted), from the left (a word is inserted),
    #   both cost 1; from above left, which costs 1 only where the two words differ.
    # hint: Keep the old value above left before you overwrite it.
    # stub: return None  # your lines go here
    # solution
    row = list(range(len(hypothesis) + 1))
    for i, wanted in enumerate(reference, 1):
        diagonal, row[0] = row[0], i
        for j, found in enumerate(hypothesis, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (wanted != found))
    return row[-1]
    # end


# %%
edits = exercises.check_edits(edits)
print("kitten, sitting:", edits("kitten", "sitting"), "edits")

# %% [markdown]
# Each cell of the table is one `min`. Its last cell is the distance; the way back through it would say which
# words were substituted, deleted and inserted.

# %% [markdown]
# ### Exercise 4: the word error rate
#
# *Difficulty 1 of 3, about five minutes.* Of a whole test set, as a share (0.25 for 25 %).


# %% tags=["exercise"]
def word_error_rate(references, hypotheses):
    """All word errors over all reference words, for two lists of texts in the same order."""
    # hint: `text.split()` makes words of a text, and `edits` is yours.
    # hint: Sum first and divide once: the mean of the utterances' own rates is something else.
    # stub: return None  # your lines go here
    # solution
    errors = sum(edits(r.split(), h.split()) for r, h in zip(references, hypotheses, strict=True))
    return errors / sum(len(r.split()) for r in references)
    # end


# %%
word_error_rate = exercises.check_word_error_rate(word_error_rate)

# %% [markdown]
# `evaluate` transcribes, pairs up and counts (with jiwer), and adds a 95 % interval by drawing whole utterances
# again and again (bootstrap). Files that cannot be read are left out, with a warning.

# %%
result = evaluate(recogniser, clean_speech[:20], seed=seed).score
assert abs(word_error_rate(result.references, result.hypotheses) - result.wer) < 1e-9
print(f"{result.utterances} utterances, {result.words} words: {result}")

# %% [markdown]
# Twenty utterances give a wide interval, and halving it takes about four times as many. Keep that in mind whenever
# somebody compares two WERs without intervals.

# %% [markdown]
# ## Fine-tuning, live ●●●
#
# Two recognisers of one structure, shallow & wide, on the same labels, with the same recipe, seed and number of steps.
# One starts from the **distilled** student, the other **from scratch**. Nothing is frozen.
#
# In training, spans of frames and of channels are hidden (as in wav2vec 2.0), so that few labels are not learnt by
# heart, and every utterance goes through a random equaliser and noise, as if another microphone had recorded it.

# %%
structure = lesson.world.ready
labelled = trainable(subset(train_speech, size.finetune_minutes))
minutes = sum(u.duration for u in labelled) / 60
distilled, origin = lesson.student(structure)
scratch = new_student(structure, seed=seed)
fit_statistics(scratch, labelled)
print(
    f"{len(labelled)} utterances, {minutes:.1f} labelled minutes, {parameter_count(scratch):,} parameters"
)

# %% [markdown]
# Both have the same number of parameters. Where Fbank is normalised by the statistics of a corpus, both have them: that
# is no knowledge about speech. Whatever differs at the end comes from distillation.

# %% [markdown]
# The loss is torch's CTC loss per letter. The learning rate rises, stays and falls (*tri-stage*). Your guess: which of
# the two leaves the all-blank stage first, and which ends lower?

# %%
recipe = TrainConfig(
    steps=size.finetune_steps,
    lr=1e-3,
    warmup=0.1,
    schedule="tri-stage",
    weight_decay=0.01,
    seed=seed,
    log_every=max(1, size.finetune_steps // 40),
)

# %%
labels = {"loss": "CTC loss per letter", "blanks": "share of blank frames"}
board = TrainingDashboard(tuple(labels), labels)
board.show()

# %%
live, logs = {}, {}
for name, model in (("distilled", distilled), ("scratch", scratch)):
    torch.manual_seed(seed)  # the same CTC head for both
    live[name] = CTCModel(copy.deepcopy(model).requires_grad_(True))
    batches = Batches(labelled, FineTuneConfig.batch_seconds, seed, cache=size.at_hand)
    folder = lesson.out / "training" / "04_low_resource_finetuning" / name
    logs[name] = await board.train(name, CTCTask(live[name]), batches, recipe, folder)

# %%
figure = plots.training_curves(logs, ("loss", "blanks"), labels, "Fine-tuning, live")
lesson.figure(
    "live", figure, "The same structure, labels and steps: distilled start and scratch, trained here."
)

# %% [markdown]
# On the right is the share of frames whose best symbol is the blank. A new head's bias lets it start high; where it
# falls, the recogniser has begun to write.

# %%
lesson.text("live losses", sentences.first_to_write(logs))

# %% [markdown]
# Score both on unseen voices. A WER near 100 % here means "not there yet": look at the CER too, and at what
# they write.

# %%
live_scores = {
    (name, split): evaluate(recogniser, test, seed=seed).score
    for name, recogniser in live.items()
    for split, test in tests.items()
}
rows = []
for (name, split), result in live_scores.items():
    wer, cer = (result.wer, result.wer_interval), (result.cer, result.cer_interval)
    lesson.metric(f"live {name}/wer/{split}", *wer, "share")
    lesson.metric(f"live {name}/cer/{split}", *cer, "share")
    row = {"start": name, "test set": split, "WER": percent(*wer), "CER": percent(*cer)}
    rows.append(row | {"writes": result.hypotheses[0] or "(nothing)"})
lesson.table(
    "live", rows, f"Trained in this run: {recipe.steps} steps on {minutes:.0f} labelled minutes."
)

# %% [markdown]
# The last column shows the first test utterance as each of them writes it. Compare sounds, not words: which letters
# come first, those of loud vowels?

# %% [markdown]
# Which is better? A *paired* bootstrap judges both on the same drawn utterances, so that hard ones cancel.

# %%
live_changes = {
    split: compare_scores(live_scores["distilled", split], live_scores["scratch", split], seed)
    for split in tests
}
change = live_changes[clean]
low, high = (100 * end for end in change.interval)
print(f"distilled against scratch on {clean}: {change}")

# %% [markdown]
# ### Exercise 5: say what the interval says
#
# *Difficulty 1 of 3, about two minutes.* Is the distilled one "better", "worse", or is it "inconclusive"?

# %% tags=["exercise"]
# hint: Fewer errors are good, so a change below 0 is.
# hint: The middle decides nothing. Where does 0 lie: left of the interval, right of it, or inside?
# stub: my_verdict = None  # "better", "worse" or "inconclusive"
# solution
my_verdict = "better" if high < 0 else "worse" if low > 0 else "inconclusive"
# end

# %%
exercises.check_verdict(my_verdict, change.interval)

# %% [markdown]
# The same for every test set. When neither writes words yet, expect "inconclusive".

# %%
for split, change in live_changes.items():
    trouble = describe_collapse(live_scores["distilled", split].hypotheses)
    lesson.compare(f"Live distilled against live scratch on {split}", change, trouble)

# %% [markdown]
# ## The finished recognisers on the same test sets ●●
#
# They were trained on as many minutes and for as many steps as their lines above say: the toy world's when the kit was
# made, **not in this run**; another world's at the head of this notebook. All are run and scored here, on this machine,
# now: on the first test set, whose voices nobody trained on, and on the other, harder one (in the toy world with unseen
# accents, noise and reverberation). Your guess: who leads, and does everybody get worse on the harder one?

# %%
spoken = sum(u.duration for test in tests.values() for u in test)
results, speeds = {}, {}
for name, (recogniser, _) in shipped.items():
    began = time.perf_counter()
    results[name] = {split: evaluate(recogniser, test, seed=seed).score for split, test in tests.items()}
    speeds[name] = spoken / (time.perf_counter() - began)
    print(f"{name}: {results[name][clean]} on {clean}, at {speeds[name]:.0f} times real time")

# {distilled recogniser: {test set: it against the same network from scratch, on the same labels}}
twins = {}
kind = {(meta["system"], meta["start"], meta["minutes"]): name for name, (_, meta) in shipped.items()}
for (system, start, budget), name in kind.items():
    if start == "distilled" and (twin := kind.get((system, "scratch", budget))):
        twins[name] = {
            split: compare_scores(results[name][split], results[twin][split], seed) for split in tests
        }


# %% [markdown]
# Speed here is that of the whole recogniser in batches of like length: reading files, front-end, encoder, CTC
# head and greedy decoding.


# %%
def add_system(system, role, scores, model, source, labels, note, speed=None, against_scratch=None):
    title = system if role == "teacher" else f"{system} {role}"
    wer = {split: (r.wer, *r.wer_interval) for split, r in scores.items()}
    cer = {split: (r.cer, *r.cer_interval) for split, r in scores.items()}
    count = parameter_count(model)
    lesson.system(system, role, wer, cer, count, speed, source, labels, note, against_scratch)
    bars.append({"name": f"{title}, {labels}", "wer": wer, "source": source})
    row = {"system": title, "labels": labels, "trained": {"run": "here"}.get(source, source)}
    row |= {f"WER {split}": percent(r.wer, r.wer_interval) for split, r in scores.items()}
    rows.append(row | {f"CER {clean}": percent(scores[clean].cer)})


# %%
rows, bars = [], []
for name, (recogniser, meta) in shipped.items():
    role = meta["start"].replace("pretrained", "teacher")
    source, when = ("shipped", " before this run") if lesson.ships else ("run", "")
    note = f"{meta['steps']} steps{when}; scored in this run"
    labels = f"{meta['minutes']:g} min"
    paired = (speeds[name], twins.get(name))
    add_system(meta["system"], role, results[name], recogniser, source, labels, note, *paired)

# %% [markdown]
# The live pair joins the table when its distilled half writes words at all, which we take to be a WER under
# 90 %; above that it is a look at training, not a result.

# %%
for name, recogniser in live.items():
    if live_scores["distilled", clean].wer < 0.9:
        note = f"{recipe.steps} steps, trained and scored in this run"
        scores = {split: live_scores[name, split] for split in tests}
        change = live_changes if name == "distilled" else None
        labels = f"{minutes:.0f} min"
        add_system(f"{structure} live", name, scores, recogniser, "run", labels, note, None, change)

# %%
lesson.table(
    "recognisers", rows, "Recognisers scored in this run on unseen voices, and where they were trained."
)
figure = plots.wer_bars(bars)
lesson.figure("wer", figure, "WER on unseen voices, measured in this run; hatched: not trained in it.")

# %% [markdown]
# What became of your guess?

# %%
wers = {name: {split: results[name][split].wer for split in tests} for name in results}
lesson.text("clean and other", sentences.clean_and_other(wers))

# %% [markdown]
# A recogniser that loses much on the harder set has learnt its voices and rooms, not only the language.

# %% [markdown]
# ## Listen to the errors ●●
#
# For each test set the best, the median and the worst utterance of one finished student. Read the hypothesis
# while you listen: is it what you would have written if you did not know the words? A small recogniser spells
# what it hears; it has no dictionary.

# %%
for split, test in tests.items():
    result = results[viewed][split]
    order = np.argsort(np.divide(result.word_errors, result.word_counts), kind="stable")
    for word, i in (("best", order[0]), ("median", order[len(order) // 2]), ("worst", order[-1])):
        caption = f"{split}, {word}. Reference: “{result.references[i]}”. "
        caption += f"{viewed} writes: “{result.hypotheses[i]}”."
        lesson.audio(f"{split} {word}", read_audio(test[i].audio), caption)

# %% [markdown]
# Sort the errors into kinds as you listen: a sound misheard, a sound heard rightly and spelt wrongly, a word
# run into the next. Below are the worst dozen, word under word, and behind the triangle the words that are
# missed most often. (It is a page of the run folder too; `kdkit evaluate --errors` writes one of all errors.)

# %%
title = f"{viewed} on {clean}, greedy"
page = error_browser(results[viewed][clean], clean_speech, title, limit=12)
lesson.page("errors", page, f"Errors of {title}")

# %% [markdown]
# ## A dictionary and a language model ●●
#
# The recogniser spells what it hears. *Beam search* looks for the text with the best sum
#
# $$ \log P_\mathrm{CTC}(y \mid x) + \alpha \log_{10} P_\mathrm{LM}(y) + \beta\,|y| $$
#
# among texts made of the words of a *lexicon*. $P_\mathrm{LM}$ is a trigram model, which gives each word a probability
# after the two before it (interpolated modified Kneser-Ney); $|y|$ is here the number of words. Two language models,
# and where their text comes from matters:
#
# - **transcripts**: the labelled minutes of this run, nothing else;
# - **text**: *text without speech*, which is cheap in life too. In the toy world twenty thousand more sentences of its
#   grammar; in world `librispeech` the published model of 14,500 books, in one of your own the one that it names.
#
# Neither was given the test set. But the toy world's grammar is small: some short sentences occur in both by chance
# (the table counts them), and its few hundred words are soon all known. Real language is not so kind.

# %%
spoken_texts = [u.text.split() for u in labelled]
amount = 20_000 if lesson.profile != "smoke" else 500
more_text = [sentence(random.Random(f"text without speech {i}")).split() for i in range(amount)]
texts = {"transcripts": spoken_texts} | ({"text": more_text} if lesson.ships else {})
test_texts = [u.text.split() for u in clean_speech]
models, rows = {}, []
for name, text in texts.items():
    models[name], seen = estimate(text, order=3), {tuple(words) for words in text}
    row = {"language model": name, "sentences": len(text), "different words": len(models[name].words)}
    row |= {f"perplexity on {clean}": f"{models[name].perplexity(test_texts):.0f}"}
    row |= {f"words of {clean} unknown": percent(models[name].unknown(test_texts))}
    rows.append(row | {"its sentences seen": percent(np.mean([tuple(t) in seen for t in test_texts]))})
caption = "Trigram models. Perplexity: as uncertain as among so many equally likely words."
lesson.table("language models", rows, caption)

# %% [markdown]
# A property that every language model must have, and that is easily broken by a slip in the discounts: after
# *any* history the probabilities of all words sum to one.

# %%
for history in (["<s>"], ["the"], ["the", "red"], ["never", "heard"]):
    everything = [*models[name].words, "<unk>", "</s>"]
    total = sum(10 ** models[name].log10_of(word, history) for word in everything)
    assert abs(total - 1) < 1e-6, history
best_next = sorted(models[name].words, key=lambda w: -models[name].log10_of(w, ["to", "the"]))[:5]
print("to the ...", ", ".join(best_next))

# %% [markdown]
# The weights $\alpha$ and $\beta$ are chosen on *dev* speech, whose voices are neither in training nor in
# test. Choosing them on the test set would flatter every figure below.

# %%
jobs = 1 if lesson.profile == "smoke" else None  # None: all cores
searches = {}
if available():
    heard_dev = emissions(viewed_recogniser, dev_speech)
    for name, model in models.items():
        arpa = lesson.out / "training" / "04_low_resource_finetuning" / f"{name}.arpa"
        model.write(arpa)
        searches[name] = with_language_model(arpa)
    if published_lm:  # of the speech's own language
        arpa, words = published_lm
        searches["text"] = with_language_model(arpa, words and words.read_text().split())
    for name, search in searches.items():
        tuned = tune(search, heard_dev, (0.5, 1.0, 2.0, 3.0), (0.0, 1.0), jobs, progress=False)
        searches[name] = tuned.search
        print(f"{name}: {tuned}")
else:
    lesson.text("no beam search", f"Beam search is left out of this run: {NEEDS_FLASHLIGHT}.")

# %% [markdown]
# Now the test sets, with the weights as they are. Your guess: how many points does "text" bring on clean speech? And
# how many where the *sound* is the problem, and a language model may write fluent sentences that nobody said?

# %%
rows, decoded = [], {}
for split, test in tests.items():
    heard_test = emissions(viewed_recogniser, test)
    for name, decoder in {"greedy": greedy, **searches}.items():
        found = decoded[split, name] = evaluate(viewed_recogniser, heard_test, decoder, jobs, seed)
        wer, speakers = (found.score.wer, found.score.wer_interval), found.speaker_interval(seed)
        lesson.metric(f"{viewed} {name}/wer/{split}", *wer, "share")
        lesson.metric(f"{viewed} {name}/rtf/{split}", found.rtf, timing=True)
        row = {"test set": split, "decoding": name, "WER": percent(*wer)}
        row |= {"over speakers": f"{100 * speakers[0]:.1f} to {100 * speakers[1]:.1f}"}
        rows.append(row | {"CER": percent(found.score.cer), "real-time factor": f"{found.rtf:.3f}"})
caption = f"{viewed}: greedy against beam search with a language model, weights chosen on dev."
lesson.table(
    "decoding", rows, f"{caption} Real-time factor: seconds of computing for a second of speech."
)

# %% [markdown]
# "Over speakers" draws whole voices instead of utterances: what if other people spoke? With few voices that is a rough
# guess; expect it to be wider.

# %%
lm_changes = {name: {} for name in searches}
for split, name in product(tests, searches):
    change = compare_scores(decoded[split, name].score, decoded[split, "greedy"].score, seed)
    lm_changes[name][split] = change
    lesson.compare(f"Beam search with LM from {name} against greedy on {split}", change, f"{viewed}.")

# %% [markdown]
# With a language model words are either right or altogether different. Does the WER fall further than the CER?

# %%
for name in searches:
    before, after = (decoded[clean, way].score for way in ("greedy", name))
    text = sentences.words_and_characters(name, (before.wer, after.wer), (before.cer, after.cer))
    lesson.text(f"words and characters with LM from {name}", text)
    lesson.text(f"LM from {name} on both test sets", sentences.language_model(name, lm_changes[name]))

# %% [markdown]
# ## Look around: emissions, alternatives, errors ●
#
# One utterance after the other, worst first: what the recogniser emits, the best path under the blank's curve, its
# words, and below what a beam search with the language model of "text" would write instead. Find an error of the
# *ear* (another sound), one of *spelling*, and one that the language model made.

# %%
search = searches.get("text")
viewer = CTCViewer({name: r for name, (r, _) in shipped.items()}, clean_speech[:60], search)
viewer.update(recogniser=viewed, order="worst first")
lesson.widget("CTC viewer", viewer, "Emissions, blanks, best path and word times of one utterance.")

# %% [markdown]
# ## Your own voice ●
#
# Say the text below, or choose a sound file. You see the emissions, the words that were written and when, and beneath
# them the same of a synthetic voice that says the same. Deeper colour is a higher score. A guess first: how many of
# your words will a recogniser get that was trained on the voices of this world only?
#
# The sound goes to this notebook's kernel and nowhere else, and is in no output and no file unless you press *Save*. In
# VS Code, or where the page may not use a microphone, choose a file, or write `voice.use("speech.wav")`. Where nobody
# has recorded anything, as in the report, a third voice stands in for yours.

# %%
recognisers = {name: recogniser for name, (recogniser, _) in shipped.items()}
voice = VoiceText(recognisers, utterance.text, lesson.out / "own voice", viewed)
lesson.widget("own voice", voice, "What a recogniser writes of two voices that say the same.")

# %% [markdown]
# Run the next cell again after you have recorded yourself, or chosen another recogniser.

# %%
lesson.text("own voice", voice.sentence())

# %% [markdown]
# Which words come out right, and are they those with high scores? Speak slower, nearer, in another accent, or one of
# the words that the recogniser knows by heart, such as a number: what helps it, and what helps the next recogniser?

# %% [markdown]
# ## The experiment: minutes of labels ●●●
#
# How much do labels buy, and what does each start save? Shallow & wide students with Fbank and with waveform front-end
# begin from **scratch**, **distilled** with the regression loss only, or distilled with **both** losses
# ($\lambda = 1$); beside them stands the **teacher**. All are fine-tuned for equal steps on several label budgets: in
# the toy world the shorter is the beginning of the longer, elsewhere each is the world's own.
#
# Seeds draw the head, the masks, the order of the speech and what starts at random; the distilled students are the same
# in all of them. Scores are on ten minutes of the first test set.
#
# Profile `full` makes all of these fine-tunings here, `smoke` goes through the same cells in a few steps. In the other
# profiles the toy world's findings are **shipped**: trained and scored when the kit was made
# (`data_scripts/make_low_resource.py minutes`), not in this run.

# %%
starts = ("scratch", "distilled", "both")
structures = (sw_fbank,) if lesson.profile == "smoke" else (sw_fbank, sw_waveform)
teacher_way = "teacher pretrained"


# %% [markdown]
# The student with both losses is taken where it is, shipped or kept by an earlier run, and made otherwise.


# %%
def distil_both(structure):
    (unlabelled,) = lesson.corpus("unlabelled")
    teacher = lesson.teacher()
    student = new_student(structure, teacher.model, seed)
    fit_statistics(student, unlabelled[:500])
    losses = DistillConfig(default_pairs(student.config, teacher.config), discriminative_weight=1.0)
    steps = TrainConfig(steps=size.distill_steps, lr=lesson.world.lr, weight_decay=0.01, seed=seed)
    folder = lesson.out / "training" / "04_low_resource_finetuning" / f"{structure}-both"
    batches = Batches(unlabelled, size.seconds_per_batch, seed, cache=size.at_hand)
    train_in_cell(
        DistillTask(student, teacher, losses), batches, steps, folder, title=f"{structure}, both losses"
    )
    lesson.keep_student(f"{structure}-both", student, {"structure": structure, "steps": steps.steps})


def distilled_student(structure, start):
    name = structure if start == "distilled" else f"{structure}-both"
    try:
        return lesson.student(name)[0]
    except CheckpointError:
        if start == "distilled":
            raise
        distil_both(structure)
        return lesson.student(name)[0]


# %% [markdown]
# A *start* is a function of the labelled speech and the seed that gives the model to fine-tune.


# %%
def all_starts():
    source = lesson.world.teacher
    ways = (
        {}
        if lesson.profile == "smoke"
        else {teacher_way: lambda speech, seed: load_teacher(source).model}
    )
    for structure in structures:
        fresh = new_student(structure)
        ways[f"{structure} scratch"] = partial(from_scratch, fresh)
        for start in starts[1:]:
            base = distilled_student(structure, start)
            ways[f"{structure} {start}"] = lambda speech, seed, base=base: copy.deepcopy(base)
    return ways


if size.label_minutes:
    label_recipe = TrainConfig(
        steps=size.label_steps, lr=1e-3, warmup=0.1, hold=0.3, schedule="tri-stage", weight_decay=0.01
    )
    experiment = FineTunings(
        all_starts(),
        {minutes: lesson.world.labels(minutes) for minutes in size.label_minutes},
        subset(clean_speech, min(size.test_minutes, 10)),
        label_recipe,
    )
    folder = lesson.out / "training" / "04_low_resource_finetuning" / "low resource"
    findings, source = study_in_cell([experiment], size.label_seeds, folder, lesson.jobs), "run"
else:
    findings, source = lesson.shipped("low_resource"), "shipped"
label_budgets, ways = budgets_in(findings), names_in(findings)
label_seeds = {way: len({f.seed for f in findings if f.name == way}) for way in ways}
steps_taken = ", ".join(f"{steps:,}" for steps in sorted({f.steps for f in findings}))

# %% [markdown]
# Your guess before you look: which curve is lowest, does every curve fall with every budget, and at how many minutes
# is the distance between distilled and scratch widest?

# %%
curves = {way: [] for way in ways}
for way in ways:
    for budget in budgets_in(findings, way):
        found = summary(findings, way, budget)
        curves[way].append((budget, found.value, *found.interval))
for way, points in curves.items():
    for budget, wer, *interval in points:
        lesson.metric(f"minutes of labels/{way} {budget:g} min/wer", wer, interval, "share", source)
made = {"run": "made in this run", "shipped": "shipped findings"}[source]
if curves:
    figure = plots.wer_curves(curves, f"{clean}, unseen voices, {steps_taken} steps ({made})")
    caption = f"WER over labelled minutes, {made}; bands: 95 % intervals over utterances."
    lesson.figure("minutes", figure, caption)

# %%
rows = []
for way, points in curves.items():
    row = {"start": way, "seeds": label_seeds[way]} | dict.fromkeys(
        [f"{b:g} min" for b in label_budgets], ""
    )
    rows.append(row | {f"{budget:g} min": percent(wer, interval) for budget, wer, *interval in points})
if rows:
    lesson.table("minutes", rows, f"WER on {clean} by minutes of labels, {steps_taken} steps, {made}.")

# %% [markdown]
# Follow a distilled curve down to a few minutes, then find where the scratch curve of the same structure reaches
# that WER, if it does. The horizontal distance is what distillation saves in transcribing.

# %% [markdown]
# ## Verdict: distilled against scratch ●●●
#
# The claim, for every student and budget, paired over utterances and seeds; a change below 0 is fewer errors. "Better"
# asks two things: that the 95 % interval leaves 0 out, and that every seed agrees.

# %%
systems = list(dict.fromkeys(way.rpartition(" ")[0] for way in ways if way.endswith(" distilled")))
gains = {structure_: {} for structure_ in systems}
for structure_ in systems:
    ours, baseline = f"{structure_} distilled", f"{structure_} scratch"
    for budget in budgets_in(findings, ours, baseline):
        change = gains[structure_][budget] = compare(findings, ours, baseline, budget)
        name = f"{structure_} {budget:g} min distilled against scratch"
        lesson.compare(name, change, f"After {steps_taken} steps ({made}).", source)

# %% [markdown]
# What became of your guess?

# %%
if curves:
    lesson.text("curves", sentences.curves(curves))
for structure_, changes in gains.items() if curves else ():
    lesson.text(
        f"where distillation of {structure_} saves most", sentences.where_most(structure_, changes)
    )

# %% [markdown]
# ## The trap: judged too early ●●●
#
# All of this is after the same number of steps, and a start that learns *faster* looks *better* as long as the other
# one is still on its way. This kit's own first studies ended there. So the same two starts again, on few minutes of
# labels of *four* voices (with many voices, labels alone teach what a voice can be), each number of steps a training of
# its own. Shipped (`data_scripts/make_low_resource.py convergence`).
#
# Your guess: does scratch catch up when both train for longer and longer, or does the gap stay?

# %%
trained_longer = lesson.shipped("convergence")
pair = [f"{sw_fbank} {start}" for start in ("distilled", "scratch")]
settled, over_steps, rows = {}, {}, []
for budget in budgets_in(trained_longer, *pair) if trained_longer else ():
    settled[budget] = by_steps(trained_longer, *pair, budget)
    for steps, change in settled[budget].items():
        row = {"labels": f"{budget:g} min", "steps": f"{steps:,}"}
        for one in pair:
            found, start = summary(trained_longer, one, budget, steps), one.rpartition(" ")[2]
            curve = over_steps.setdefault(f"{budget:g} min {start}", [])
            curve.append((steps, found.value, *found.interval))
            row[start] = found
        row |= {"points": change.points, "each seed": change.each_seed}
        rows.append(row | {"still improving": ", ".join(change.unsettled), "verdict": change.verdict})
        name = f"{sw_fbank} distilled against scratch, {budget:g} min, after {steps:,} steps"
        lesson.compare(name, change, "Shipped.", "shipped")

# %%
if settled:
    figure = plots.wer_curves(
        over_steps, f"{sw_fbank}, labels of four voices (shipped)", over="steps of 16 s"
    )
    lesson.figure(
        "steps", figure, "WER over steps of fine-tuning; bands: 95 % intervals over utterances."
    )
    lesson.table("steps", rows, "The same two starts, trained for longer and longer; shipped.")
    for budget, changes in settled.items():
        text = f"{budget:g} min: {sentences.longer(changes)}"
        lesson.text(f"judged too early, {budget:g} min", text)

# %% [markdown]
# "Still improving" says that the same start is better after the next larger number of steps (in the last row: than
# after the one before). Such a comparison is no verdict, whatever its interval says.

# %% [markdown]
# ## Does the discriminative loss help more when labels are few? ●●
#
# The paper's claim. In numbers: what `both` changes against `distilled` (regression only) at the smallest budget, minus
# what it changes at the largest. Below zero it helps more when labels are few. The verdict can be no: "worse" when the
# 95 % interval lies above zero and every seed says so, "inconclusive" otherwise.

# %%
rows = []
for structure_ in systems:
    ours, baseline = f"{structure_} both", f"{structure_} distilled"
    shared = budgets_in(findings, ours, baseline)
    changes = {b: compare(findings, ours, baseline, b) for b in shared}
    row = {"structure": structure_} | dict.fromkeys([f"{b:g} min" for b in label_budgets], "")
    rows.append(
        row | {f"{b:g} min": f"{change.points}: {change.verdict}" for b, change in changes.items()}
    )
    if len(shared) > 1:
        few, many = shared[0], shared[-1]
        name = f"Discriminative loss with few labels: {structure_}, {few:g} against {many:g} min"
        text = f"With {few:g} min it changes {changes[few]}, with {many:g} min {changes[many]} ({made})."
        lesson.compare(name, interaction(findings, ours, baseline, few, many), text, source)
lesson.table(
    "both",
    rows,
    "Change of the WER by the second loss, in points, by minutes of labels; below 0 it helps.",
)

# %% [markdown]
# One distilled student stands for each loss here: another distillation, or another $\lambda$, could decide
# otherwise. The seeds speak for the fine-tuning only.

# %% [markdown]
# ## Trained for longer ●
#
# The toy world's finished recognisers had more steps, and more of them with more labels; one seed. The table is
# **shipped** too (`data_scripts/make_recognisers.py`). The number of steps stands in every row, because a fair
# comparison needs equal steps as well as equal labels.

# %%
card = {(r["system"], r["start"], r["minutes"], r["split"]): r for r in lesson.scores()}
rows = []
for system, start, budget, split in card:
    if split == "test-clean":
        both = [card[system, start, budget, split] for split in ("test-clean", "test-other")]
        row = {"system": system, "start": start, "labels": f"{budget:g} min", "steps": both[0]["steps"]}
        row |= {f"WER {r['split']}": percent(r["wer"], r["wer_interval"]) for r in both}
        rows.append(row | {"CER test-clean": percent(both[0]["cer"])})
if rows:
    lesson.table(
        "shipped scores", rows, "Shipped scores, measured when the kit was made, not in this run."
    )

# %% [markdown]
# Where both recognisers of a pair are at hand, the comparison can be made here and now, paired over the utterances of
# each test set.

# %%
for name, changes in twins.items():
    meta = shipped[name][1]
    for split, change in changes.items():
        pair = f"{meta['system']} {meta['minutes']:g} min distilled against scratch on {split} paired"
        lesson.compare(pair, change, "Scored in this run.")

# %% [markdown]
# ## Real human voices ●
#
# The same on people, where the Free Spoken Digit Dataset is there: `kdkit prepare fsdd --out data/digits` makes
# connected digit strings of it, with one speaker who is never heard in training, and parameter `digits` names that
# folder. A student (in the toy world one of *synthetic* voices) and its twin from scratch learn ten words from human
# voices, live. Without the data these cells do nothing.

# %%
human = {}
if digits:
    spoken_digits = {
        split: read_manifest(Path(digits) / f"strings-{split}.jsonl") for split in ("train", "test")
    }
    voices = {split: {u.speaker for u in speech} for split, speech in spoken_digits.items()}
    assert not voices["train"] & voices["test"], "the test speaker must not be heard in training"
    for start in ("scratch", "distilled"):
        speech = trainable(spoken_digits["train"])
        fresh = start == "scratch"
        model = from_scratch(scratch, speech, seed) if fresh else lesson.student(structure)[0]
        model.requires_grad_(True)
        torch.manual_seed(seed)
        one = CTCModel(model)
        batches = Batches(speech, FineTuneConfig.batch_seconds, seed, cache=size.at_hand)
        folder = lesson.out / "training" / "04_low_resource_finetuning" / f"digits-{start}"
        train_in_cell(CTCTask(one), batches, recipe, folder, title=f"digits, {start}")
        human[start] = evaluate(one, spoken_digits["test"], seed=seed)

# %%
for start, found in human.items():
    wer = (found.score.wer, found.score.wer_interval)
    lesson.metric(f"digits {start}/wer/held-out speaker", *wer, "share")
    print(f"{start}: WER {percent(*wer)} on {', '.join(sorted(set(found.speakers)))}")
if human:
    change = compare_scores(human["distilled"].score, human["scratch"].score, seed)
    lesson.compare("Distilled against scratch on human digits, unseen speaker", change)
    title = "human digits, unseen speaker"
    page = error_browser(human["distilled"].score, human["distilled"].utterances, title, limit=12)
    lesson.page("digit errors", page, f"Errors on {title}")

# %% [markdown]
# One speaker and one seed say little. The same with one speaker after the other held out, more steps and seeds, is
# **shipped** (`data_scripts/make_digits.py`), nothing of it trained in this run. Your guess: does a student of
# synthetic voices help as much on people as it did on its own kind?

# %%
rows = []
for speaker in ("jackson", "nicolas", "theo", "yweweler"):
    of_speaker = lesson.shipped(f"digits_{speaker}")
    for system in dict.fromkeys(name.rpartition(" ")[0] for name in names_in(of_speaker)):
        pair = [f"{system} {start}" for start in ("distilled", "scratch")]
        budget = max(budgets_in(of_speaker, *pair))
        change = compare(of_speaker, *pair, budget)
        row = {"held out": speaker, "student": system, "labels": f"{budget:g} min"}
        row |= {one.rpartition(" ")[2]: summary(of_speaker, one, budget) for one in pair}
        row |= {"points": change.points, "each seed": change.each_seed}
        rows.append(row | {"verdict": change.verdict})
        name = f"digits of {speaker}, {system} distilled against scratch, {budget:g} min"
        lesson.compare(name, change, "Shipped.", "shipped")
if rows:
    caption = "WER on people saying digits, of a speaker never heard in training; shipped."
    lesson.table("digits", rows, caption)

# %% [markdown]
# ## Your own experiment ●●
#
# **Change one thing**, **predict**, **run**, **read**: a study by your own question, with seeds. The standard trial is
# the distilled student on all labelled minutes of this profile. After so few steps words are not there yet, so letters
# are counted: the CER. Some ideas:
#
# | what | in the cell below |
# |---|---|
# | half of the labels, or a tenth | `my_minutes = minutes / 2` |
# | nothing is hidden in training | `my_config = FineTuneConfig(mask=None)` |
# | no equaliser, no noise | `my_config = FineTuneConfig(augmenting=None)` |
# | the front-end stays as it was distilled | `my_config = FineTuneConfig(front_end_rate=0.0)` |
# | from scratch | `my_start = partial(from_scratch, scratch)` |
# | another student: a preset, or a file | `my_start = start_from(load_teacher(...).model)` |
#
# Give each change a name of its own, `my_change`: results are kept by it. A study that you stop goes on when its cell
# runs again.


# %%
def start_from(student):
    return lambda speech, seed: copy.deepcopy(student)


standard_start = start_from(lesson.student(structure)[0])

my_change = "half of the labels"
my_minutes, my_start, my_config = minutes / 2, standard_start, FineTuneConfig()

# %% [markdown]
# Predict: is yours better than the standard one, by letters, or worse? What would "inconclusive" mean here: can half of
# the labels be as good as all of them, after few steps?

# %%
my_guess = None  # "better", "worse" or "inconclusive"

# %%
own_recipe = TrainConfig(
    steps=size.own_label_steps, lr=2e-3, warmup=0.1, hold=0.3, schedule="tri-stage", weight_decay=0.01
)
own_test = subset(clean_speech, min(size.test_minutes, 5))


def trial(name, start, minutes, config):
    budget = {minutes: subset(labelled, minutes)}
    return FineTunings({name: start}, budget, own_test, own_recipe, config, measure="CER")


both = [
    trial("standard", standard_start, minutes, FineTuneConfig()),
    trial(my_change, my_start, my_minutes, my_config),
]
folder = lesson.out / "training" / "04_low_resource_finetuning" / "own experiment"
counted = keep_guess(my_guess, both, size.study_seeds, folder)

# %%
own_findings = study_in_cell(both, size.study_seeds, folder, lesson.jobs)
seeds = ", ".join(map(str, size.study_seeds))
caption = f"Your own experiment: {own_recipe.steps} steps, seeds {seeds}; letters, not words."
lesson.study("own experiment", own_findings, caption)

# %%
found = compare(own_findings, my_change, "standard")
lesson.compare(
    f"Own experiment: {my_change} against standard", found, sentences.beside_guess(counted, found)
)

# %% [markdown]
# How often is each utterance heard in these steps? The less often, the less more labels can help. Does the answer
# change with four times the steps in `own_recipe`? A new guess comes first.

# %% [markdown]
# ## Quiz
#
# Five questions, about five minutes. No answer depends on the numbers of this run.

# %%
exercises.quiz("04_low_resource_finetuning")

# %% [markdown]
# ## What you have seen
#
# - A recogniser is a speech model with one linear layer; blanks and spikes are its way to write.
# - CTC sums over all alignments; greedy decoding reads off the best path; errors are counted by edit
#   distance.
# - The same network with and without distillation, on the same labels: live for a little while, and for longer; and why
#   a comparison says little while one of the two still improves.
# - What a lexicon and a language model add, with weights chosen on dev, on clean speech and on worse.
#
# **Limits.** Of the toy world, synthetic voices and a small grammar: its absolute error rates do not carry over to
# people. Intervals speak for more test utterances, not for other seeds of the training. In the toy world the language
# model's gain is that of a language with a few hundred words and a grammar: it says little about open language.
#
# **Readings.** Connectionist temporal classification (Graves et al. 2006); wav2vec 2.0, fine-tuning with
# masking (arXiv 2006.11477); Libri-Light, limited supervision (arXiv 1912.07875); the study this kit follows
# (arXiv 2210.15631).
#
# **Before:** [3. The Fbank front-end](03_fbank_front_end.ipynb). **Again from the start:** [1. Teacher
# probing](01_teacher_probing.ipynb).

# %%
lesson.finish()
