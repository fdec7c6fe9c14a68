"""A step's loss and gradients as one CUDA graph, recorded once for each shape and replayed.

A distillation step launches some two thousand small kernels. Launching one costs the CPU about 5 µs, longer than the
GPU needs for most of them. A graph replays them all with one call. For that, a task states its computation as a
function of tensors with recurring shapes:

* ``prepare(batch)``: a dict of tensors; everything that is random or read on the host happens here;
* ``compute(inputs)``: loss and parts, by the same operations for the same shapes;
* ``stage`` (optional): anything else that decides which operations these are;
* ``quick`` (optional): a dict that receives faster twins of the frozen networks (:mod:`kdkit.model.fast.frozen`).

Batches get slightly more padding, so that few shapes occur; the losses ignore padding. In bf16 and fp16 weights are
cast once a step instead of before every use. The plain way is :func:`kdkit.training.gradients.gradients` without
graphs; tests compare the two.
"""

from __future__ import annotations

import contextlib
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils.stateless import _reparametrize_module

from kdkit.model.codebook import Codebook
from kdkit.model.encoder import PositionalConv
from kdkit.model.fast.frozen import hastened
from kdkit.model.speech_model import SpeechModel
from kdkit.speech.batches import GRAIN, Batch

IN_FLOAT32 = (Codebook, PositionalConv)  # modules whose weights stay float32 in every precision
GRAPHS = 256  # at most; each keeps its inputs and the launches of some thousand kernels


