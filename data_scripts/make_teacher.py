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
from pathlib import Path

import torch

from kdkit.fbank import fbank_statistics
from kdkit.model.checkpoints import half
from kdkit.model.codebook import Codebook
from kdkit.model.speech_model import SpeechModel, preset
from kdkit.speech.audio import read_audio
from kdkit.speech.batches import Batches
from kdkit.speech.corpora.synthetic.build import build_synthetic
from kdkit.speech.manifest import Utterance
from kdkit.teachers import load_model, save_model
from kdkit.teachers.pretrain import MFCC, FilterbankTask, Labels, PretrainTask, cluster, layer_features
from kdkit.training.loop import train
from kdkit.training.recipe import TrainConfig


def mfcc_labels(utterances: list[Utterance], clusters: int, path: Path) -> Labels:
    if not path.exists():
        mfcc, threads = MFCC(), torch.get_num_threads()
        torch.set_num_threads(1)  # an utterance is too little work to share out
        labels, _ = cluster(
            lambda some: ((u.id, mfcc(read_audio(u.audio))) for u in some),
            utterances,
            clusters,
            "k-means of MFCCs",
        )
        torch.set_num_threads(threads)
        labels.save(path)
    return Labels.load(path)


def layer_labels(
    model: SpeechModel, layer: int, utterances: list[Utterance], clusters: int, path: Path
) -> Labels:
    if not path.exists():
        source = f"k-means of layer {layer} of the iteration before"
        labels, _ = cluster(layer_features(model, layer), utterances, clusters, source)
        labels.save(path)
    return Labels.load(path)


def filterbank(out: Path, utterances: list[Utterance], args: argparse.Namespace) -> Path:
    path = out / "model.safetensors"
    if not path.exists():
        torch.manual_seed(args.seed)
        model = SpeechModel(preset("tiny-teacher"))
        task = FilterbankTask(model, *fbank_statistics(utterances[:300]))
        recipe = TrainConfig(steps=args.warm_up, lr=3e-3, warmup=0.1, weight_decay=0.01, seed=args.seed)
        batches, began = Batches(utterances, 32, args.seed), time.time()
        log = train(task, batches, recipe, out, title=out.name)
        stage = {"stage": out.name, "steps": recipe.steps, "batch_seconds": 32, "lr": recipe.lr}
        stage |= {"seed": args.seed, "seconds": round(time.time() - began), "last": log[-1]}
        save_model(path, model, {"history": [stage]})
    return path


def iteration(number: int, start: Path, utterances: list[Utterance], args: argparse.Namespace) -> Path:
    """Iteration ``number`` (0, 1, ...) of this run, from the weights in ``start``."""

    def setting(name: str):
        return getattr(args, name)[min(number, len(getattr(args, name)) - 1)]

    model, _, before = load_model(start)
    history = before["history"]
    name = f"iteration{sum('targets' in stage for stage in history) + 1}"
    out, clusters = args.out / name, setting("clusters")
    path, labelled = out / "model.safetensors", args.out / f"labels-{name}.safetensors"
    if path.exists():
        return path
    if name == "iteration1":
        labels = mfcc_labels(utterances, clusters, labelled)
    else:
        labels = layer_labels(model, setting("layer"), utterances, clusters, labelled)
    torch.manual_seed(args.seed)
    codebook = Codebook(model.config.dim, labels.clusters, proj=64)
    masking = {key: setting(key) for key in ("noise", "visible_weight", "mask", "span")}
    task = PretrainTask(model.train(), codebook, labels, **masking)
    recipe = TrainConfig(
        steps=setting("steps"), lr=setting("lr"), warmup=0.04, weight_decay=0.01, seed=args.seed, log_every=25
    )
    seconds = setting("batch_seconds")
    batches, began = Batches(utterances, seconds, args.seed + number, cache=True), time.time()
    log = train(task, batches, recipe, out, title=name)
    stage = masking | {
        "stage": name,
        "targets": labels.source,
        "clusters": clusters,
        "steps": recipe.steps,
        "batch_seconds": seconds,
        "lr": recipe.lr,
        "minutes": args.minutes,
        "seed": args.seed,
        "seconds": round(time.time() - began),
        "last": log[-1],
    }
    save_model(path, task.model, {"history": [*history, stage]}, task.codebook)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--out", type=Path, default=Path("runs/teacher"))
    add("--start", type=Path, help="go on from this teacher instead of from nothing")
    add("--warm-up", type=int, default=500, help="steps in which the CNN becomes a filterbank")
    add("--steps", type=int, nargs="+", default=(1700, 1400, 500, 1300), help="of each iteration")
    add("--minutes", type=float, default=600, help="minutes of unlabelled synthetic speech")
    add("--clusters", type=int, nargs="+", default=(100, 100, 200), help="targets of each iteration")
    add(
        "--layer",
        type=int,
        nargs="+",
        default=(0, 7, 4, 3),
        help="layer clustered for each iteration but the first",
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
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    speech = build_synthetic(minutes={"unlabelled": args.minutes})["unlabelled"]

    path = args.start or filterbank(args.out / "filterbank", speech, args)
    for number in range(len(args.steps)):
        path = iteration(number, path, speech, args)
    model, codebook, meta = load_model(path)
    save_model(args.out / "tiny_teacher.safetensors", model, meta, codebook, pack=half)
    print(f"teacher: {args.out / 'tiny_teacher.safetensors'}")


if __name__ == "__main__":
    main()
