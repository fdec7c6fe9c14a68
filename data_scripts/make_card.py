"""Measures the shipped models and writes their model card, ASSETS/README.md, and the tables between the marks
"results" and "steps" in README.md and "digits" in docs/speech.md: no figure there is typed by hand.

    python data_scripts/make_card.py --assets kdkit/assets
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path

from kdkit.commands.running import run
from kdkit.common.files import sha256_of, write_text
from kdkit.common.wording import percent
from kdkit.lessons.experiments import (
    budgets_in,
    by_steps,
    compare,
    load_findings,
    names_in,
    study_rows,
    summary,
)
from kdkit.model.checkpoints import SUMS, load_checkpoint
from kdkit.model.speech_model import parameter_count
from kdkit.probing import held_out, layer_pnmi, probe_layers
from kdkit.probing.activations import ModelLayers, collect
from kdkit.speech.corpora.synthetic.build import build_synthetic
from kdkit.teachers import load_model

INTRODUCTION = """# Models shipped with kdkit

Tiny models, trained on nothing but synthetic speech (eSpeak NG), for lessons: they have at laptop size the parts and
the training of HuBERT Base and its students. They know one clear synthetic accent, others less, and people hardly.
Weights are float16 safetensors under the kit's MIT licence. Made by `data_scripts/make_teacher.py`, `make_students.py`
and `make_recognisers.py`; studies by `make_study.py`, `make_low_resource.py`, `make_digits.py` and `fbank_levers.py`;
this card by `make_card.py`.
"""


def table(rows: list[dict]) -> str:
    head = list(rows[0])
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(str(row[key]) for key in head) + " |" for row in rows]
    return "\n".join(lines).replace("\N{NO-BREAK SPACE}", " ")


def teacher_section(path: Path, splits: dict, frames: int) -> str:
    model, codebook, meta = load_model(path)
    extract = ModelLayers(model)
    kept, dev_speech = held_out(splits["train"])  # voices that choose the best layer
    train = collect(extract, kept, frames)
    dev, test = (collect(extract, part, frames // 2) for part in (dev_speech, splits["test-clean"]))
    probe, clusters = probe_layers(train, test, dev=dev), layer_pnmi(train, test)
    rows = [
        {
            "layer": score.name,
            "phone probe": percent(score.accuracy, (score.low, score.high)),
            "PNMI, 100 clusters": f"{cluster.pnmi:.3f}",
            "phone purity": f"{cluster.phone_purity:.3f}",
        }
        for score, cluster in zip((probe.fbank, probe.front_end, *probe.layers), clusters, strict=True)
    ]
    stages = [
        {
            "stage": stage["stage"],
            "targets": stage.get("targets", "Fbank energies"),
            "clusters": stage.get("clusters", ""),
            "steps": stage["steps"],
            "seconds of speech a step": stage.get("batch_seconds", 32),
            "masking": f"{stage['mask']:g} in spans of {stage['span']}" if "mask" in stage else "",
            "visible weight": stage.get("visible_weight", ""),
            "noisy share": stage.get("noise", ""),
            "minutes on one of 2 cores": f"{stage['seconds'] / 60:.0f}" + "*" * ("timed_again" in stage),
        }
        for stage in meta["history"]
    ]
    again = {stage["timed_again"] for stage in meta["history"] if "timed_again" in stage}
    timed_again = "".join(
        f"\n\\* Not timed when it was made: the same stage of the same command, run again on {day}, with the faster "
        "code of that day.\n"
        for day in sorted(again)
    )
    last = {name: round(value, 4) for name, value in meta["history"][-1]["last"].items()}
    return f"""## tiny_teacher.safetensors

{parameter_count(model):,} parameters, {model.config.layers} layers of width {model.config.dim}, codebook of
{len(codebook.label_embeddings)} clusters. Every iteration starts from the weights of the one before it:

{table(stages)}
{timed_again}
At the end of the last one: `{json.dumps(last)}`.

Linear phone probe on {probe.test_frames} frames of unseen voices (silence left out), 95 % intervals over utterances:

{table(rows)}

