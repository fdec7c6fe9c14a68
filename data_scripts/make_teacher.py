"""Makes the tiny HuBERT teacher that ships with kdkit, from nothing but synthetic speech.

    python data_scripts/make_teacher.py --out runs/teacher            # everything; stop it and run it again at will
    python data_scripts/make_teacher.py --out runs/trial --steps 20 20 20 --minutes 5     # a minute, to see it work

Stages, each kept in OUT and skipped when it is there: the CNN learns to be a filterbank, k-means of MFCCs, first
iteration, k-means of a middle layer of the first network, second iteration (which starts from the weights of the
first), export to float16.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

from kdkit.audio import read_audio
from kdkit.batches import Batches
from kdkit.checkpoints import half
from kdkit.codebook import Codebook
from kdkit.corpora.synthetic import build_synthetic
from kdkit.distill import fbank_statistics
from kdkit.manifest import Utterance
from kdkit.models import SpeechModel, preset
from kdkit.pretrain import MFCC, FilterbankTask, Labels, PretrainTask, cluster
from kdkit.teachers import load_model, save_model
from kdkit.training import TrainConfig, train


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

        @torch.no_grad()
        def features(some: list[Utterance]):
            for batch in Batches(some, 64).epoch():
                output = model(batch.waves, batch.lengths)
                for utterance, hidden, n in zip(
                    batch.utterances, output.hidden[layer], output.frames, strict=True
                ):
                    yield utterance.id, hidden[:n]

        labels, _ = cluster(features, utterances, clusters, f"k-means of layer {layer} of iteration 1")
        labels.save(path)
    return Labels.load(path)


def filterbank(out: Path, utterances: list[Utterance], args: argparse.Namespace) -> Path:
    path = out / "model.safetensors"
    if not path.exists():
        torch.manual_seed(args.seed)
        model = SpeechModel(preset("tiny-teacher"))
        task = FilterbankTask(model, *fbank_statistics(utterances[:300]))
        recipe = TrainConfig(steps=args.steps[0], lr=3e-3, warmup=0.1, weight_decay=0.01, seed=args.seed)
        train(task, Batches(utterances, 32, args.seed), recipe, out, title=out.name)
        save_model(path, model, {})
    return path


def iteration(
    out: Path, utterances: list[Utterance], labels: Labels, steps: int, noise: float, start: Path, args
) -> Path:
    path = out / "model.safetensors"
    if not path.exists():
        torch.manual_seed(args.seed)
        model = load_model(start)[0].train()
        codebook = Codebook(model.config.dim, labels.clusters, proj=64)
        task = PretrainTask(model, codebook, labels, noise, args.visible_weight, args.mask, args.span)
        recipe = TrainConfig(
            steps=steps, lr=args.lr, warmup=0.04, weight_decay=0.01, seed=args.seed, log_every=25
        )
        batches, began = Batches(utterances, args.batch_seconds, args.seed, cache=True), time.time()
        log = train(task, batches, recipe, out, title=out.name)
        meta = {
            "iteration": out.name,
            "targets": labels.source,
            "steps": steps,
            "seconds": round(time.time() - began),
            "last": log[-1],
            "recipe": {name: value for name, value in vars(args).items() if name != "out"},
        }
        save_model(path, task.model, meta, task.codebook)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--out", type=Path, default=Path("runs/teacher"))
    add("--steps", type=int, nargs=3, default=(500, 4000, 8000), metavar=("CNN", "FIRST", "SECOND"))
    add("--minutes", type=float, default=600, help="minutes of unlabelled synthetic speech")
    add("--clusters", type=int, nargs=2, default=(100, 100), metavar=("FIRST", "SECOND"))
    add("--layer", type=int, default=7, help="layer whose k-means are the second targets")
    add("--lr", type=float, default=2e-3)
    add("--mask", type=float, default=0.5, help="share of frames that the hidden spans would cover")
    add("--span", type=int, default=5, help="frames of a hidden span")
    add(
        "--noise",
        type=float,
        nargs=2,
        default=(0.0, 0.25),
        metavar=("FIRST", "SECOND"),
        help="share of noisy input",
    )
    add("--visible-weight", type=float, default=1.0, help="weight of the loss on frames that are not hidden")
    add("--batch-seconds", type=float, default=16)
    add("--seed", type=int, default=0)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    speech = build_synthetic(minutes={"unlabelled": args.minutes})["unlabelled"]

    start = filterbank(args.out / "filterbank", speech, args)
    labels = mfcc_labels(speech, args.clusters[0], args.out / "labels1.safetensors")
    first = iteration(args.out / "iteration1", speech, labels, args.steps[1], args.noise[0], start, args)
    model = load_model(first)[0]
    labels = layer_labels(model, args.layer, speech, args.clusters[1], args.out / "labels2.safetensors")
    second = iteration(args.out / "iteration2", speech, labels, args.steps[2], args.noise[1], first, args)

    model, codebook, meta = load_model(second)
    save_model(args.out / "tiny_teacher.safetensors", model, meta, codebook, pack=half)
    print(f"teacher: {args.out / 'tiny_teacher.safetensors'}")


if __name__ == "__main__":
    main()
