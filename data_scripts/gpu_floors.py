"""What a step of distillation must cost a GPU, part by part, counted without one: operations, arithmetic, bytes.

    python data_scripts/gpu_floors.py --utterances 10 --seconds 15

Shapes alone are computed (torch's meta device). An operation that is no view reads its inputs and writes its outputs
once; its time is at least that of its arithmetic, of its bytes, and of a kernel that does nothing. ``--flops``,
``--bytes`` and ``--launch`` say how fast the card is; defaults were measured on one H100 (a product of 8192 x 8192 x
8192 in bf16, a copy within its memory), the launch is that within a CUDA graph.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn.utils.stateless import _reparametrize_module
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from kdkit import losses
from kdkit.bench.distill import SIZES
from kdkit.distill import DistillConfig, DistillTask, default_pairs
from kdkit.model import encoder
from kdkit.model.codebook import Codebook
from kdkit.model.fast import attention, cnn, positions, rows
from kdkit.model.speech_model import Output, SpeechModel, preset
from kdkit.teachers import Teacher
from kdkit.training.graphs import Steps


@dataclass
class Card:
    flops: float
    bytes: float
    launch: float  # seconds


@dataclass
class Cost:
    """Of some operations: how many, floating-point operations, bytes, and the least time in seconds."""

    count: int = 0
    flops: float = 0.0
    bytes: float = 0.0
    least: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(*(getattr(self, n) + getattr(other, n) for n in ("count", "flops", "bytes", "least")))


class Counter(TorchDispatchMode):
    """Adds up what the operations inside cost a card; ``by_name`` has each kind of them."""

    def __init__(self, card: Card):
        super().__init__()
        self.card, self.total, self.by_name = card, Cost(), defaultdict(Cost)

    def add(self, name: str, flops: float, size: float) -> None:
        least = max(flops / self.card.flops, size / self.card.bytes, self.card.launch)
        cost = Cost(1, flops, size, least)
        self.total += cost
        self.by_name[name] += cost

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        name = str(function)
        given = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        made = [t for t in tree_leaves(out) if isinstance(t, Tensor)]
        owned = {t.untyped_storage()._cdata for t in given}
        in_place = name.split(".")[1].endswith("_") or "foreach" in name
        if (not made and not in_place) or name.startswith("prim") or "empty" in name or "detach" in name:
            return out
        if not in_place and all(t.untyped_storage()._cdata in owned for t in made):
            return out  # a view
        size = sum(map(stored, [*given, *made]))
        flops, packet = 0.0, function._overloadpacket
        if "flash_attention" in name:
            query = given[1] if "backward" in name else given[0]
            longest = max(a for a in args if isinstance(a, int) and not isinstance(a, bool))
            flops = (10 if "backward" in name else 4) * query.numel() * longest
        elif packet in flop_registry:
            flops = flop_registry[packet](*args, **(kwargs or {}), out_val=out)
        self.add(name.removeprefix("aten."), flops, size)
        return out


def stored(tensor: Tensor) -> int:
    """Bytes of a tensor, those of overlapping or expanded ones once."""
    return min(tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes())


def stand_ins(counter: list[Counter]) -> ExitStack:
    """Own kernels, which shapes alone do not run, replaced by what they cost."""

    def product(x, weight, bias, outputs, step, gelu, dtype):
        _groups, size, columns = weight.shape
        out = torch.empty(len(x), outputs, columns, dtype=dtype, device=x.device)
        counter[-1].add(
            "own: windows", 2 * len(x) * outputs * size * columns, sum(map(stored, (x, weight, out)))
        )
        return out

    def gradient(x, y, groups, step, size):
        out = torch.empty(groups, size, y.shape[2], device=x.device)
        counter[-1].add("own: weight gradient", 2 * y.numel() * size, sum(map(stored, (x, y, out))))
        return out

    def launch(kernel, p, h, loss, into, cosine_weight, squared):
        backward = into is not loss
        counter[-1].add("own: rows", 0, sum(map(stored, (p, h, loss, *([into] if backward else [])))))

    stack = ExitStack()
    for module, name, new in (
        (cnn, "windows_product", product),
        (positions, "windows_product", product),
        (positions, "weight_gradient", gradient),
        (rows, "_launch", launch),
        *((module, "multiplies_low", lambda x: x.dtype == torch.bfloat16) for module in (attention, encoder)),
        *((module, "trusted", lambda name: True) for module in (attention, encoder)),
        (losses, "regression_frames", rows.regression_rows),
        (torch, "autocast", lambda *_, **__: nullcontext()),  # knows no device of shapes alone
    ):
        stack.enter_context(patch.object(module, name, new))
    return stack


def parts(task: DistillTask, steps: Steps, batch: int, samples: int) -> dict[str, Callable[[], object]]:
    """What a step consists of: functions that compute a part, forwards and (all but the teacher's) backwards."""
    waves, lengths = torch.empty(batch, samples), torch.full((batch,), samples)
    teacher, student = steps.twins["teacher"], task.student
    frames = (samples - 400) // 320 + 1
    wide, narrow = teacher.config.dim, student.config.dim
    low = {"dtype": torch.bfloat16}

    def learned(run: Callable[[], Tensor], *inputs: Tensor) -> Callable[[], object]:
        def both() -> None:
            with _reparametrize_module(task, dict(leaves)):
                y = run()
            every = [t for t in (*inputs, *leaves.values()) if t.requires_grad]
            torch.autograd.grad(y, every, torch.empty_like(y), allow_unused=True)

        return both

    leaves = {
        n: p.detach().to(torch.bfloat16 if n in steps.cast else p.dtype) for n, p in steps.parameters.items()
    }
    for leaf in leaves.values():
        leaf.requires_grad_()
    x = torch.empty(batch, frames, narrow, **low, requires_grad=True)
    mask = torch.empty(batch, frames, dtype=torch.bool)
    hidden = [
        torch.empty(batch, frames, narrow, **low, requires_grad=True)
        for _ in range(student.config.layers + 1)
    ]
    target = {n: torch.empty(batch, frames, wide, **low) for n in range(teacher.config.layers + 1)}

    def layers(model: SpeechModel, x: Tensor) -> Tensor:
        keys = encoder.segments(mask)
        for layer in model.encoder.layers:
            x = layer(x, keys)
        return x

    def regression() -> Tensor:
        return task.losses[0].of(Output(hidden, lengths), target, mask)[0]

    def discrimination() -> Tensor:
        with torch.no_grad():
            wanted = task.codebook.cosines(target[teacher.config.layers])
        tau = task.codebook.tau
        return losses.discriminative_loss(task.cluster_head(hidden[-1]), wanted, mask, tau)

    def whole() -> None:
        inputs = {"waves": waves, "lengths": lengths, "weights": torch.empty(2), "share": torch.empty(())}
        steps._compute(inputs)

    def norm_and_update() -> None:
        gradients = list(steps.gradients.values())
        size = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        torch._foreach_mul_(gradients, size)
        many = [torch.empty_like(g) for g in gradients]
        # stands for fused AdamW: reads and writes four of them
        torch._foreach_addcmul_(many, gradients, gradients)
        torch._foreach_add_(many, gradients)

    at = torch.empty(batch, frames, wide, **low)
    return {
        "teacher: CNN": lambda: teacher.front_end.cnn(waves, lengths),
        "teacher: norm, projection": lambda: teacher.front_end.projection(
            teacher.front_end.norm(torch.empty(batch, frames, teacher.config.conv_channels[-1], **low))
        ),
        "teacher: positions": lambda: teacher.encoder.norm(
            at + teacher.encoder.positions(at * mask[..., None])
        ),
        "teacher: layers": lambda: layers(teacher, at),
        "student: front-end": learned(lambda: student.front_end(waves, lengths)),
        "student: positions": learned(lambda: student.encoder.norm(x + student.encoder.positions(x)), x),
        "student: layers": learned(lambda: layers(student, x), x),
        "heads, regression loss": learned(regression, *hidden),
        "cluster ids": learned(discrimination, hidden[-1]),
        "casts of weights and gradients": lambda: (
            steps._leaves(),
            torch._foreach_copy_(list(steps.gradients.values()), list(leaves.values())),
        ),
        "clipping, AdamW": norm_and_update,
        "all of the above in one": lambda: (whole(), norm_and_update()),
    }


def pair(size: str) -> DistillTask:
    big, small, clusters = SIZES[size]
    config = preset(big)
    codebook = Codebook(config.dim, clusters, 64 if size == "tiny" else 256).requires_grad_(False).eval()
    teacher = Teacher(SpeechModel(config).requires_grad_(False).eval(), codebook, "shapes alone", {})
    student = SpeechModel(preset(small))
    wanted = DistillConfig(default_pairs(student.config, config), discriminative_weight=1.0)
    return DistillTask(student, teacher, wanted).train()


def table(size: str, batch: int, seconds: float, card: Card, kinds: int) -> list[str]:
    """Lines: each part's operations, GFLOP, least ms by arithmetic and by bytes, and least ms of its operations."""
    counters: list[Counter] = []
    said = [
        f"{'part':32} {'operations':>10} {'GFLOP':>9} {'arithmetic':>11} {'GB':>7} {'bytes':>9} {'least':>9}"
    ]
    with stand_ins(counters), torch.device("meta"):
        task: nn.Module = pair(size)
        learned = {n: p for n, p in task.named_parameters() if p.requires_grad}
        steps = Steps(task, learned, torch.bfloat16, capture=False)
        for name, run in parts(task, steps, batch, round(16_000 * seconds)).items():
            counters.append(Counter(card))
            with counters[-1] as counter:
                run()
            c = counter.total
            said.append(
                f"{name:32} {c.count:10d} {c.flops / 1e9:9.1f} {1e3 * c.flops / card.flops:8.2f} ms "
                f"{c.bytes / 1e9:7.2f} {1e3 * c.bytes / card.bytes:6.2f} ms {1e3 * c.least:6.2f} ms"
            )
            if kinds:
                most = sorted(counter.by_name.items(), key=lambda item: -item[1].least)[:kinds]
                said += [f"    {1e3 * k.least:6.2f} ms {k.count:5d} x {n}" for n, k in most]
    return said


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="full")
    parser.add_argument("--utterances", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=15.0, help="of each utterance")
    parser.add_argument("--flops", type=float, default=790e12)
    parser.add_argument("--bytes", type=float, default=3.0e12, help="a second, read and written")
    parser.add_argument("--launch", type=float, default=2.0e-6, help="seconds of the smallest kernel")
    parser.add_argument("--kinds", type=int, default=0, help="show so many kinds of operations of a part")
    given = parser.parse_args()
    card = Card(given.flops, given.bytes, given.launch)
    print("\n".join(table(given.size, given.utterances, given.seconds, card, given.kinds)))
    speech = given.utterances * given.seconds
    print(f"({speech:g} s of speech: 10,000 hours an hour are {speech / 10:.1f} ms)")