Best layer, chosen on other voices: H{probe.best}. Against Fbank + deltas: {probe.gain}.
"""


def student_section(paths: list[Path]) -> str:
    rows = []
    for path in paths:
        _, meta = load_checkpoint(path)
        rows.append(
            {
                "file": path.name,
                "parameters": f"{meta['parameters']:,}",
                "learnt from": {"tiny": "teacher"}.get(meta["teacher"], meta["teacher"]),
                "steps": meta["steps"],
                "minutes on one of 2 cores": f"{meta['seconds'] / 60:.0f}",
                "regression loss at the end": f"{meta['regression_loss']:.3f}",
            }
        )
    return f"## Distilled students\n\n{table(rows)}\n" if rows else ""


def recogniser_section(path: Path) -> str:
    if not path.exists():
        return ""
    scores = json.loads(path.read_text())
    rows = [
        {
            "system": row["system"],
            "start": row["start"] + "*" * ("head" in row),
            "labelled minutes": f"{row['minutes']:g}",
            "steps": f"{row['steps']}, other speeds" if row.get("speeds") else row["steps"],
            "split": row["split"],
            "WER, greedy": percent(row["wer"], row["wer_interval"]),
            "CER": percent(row["cer"]),
        }
        for row in scores
    ]
    old_heads = "".join(
        f"\n\\* Began with a head whose bias was {head}. Heads expect blanks since (`CTCModel` says why): "
        "the same command gives other numbers now.\n"
        for head in sorted({row["head"] for row in scores if "head" in row})
    )
    return f"""## Fine-tuned: `metrics.json`

One seed; 95 % intervals over utterances. Some of them are shipped as files: `recogniser_*.safetensors`. "Other
speeds": fine-tuned with speed perturbation.

{table(rows)}
{old_heads}"""


def write_headline(readme: Path, metrics: Path) -> None:
    """WER on test-clean by system and minutes of labels, between the marks in README.md."""
    scores = [row for row in json.loads(metrics.read_text()) if row["split"] == "test-clean"]
    budgets = sorted({row["minutes"] for row in scores})
    starts = {
        "pretrained": "pre-trained",
        "distilled": "distilled",
        "both": "distilled with both losses",
        "swapped": "front-end swapped without labels",
        "scratch": "from scratch",
    }
    rows = {}
    for score in scores:
        system = score["system"]
        name = f"{system}, {starts[score['start']]}"
        row = rows.setdefault(name, {"system": name, "parameters": f"{score['parameters'] / 1e6:.2f} M"})
        row |= {f"{minutes:g} min": row.get(f"{minutes:g} min", "") for minutes in budgets}
        row[f"{score['minutes']:g} min"] = percent(score["wer"], score["wer_interval"])
    write_between(readme, "results", table(list(rows.values())))


def write_between(readme: Path, mark: str, text: str) -> None:
    """Replaces what stands between <!-- mark --> and <!-- /mark -->."""
    before, rest = readme.read_text().split(f"<!-- {mark} -->")
    after = rest.split(f"<!-- /{mark} -->")[1]
    write_text(readme, f"{before}<!-- {mark} -->\n{text}\n<!-- /{mark} -->{after}")


def minutes_table(path: Path) -> str:
    """WER on test-clean by start and minutes of labels, at equal steps."""
    findings, rows = load_findings(path), []
    for start in names_in(findings):
        row = {"start": start, "seeds": len({f.seed for f in findings if f.name == start})}
        row |= {f"{minutes:g} min": "" for minutes in budgets_in(findings)}
        for minutes in budgets_in(findings, start):
            row[f"{minutes:g} min"] = str(summary(findings, start, minutes))
        rows.append(row)
    return table(rows)


def minutes_section(path: Path) -> str:
    if not path.exists():
        return ""
    steps = ", ".join(f"{steps:,}" for steps in sorted({f.steps for f in load_findings(path)}))
    return f"""## WER over minutes of labels: `{path.name}`

{steps} steps from every start, on nested label budgets; greedy decoding of test-clean, mean over the seeds, 95 %
intervals over utterances. Seeds draw the head, the masks and the order of the speech; the distilled students are the
same in all of them. Made by `make_low_resource.py minutes`.

