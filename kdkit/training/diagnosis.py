"""Messages for what goes wrong in a training."""

from __future__ import annotations

from torch import Tensor, nn

from kdkit.common.errors import TrainingError
from kdkit.speech.frames import SAMPLE_RATE


def check_frozen(task: nn.Module) -> None:
    """Raises :class:`TrainingError` if a module that the task names in ``frozen`` would be trained."""
    for name in getattr(task, "frozen", ()):
        module = getattr(task, name, None)
        if module is not None and (module.training or any(p.requires_grad for p in module.parameters())):
            raise TrainingError(
                f"{name} would be trained: it is in training mode or needs a gradient; "
                f"call .requires_grad_(False).eval() on it and keep it so in train()"
            )


def not_finite(loss: Tensor, step: int, some: list) -> str:
    """The message for a loss of NaN or infinity, with the first utterances of the step's batches."""
    names = ", ".join(utterance.id for batch in some for utterance in batch.utterances[:4])
    return f"loss is {loss.item()} at step {step} (batch of {names} ...): lower lr, or look at these files"


def out_of_memory(step: int, some: list, accumulate: int) -> str:
    """The message for memory that ran out, with the size of the batch and what to change."""
    rows, samples = some[0].waves.shape
    return (
        f"out of memory at step {step}, in a batch of {rows} utterances of {samples / SAMPLE_RATE:.1f} s: take batches "
        f"of fewer seconds, and more of them for one step (accumulate is {accumulate}); what was saved is good"
    )