def rung(samples: int) -> int:
    """Samples that a batch of ``samples`` is padded to: multiples of 0.2 s up to 6.4 s, of 1/32 to 1/16 of the length
    beyond, which adds 2 % on average.
    """
    step = GRAIN << max(0, ((samples - 1) // GRAIN).bit_length() - 5)
    return -(-samples // step) * step


@dataclass
class Recorded:
    """A graph, the tensors it reads and writes, and which weights have a gradient."""

    graph: torch.cuda.CUDAGraph
    inputs: dict[str, Tensor]
    outcome: Outcome


@dataclass
class Outcome:
    """``values``: the loss, then the parts by their ``names``. ``used``: which weights have a gradient."""

    values: Tensor
    names: list[str]
    used: list[bool]


class Steps:
    """Computes loss and gradients of a task's batches, on a GPU by graphs.

    ``parameters``: by name in the task. ``dtype``: bf16 or fp16 casts them for a step, None computes in float32.
    ``scale``: factor of the loss in the backward pass, a tensor (fp16). ``capture=False`` computes the same without
    graphs, on any device.

    ``steps(batch, share)`` sets ``parameters[...].grad`` to ``share`` times the gradients (``add``: adds them) and
    returns loss and parts.
    """

    def __init__(
        self,
        task: nn.Module,
        parameters: dict[str, Tensor],
        dtype: torch.dtype | None = None,
        scale: Tensor | None = None,
        capture: bool = True,
    ):
        self.task, self.parameters, self.dtype, self.scale = task, parameters, dtype, scale
        self.device = next(iter(parameters.values())).device
        self.capture = capture and self.device.type == "cuda" and recordable(task)
        self.graphs: dict[tuple, Recorded] = {}
        self.seen: Counter[tuple] = Counter()
        self.pool = torch.cuda.graph_pool_handle() if self.capture else None
        self.stream = torch.cuda.Stream() if self.capture else None
        self.gradients = {name: torch.zeros_like(p) for name, p in parameters.items()}
        wide = [name for name, part in task.named_modules() if isinstance(part, IN_FLOAT32)]
        wide = tuple(f"{name}." for name in wide)
        self.cast = [name for name in parameters if dtype is not None and not name.startswith(wide)]
        self.low = [torch.empty_like(parameters[name], dtype=dtype) for name in self.cast]
        self.twins: dict[str, nn.Module] = {}
        aside = (*wide, *(f"{name}." for name in getattr(task, "frozen", ())))
        self.still = {  # fixed weights within trained networks
            name: p.detach().to(dtype)
            for name, p in task.named_parameters()
            if dtype is not None and name not in parameters and not name.startswith(aside)
        }
        if hasattr(task, "quick") and dtype is not None:
            frozen = [name for name in task.frozen if isinstance(getattr(task, name, None), SpeechModel)]
            twins = {id(getattr(task, name)): None for name in frozen}
            for name in frozen:
                model = getattr(task, name)
                twins[id(model)] = twins[id(model)] or hastened(model, dtype)
                self.twins[name] = twins[id(model)]

    def close(self) -> None:
        """Frees the memory of the graphs."""
        self.graphs.clear()
        self.twins.clear()

    def __call__(
        self, batch: Batch, share: float | Tensor = 1.0, add: bool = False
    ) -> tuple[Tensor, dict[str, Tensor]]:
        batch = batch.to(self.device).widened(rung(batch.waves.shape[1]))
        inputs = self.task.prepare(batch)
        if not isinstance(share, Tensor):  # a tensor on the GPU needs no sync
            share = torch.full((), share, device=self.device)
        inputs["share"] = share.float()
        outcome = self._outcome(inputs)
        for used, (name, parameter) in zip(outcome.used, self.parameters.items(), strict=True):
            if not used:
                continue
            gradient = self.gradients[name]
            if not add or parameter.grad is None:
                parameter.grad = gradient.clone() if add else gradient
            else:
                parameter.grad.add_(gradient)
        loss, *parts = outcome.values.clone().unbind()
        return loss, dict(zip(outcome.names, parts, strict=True))

    def _outcome(self, inputs: dict[str, Tensor]) -> Outcome:
        if not self.capture:
            return self._compute(inputs)
        shapes = tuple((name, tuple(t.shape), t.dtype) for name, t in inputs.items())
        key = (shapes, self.task.training, getattr(self.task, "stage", None))
        recorded = self.graphs.get(key)
        if recorded is None:
            self.seen[key] += 1
            if self.seen[key] < 2 or len(self.graphs) >= GRAPHS:  # a shape that may not recur
                return self._compute(inputs)
            try:
                recorded = self.graphs[key] = self._record(inputs)
            except (RuntimeError, AssertionError) as error:  # torch.OutOfMemoryError is one
                said = (str(error) or repr(error)).splitlines()[0]
                warnings.warn(f"no CUDA graph of this task, which is slower: {said}", stacklevel=2)
            if recorded is None:  # computed here, where the error no longer holds its tensors
                self.capture = False
                self.graphs.clear()
                torch.cuda.synchronize()
                return self._compute(inputs)
        for name, tensor in inputs.items():
            recorded.inputs[name].copy_(tensor, non_blocking=True)
        recorded.graph.replay()
        return recorded.outcome

    def _record(self, inputs: dict[str, Tensor]) -> Recorded:
        static = {name: tensor.clone() for name, tensor in inputs.items()}
        graph, random = torch.cuda.CUDAGraph(), torch.cuda.get_rng_state()
        try:
            self.stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self.stream):
                # once without recording: libraries initialise at their first call on a stream
                expected = self._state(self._compute(static))
                torch.cuda.synchronize()
                if torch.cuda.mem_get_info()[0] < torch.cuda.memory_reserved():
                    torch.cuda.empty_cache()  # memory for the graph
                # thread_local: threads that read ahead pin memory at the same time
                graph.capture_begin(pool=self.pool, capture_error_mode="thread_local")
                try:
                    outcome = self._compute(static)
                finally:
                    graph.capture_end()
            torch.cuda.current_stream().wait_stream(self.stream)
            torch.cuda.set_rng_state(random)
            graph.replay()
            if not torch.allclose(self._state(outcome), expected, rtol=1e-3, equal_nan=True):
                raise RuntimeError("played back, a graph gives another loss or other gradients")
        except RuntimeError:
            # a recording that was aborted leaves the generator in capture mode: continue with a copy
            generator = torch.cuda.default_generators[torch.cuda.current_device()]
            generator.graphsafe_set_state(generator.clone_state())
            raise
        finally:
            torch.cuda.set_rng_state(random)
        return Recorded(graph, static, outcome)

    def _state(self, outcome: Outcome) -> Tensor:
        """Loss, parts and the norms of all gradients."""
        found = [g for g, some in zip(self.gradients.values(), outcome.used, strict=True) if some]
        return torch.cat([outcome.values.float(), torch.stack(torch._foreach_norm(found))])

    def _compute(self, inputs: dict[str, Tensor]) -> Outcome:
        leaves = self._leaves()
        with _reparametrize_module(self.task, leaves), self._quick():
            loss, parts = self.task.compute(inputs)
        scaled = loss * inputs["share"]
        if self.scale is not None:
            scaled = scaled * self.scale
        found = torch.autograd.grad(scaled, [leaves[name] for name in self.parameters], allow_unused=True)
        used = [gradient is not None for gradient in found]
        into = [g for g, some in zip(self.gradients.values(), used, strict=True) if some]
        copy_all(into, [gradient for gradient in found if gradient is not None])
        values = torch.stack([loss.detach(), *(part.detach().to(loss.dtype) for part in parts.values())])
        return Outcome(values, list(parts), used)

    @contextlib.contextmanager
    def _quick(self) -> Iterator[None]:
        """Within, the task computes with the faster twins of its frozen networks."""
        if self.twins:
            self.task.quick.update(self.twins)
        try:
            yield
        finally:
            if self.twins:
                self.task.quick.clear()

    def _leaves(self) -> dict[str, Tensor]:
        """The weights that a step computes with, by name: the parameters themselves, or copies in ``dtype``."""
        leaves = self.still | self.parameters
        if self.cast:
            with torch.no_grad():
                low = [tensor.detach() for tensor in self.low]
                copy_all(low, [self.parameters[name].detach() for name in self.cast])
            leaves |= {name: tensor.requires_grad_() for name, tensor in zip(self.cast, low, strict=True)}
        return leaves


def copy_all(into: list[Tensor], given: list[Tensor]) -> None:
    """Copies each tensor to its place; on a GPU in one pass if all have the same dtype."""
    for dtype in dict.fromkeys(tensor.dtype for tensor in given):
        pairs = [(to, tensor) for to, tensor in zip(into, given, strict=True) if tensor.dtype == dtype]
        torch._foreach_copy_(*map(list, zip(*pairs, strict=True)))


def recordable(task: nn.Module) -> bool:
    """True if a graph of the task can be recorded on a GPU: all random numbers but dropout are drawn in ``prepare``
    (SpecAugment draws on the host, inside the model), and the task does not say otherwise (``on_device``).
    """
    inside = any(getattr(module, "spec_augment", None) is not None for module in task.modules())
    return hasattr(task, "compute") and not inside and getattr(task, "on_device", True)