{minutes_table(path)}
"""


def convergence_table(path: Path) -> str:
    """WER on test-clean by steps: distilled against scratch, and whether that is a verdict already."""
    findings, rows = load_findings(path), []
    for system in dict.fromkeys(name.rpartition(" ")[0] for name in names_in(findings)):
        ours, baseline = f"{system} distilled", f"{system} scratch"
        for minutes in budgets_in(findings, ours, baseline):
            for steps, change in by_steps(findings, ours, baseline, minutes).items():
                row = {"system": system, "labels": f"{minutes:g} min", "steps": f"{steps:,}"}
                row |= {"seeds": len(change.seeds)}
                for one in (ours, baseline):
                    row[one.rpartition(" ")[2]] = str(summary(findings, one, minutes, steps))
                row |= {"difference, points": change.points, "still improving": ", ".join(change.unsettled)}
                rows.append(row | {"verdict": change.verdict})
    return table(rows)


def convergence_section(path: Path) -> str:
    if not path.exists():
        return ""
    return f"""## WER over steps: `{path.name}`

Few minutes of labels of four voices, speed perturbation; every number of steps is a training of its own. Greedy
decoding of test-clean, mean over the seeds, 95 % intervals over utterances. "Still improving": better after the next
larger number of steps, or in the last row than after the one before; such a row is no verdict. Made by
`make_low_resource.py convergence`.

{convergence_table(path)}
"""


def digits_rows(path: Path) -> list[dict]:
    """One held-out speaker: WER by minutes of labels, student and start, and "distilled" against "scratch"."""
    findings, rows = load_findings(path), []
    for minutes in budgets_in(findings):
        for name in sorted({f.name for f in findings if f.minutes == minutes}):
            student, _, start = name.rpartition(" ")
            found = summary(findings, name, minutes)
            change = compare(findings, name, f"{student} scratch", minutes) if start != "scratch" else None
            row = {
                "held out": path.stem.removeprefix("digits_"),
                "labels": f"{minutes:g} min",
                "student": student,
                "start": start,
                "WER": str(found),
                "WER of each seed": found.each_seed,
                "difference, points": change.points if change else "",
                "each seed": change.each_seed if change else "",
                "verdict": change.verdict if change else "",
            }
            rows.append(row)
    return rows


def digits_table(assets: Path) -> str:
    """The same in short: a row for every held-out speaker, budget and student."""
    rows = {}
    for one in (one for path in sorted(assets.glob("digits_*.json")) for one in digits_rows(path)):
        case = {key: one[key] for key in ("held out", "labels", "student")}
        row = rows.setdefault(tuple(case.values()), case)
        row["seeds"] = len(one["WER of each seed"].split(", "))
        row[one["start"]] = one["WER"]
        row |= {key: one[key] for key in ("difference, points", "verdict") if one[key]}
    columns = (
        "held out",
        "labels",
        "student",
        "seeds",
        "distilled",
        "scratch",
        "difference, points",
        "verdict",
    )
    return table([{name: row.get(name, "") for name in columns} for row in rows.values()])


def digits_section(assets: Path) -> str:
    paths = sorted(assets.glob("digits_*.json"))
    if not paths:
        return ""
    steps = ", ".join(sorted({f"{f.steps:,}" for path in paths for f in load_findings(path)}))
    return f"""## WER on people saying digits: `digits_*.json`

Connected digits of the Free Spoken Digit Dataset (four of its speakers), tested on one speaker after the other and
fine-tuned on the rest, {steps} steps from every start. Dev, other recordings of the rest, chooses the weights: the best
of ten evaluations, or the mean of the last three. Greedy decoding, mean over the seeds, 95 % intervals over utterances.
Difference and verdict: "distilled" against "scratch"; "better" asks that the interval leaves 0 out and that every seed
agrees. Made by `make_digits.py`.

