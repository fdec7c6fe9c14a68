"""A network's emissions for a whole test set, kept so that many decoders can read them, on all cores."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from kdkit.batches import Batches
from kdkit.beam import BeamSearch
from kdkit.errors import ConfigError
from kdkit.manifest import Utterance
from kdkit.parallel import cores, each

Network = Callable[
    [Tensor, Tensor], tuple[Tensor, Tensor]
]  # waves (B, S), lengths (B,) -> logits (B, T, V), frames (B,)
Decoder = Callable[[Tensor, Tensor], list[str]]  # logits (B, T, V), frames (B,) -> B texts


@dataclass(frozen=True)
class Emissions:
    """Log-probabilities (frames, symbols) of every utterance that could be read, in the order of the manifest."""

    utterances: tuple[Utterance, ...]
    log_probs: tuple[Tensor, ...] = field(repr=False)
    seconds: float  # what reading and computing them took, wall clock

    @property
    def references(self) -> list[str]:
        return [utterance.text for utterance in self.utterances]

    @property
    def speakers(self) -> list[str]:
        return [utterance.speaker for utterance in self.utterances]

    @property
    def speech(self) -> float:
        """Seconds of audio."""
        return sum(utterance.duration for utterance in self.utterances)


@torch.inference_mode()
def emissions(network: Network, utterances: Sequence[Utterance], seconds_per_batch: float = 60) -> Emissions:
    """Runs ``network`` over ``utterances`` in batches of like length.

    116 bytes a frame are kept: 21 MB for an hour of speech. Files that cannot be read are left out with a warning.
    """
    device = torch.device("cpu")
    if isinstance(network, nn.Module):
        network.eval()
        device = next(network.parameters()).device
    began, found = time.perf_counter(), {}
    for batch in Batches(utterances, seconds_per_batch).epoch():
        batch = batch.to(device)
        logits, frames = network(batch.waves, batch.lengths)
        log_probs = logits.float().log_softmax(-1).cpu()
        for utterance, row, n in zip(batch.utterances, log_probs, frames.tolist(), strict=True):
            found[utterance.id] = row[:n].clone()  # not a view: the padding can go
    heard = tuple(utterance for utterance in utterances if utterance.id in found)
    return Emissions(heard, tuple(found[u.id] for u in heard), time.perf_counter() - began)


def decode_all(decoder: Decoder, log_probs: Sequence[Tensor], jobs: int | None = None) -> list[str]:
    """Texts of emissions (frames, symbols) in their order: beam search in ``jobs`` processes (None: all cores), greedy
    here, because it takes less time than sending it away."""
    if not isinstance(decoder, BeamSearch):
        return [decoder(row[None], torch.tensor([len(row)]))[0] for row in log_probs]
    if jobs is not None and jobs < 1:
        raise ConfigError(f"jobs must be 1 or more, not {jobs}")
    size = max(
        1, -(-len(log_probs) // (4 * (jobs or cores())))
    )  # four turns each: none waits long for the last
    tasks = [
        (decoder, [row.numpy() for row in log_probs[i : i + size]]) for i in range(0, len(log_probs), size)
    ]
    return [text for texts in each(_decode, tasks, jobs) for text in texts]


def _decode(task: tuple[BeamSearch, list]) -> list[str]:
    decoder, rows = task
    return [decoder(torch.from_numpy(row)[None], torch.tensor([len(row)]))[0] for row in rows]
