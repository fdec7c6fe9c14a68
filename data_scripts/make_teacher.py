"""Makes the tiny HuBERT teacher that ships with kdkit, from nothing but synthetic speech.

    python data_scripts/make_teacher.py --out runs/teacher            # everything; stop it and run it again at will
    python data_scripts/make_teacher.py --out /tmp/t --steps 20 20 --minutes 5     # a minute, to see it work

Stages, each kept in OUT and skipped when it is there: MFCC k-means, first iteration, k-means on a middle layer of the
first network, second iteration (which starts from the weights of the first), export to float16.
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
from kdkit.manifest import Utterance
from kdkit.models import SpeechModel, preset
from kdkit.pretrain import MFCC, Labels, PretrainTask, cluster
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


def iteration(out: Path, utterances, labels: Labels, steps: int, args, start: Path | None) -> Path:
    path = out / "model.safetensors"
    if not path.exists():
        torch.manual_seed(args.seed)
        config = preset("tiny-teacher")
        model = load_model(start)[0] if start else SpeechModel(config)
        task = PretrainTask(
            model, Codebook(config.dim, labels.clusters, proj=64), labels, visible_weight=args.visible_weight
        )
        recipe = TrainConfig(
            steps=steps,
            lr=args.lr,
            warmup=0.1,
            weight_decay=0.01,
            seed=args.seed,
            save_every=250,
            log_every=25,
        )
        began = time.time()
        log = train(
            task, Batches(utterances, args.batch_seconds, args.seed, cache=True), recipe, out, title=out.name
        )
        meta = {
            "iteration": out.name,
            "targets": labels.source,
            "steps": steps,
            "seconds": time.time() - began,
        }
        save_model(path, task.model, meta | {"last": log[-1]}, task.codebook)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/teacher"))
    parser.add_argument("--steps", type=int, nargs=2, default=(3500, 6000), metavar=("FIRST", "SECOND"))
    parser.add_argument("--minutes", type=float, default=600, help="minutes of unlabelled synthetic speech")
    parser.add_argument("--clusters", type=int, nargs=2, default=(100, 100), metavar=("FIRST", "SECOND"))
    parser.add_argument("--layer", type=int, default=7, help="layer whose k-means are the second targets")
    parser.add_argument("--lr", type=float, default=1.2e-3)
    parser.add_argument(
        "--visible-weight", type=float, default=1.0, help="weight of the loss on frames not hidden"
    )
    parser.add_argument("--batch-seconds", type=float, default=16)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    speech = build_synthetic(minutes={"unlabelled": args.minutes})["unlabelled"]

    labels = mfcc_labels(speech, args.clusters[0], args.out / "labels1.safetensors")
    first = iteration(args.out / "iteration1", speech, labels, args.steps[0], args, None)
    model = load_model(first)[0]
    labels = layer_labels(model, args.layer, speech, args.clusters[1], args.out / "labels2.safetensors")
    second = iteration(args.out / "iteration2", speech, labels, args.steps[1], args, first)

    model, codebook, meta = load_model(second)
    save_model(args.out / "tiny_teacher.safetensors", model, meta, codebook, pack=half)
    print(f"teacher: {args.out / 'tiny_teacher.safetensors'}")


if __name__ == "__main__":
    main()