{table([row for path in paths for row in digits_rows(path)])}
"""


STUDIES = {
    "losses": "The ablation of the losses, shallow & wide Fbank student; differences are against regression only",
    "structures": "Equal parameters, waveform front-end; differences are against the shallowest",
    "front_ends": "Deep & thin student with and without front-end adaptation, and its waveform twin; steps of "
    "adaptation count, unless they come on top",
}


def study_section(study: str, path: Path) -> str:
    if not path.exists():
        return ""
    kept, findings = json.loads(path.read_text(encoding="utf-8")), load_findings(path)
    trained = Counter((found.name, found.steps) for found in findings)
    seeds = " to ".join(str(n) for n in sorted({min(trained.values()), max(trained.values())}))
    return f"""## Study of {study.replace("_", "-")}: `{path.name}`

{STUDIES[study]}. Steps of {kept["batch_seconds"]:g} s, {seeds} seeds: frames of unseen voices whose phone a
linear probe reads off the student's last layer, 95 % intervals over utterances. "Better" asks that the interval leaves
0 out and that every seed agrees. Made by `make_study.py {study.replace("_", "-")}`.

{table(study_rows(findings))}
"""


def levers_section(path: Path) -> str:
    if not path.exists():
        return ""
    kept, findings = json.loads(path.read_text(encoding="utf-8")), load_findings(path)
    minutes, steps, seeds = ({getattr(f, name) for f in findings} for name in ("minutes", "steps", "seed"))
    rows = []
    for name in names_in(findings):
        found, change = summary(findings, name), compare(findings, name, "waveform")
        row = {"lever": name, "parameters": f"{next(f.parameters for f in findings if f.name == name):,}"}
        row |= {"WER": str(found), "each seed": found.each_seed}
        row |= {"against waveform, points": change.points, "verdict": change.verdict}
        rows.append(row | (dict.fromkeys(list(row)[-2:], "") if name == "waveform" else {}))
    rows.sort(key=lambda row: float(row["WER"].split("\N{NO-BREAK SPACE}")[0]))
    unlabelled = f"{kept['unlabelled_minutes']:g}"
    return f"""## What holds Fbank back: `{path.name}`

Shallow & wide students on {max(minutes):g} minutes of labels of {kept["voices"]} voices: {max(steps):,} steps of
{kept["batch_seconds"]:g} s, speed perturbation, {len(seeds)} seeds. Those that are distilled for it are on {unlabelled}
minutes of unlabelled speech. Greedy decoding of test-clean, mean over the seeds, 95 % intervals over utterances;
`fbank_levers.py --list` says what the names mean. Made by `fbank_levers.py --speech-minutes {unlabelled}`
on one {kept["device"]}; "shipped", with fewer seeds, by `make_low_resource.py convergence` on a CPU.

{table(rows)}
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--assets", type=Path, default=Path("kdkit/assets"))
    parser.add_argument("--readme", type=Path, default=Path("README.md"), help="docs/ lies beside it")
    parser.add_argument("--frames", type=int, default=20_000, help="frames that the probes are trained on")
    args = parser.parse_args()
    splits = build_synthetic(minutes={"train": 30, "test-clean": 10})
    sections = [
        INTRODUCTION,
        teacher_section(args.assets / "tiny_teacher.safetensors", splits, args.frames),
        student_section(sorted(args.assets.glob("tiny_[ds]*.safetensors"))),
        recogniser_section(args.assets / "metrics.json"),
        minutes_section(args.assets / "low_resource.json"),
        convergence_section(args.assets / "convergence.json"),
        digits_section(args.assets),
        *(study_section(study, args.assets / f"study_{study}.json") for study in STUDIES),
        levers_section(args.assets / "study_fbank_levers.json"),
    ]
    write_text(args.assets / "README.md", "\n".join(filter(None, sections)))
    write_headline(args.readme, args.assets / "metrics.json")
    write_between(args.readme, "steps", convergence_table(args.assets / "convergence.json"))
    write_between(args.readme.parent / "docs/speech.md", "digits", digits_table(args.assets))
    models = sorted(args.assets.glob("*.safetensors"))
    write_text(args.assets / SUMS, "".join(f"{sha256_of(path)}  {path.name}\n" for path in models))
    print(f"card: {args.assets / 'README.md'}")


if __name__ == "__main__":
    run(main)
