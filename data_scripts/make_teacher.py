"""Makes the tiny HuBERT teacher that ships with kdkit, from nothing but synthetic speech.

    python data_scripts/make_teacher.py --out runs/teacher            # everything; stop it and run it again at will
    python data_scripts/make_teacher.py --out runs/trial --steps 20 20 --warm-up 20 --minutes 5     # see it work
    python data_scripts/make_teacher.py --out runs/more --start kdkit/assets/tiny_teacher.safetensors --steps 2000

Stages, each kept in OUT and skipped when it is there: the CNN learns to be a filterbank; the first iteration of masked
prediction has k-means of MFCCs as targets; every further one starts from the weights of the one before it, and has
k-means of one of that network's layers as targets; export to float16. With --start, all iterations are further ones.

An option that takes several values has one for each iteration; the last one stands for the iterations after it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from kdkit.commands.running import run
from kdkit.common.machine import best_device
from kdkit.common.parallel import each
from kdkit.fbank import fbank_statistics
from kdkit.model.checkpoints import half
from kdkit.model.codebook import Codebook
from kdkit.model.speech_model import SpeechModel, preset
from kdkit.probing import phone_probe
from kdkit.speech.audio import read_audio
from kdkit.speech.batches import Batches
from kdkit.speech.corpora.synthetic.build import build_synthetic
from kdkit.speech.manifest import Utterance
from kdkit.teachers import load_model, save_model
from kdkit.teachers.pretrain import MFCC, FilterbankTask, Labels, PretrainTask, cluster, layer_features
from kdkit.training.loop import train
from kdkit.training.recipe import TrainConfig

BEST = -1  # a layer


def mfcc_features(utterances: list[Utterance]) -> Iterator[tuple[str, Tensor]]:
    """MFCCs of every utterance, from all cores."""
    for some in each(_mfcc, [utterances[i : i + 200] for i in range(0, len(utterances), 200)]):
        yield from some


def _mfcc(utterances: list[Utterance]) -> list[tuple[str, Tensor]]:
    mfcc, threads = MFCC(), torch.get_num_threads()
    torch.set_num_threads(1)  # an utterance is too little work to share out
    found = [(u.id, mfcc(read_audio(u.audio))) for u in utterances]
    torch.set_num_threads(threads)
    return found


def mfcc_labels(utterances: list[Utterance], clusters: int, path: Path) -> Labels:
    if not path.exists():
        labels, _ = cluster(mfcc_features, utterances, clusters, "k-means of MFCCs")
        labels.save(path)
    return Labels.load(path)


def layer_labels(
    model: SpeechModel,
    layer: int,
    utterances: list[Utterance],
    clusters: int,
    path: Path,
    args: argparse.Namespace,
) -> Labels:
    """k-means of a layer (BEST: the one that a phone probe likes best)."""
    if not path.exists():
        model = model.to(best_device())
        if layer == BEST:
            judges = build_synthetic(minutes={"train": 5, "dev": 5}, version=args.corpus_version)
            layer = phone_probe(model, judges["train"], judges["dev"], args.frames, args.frames).best
        source = f"k-means of layer {layer} of the iteration before"
        features = layer_features(model, layer)
        labels, _ = cluster(features, utterances, clusters, source)
        labels.save(path)
    return Labels.load(path)


def speech(minutes: float, args: argparse.Namespace) -> list[Utterance]:
    return build_synthetic(minutes={"unlabelled": minutes}, version=args.corpus_version)["unlabelled"]


def filterbank(out: Path, utterances: list[Utterance], args: argparse.Namespace) -> Path:
    path = out / "model.safetensors"
    if not path.exists():
        torch.manual_seed(args.seed)
        size = {"dim": args.width, "ffn": 4 * args.width, "heads": args.width // 32}
        model = SpeechModel(replace(preset("tiny-teacher"), **size))
        task = FilterbankTask(model, *fbank_statistics(utterances[:300]))
        recipe = TrainConfig(steps=args.warm_up, lr=3e-3, warmup=0.1, weight_decay=0.01, seed=args.seed)
        batches, began = Batches(utterances, 32, args.seed), time.time()
        log = train(task, batches, recipe, out, title=out.name)
        stage = {"stage": out.name, "steps": recipe.steps, "batch_seconds": 32, "lr": recipe.lr}
        stage |= {"seed": args.seed, "seconds": round(time.time() - began), "last": log[-1]}
        save_model(path, model, {"history": [stage]})
    return path


def iteration(number: int, start: Path, args: argparse.Namespace) -> Path:
    """Iteration ``number`` (0, 1, ...) of this run, from the weights in ``start``."""

    def setting(name: str):
        return getattr(args, name)[min(number, len(getattr(args, name)) - 1)]

    model, _, meta = load_model(start)
    history = meta["history"]
    name = f"iteration{sum('targets' in stage for stage in history) + 1}"
    out, clusters = args.out / name, setting("clusters")
    path, labelled = out / "model.safetensors", args.out / f"labels-{name}.safetensors"
    if path.exists():
        return path
    utterances = speech(setting("minutes"), args)
    if name == "iteration1":
        labels = mfcc_labels(utterances, clusters, labelled)
    else:
        labels = layer_labels(model, setting("layer"), utterances, clusters, labelled, args)
    torch.manual_seed(args.seed)
    codebook = Codebook(model.config.dim, labels.clusters, proj=64)
    masking = {key: setting(key) for key in ("noise", "visible_weight", "mask", "span")}
    task = PretrainTask(model.train(), codebook, labels, **masking)
    recipe = TrainConfig(
        steps=setting("steps"), lr=setting("lr"), warmup=0.04, weight_decay=0.01, seed=args.seed, log_every=25
    )
    seconds = setting("batch_seconds")
    batches, began = Batches(utterances, seconds, args.seed + number, cache=True), time.time()
    hours = batches.seconds / batches.steps_per_epoch / 3600  # heard in a step
    before = sum(stage.get("hours", 0) for stage in history)
    marks = sorted(mark for mark in args.keep_hours if before < mark < before + hours * recipe.steps)

    def keep(rows: list[dict]) -> bool:
        heard = before + hours * rows[-1]["step"]
        if marks and heard >= marks[0]:
            save_model(
                args.out / f"heard_{marks.pop(0):g}.safetensors", task.model, {"hours": heard}, pack=half
            )
        return False

    log = train(task, batches, recipe, out, title=name, watch=keep)
    batches.close()
    stage = masking | {
        "stage": name,
        "targets": labels.source,
        "clusters": clusters,
        "steps": recipe.steps,
        "batch_seconds": seconds,
        "lr": recipe.lr,
        "minutes": setting("minutes"),
        "hours": round(hours * recipe.steps, 1),
        "seed": args.seed,
        "seconds": round(time.time() - began),
        "last": log[-1],
    }
    save_model(path, task.model, {"history": [*history, stage]}, task.codebook)
    return path


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--out", type=Path, default=Path("runs/teacher"))
    add("--start", type=Path, help="go on from this teacher instead of from nothing")
    add("--warm-up", type=int, default=500, help="steps in which the CNN becomes a filterbank")
    add("--steps", type=int, nargs="+", default=(1700, 1400, 500, 1300), help="of each iteration")
    add("--minutes", type=float, nargs="+", default=(600,), help="of unlabelled synthetic speech")
    add("--frames", type=int, default=5000, help=f"of the probe that chooses layer {BEST}")
    add("--corpus-version", type=int, default=1, help="of the synthetic speech")
    add(
        "--width",
        type=int,
        default=160,
        help="of the teacher, in steps of 32; heads have 32, FFNs four times as much",
    )
    add(
        "--keep-hours",
        type=float,
        nargs="*",
        default=(),
        help="also keep the weights after so many hours heard",
    )
    add("--clusters", type=int, nargs="+", default=(100, 100, 200), help="targets of each iteration")
    add(
        "--layer",
        type=int,
        nargs="+",
        default=(0, 7, 4, 3),
        help=f"layer clustered for each iteration but the first; {BEST}: the best one for phones",
    )
    add("--lr", type=float, nargs="+", default=(2e-3,))
    add(
        "--mask",
        type=float,
        nargs="+",
        default=(0.5, 0.5, 0.5, 0.6),
        help="share of frames that the hidden spans would cover",
    )
    add("--span", type=int, nargs="+", default=(5, 5, 5, 8), help="frames of a hidden span")
    add("--noise", type=float, nargs="+", default=(0.0, 0.25), help="share of noisy input")
    add(
        "--visible-weight",
        type=float,
        nargs="+",
        default=(1.0, 1.0, 1.0, 0.5),
        help="weight of the loss on frames not hidden",
    )
    add("--batch-seconds", type=float, nargs="+", default=(16, 16, 64))
    add("--seed", type=int, default=0)
    return parser


def make(args: argparse.Namespace) -> Path:
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.start or filterbank(args.out / "filterbank", speech(args.minutes[0], args), args)
    for number in range(len(args.steps)):
        path = iteration(number, path, args)
    model, codebook, meta = load_model(path)
    made = args.out / "tiny_teacher.safetensors"
    save_model(made, model, meta, codebook, pack=half)
    print(f"teacher: {made}")
    return made


if __name__ == "__main__":
    run(lambda: make(options().parse_args()))
