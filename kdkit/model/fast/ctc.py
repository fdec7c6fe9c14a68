"""The CTC loss on a GPU, added up in a fixed order: one program for each utterance and direction.

Forwards, ``alpha[t, s]`` is the log-probability of all ways to say the label's first states in frames 0 to t;
backwards, ``beta[t, s]`` that of its last states in frames t to the end (Graves, 2006); the states are the label's
characters with blanks around them. The recursion backwards is the one forwards on the turned utterance, so one kernel
does both. A frame's gradient sums the states of each character, which torch does with atomic additions, in any order.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from kdkit.model.fast.checks import check, compare

try:
    import triton
    import triton.language as tl

    AVAILABLE = True
except ImportError:  # no wheels of Triton for this machine
    AVAILABLE = False


def ctc_on_gpu(log_probs: Tensor, labels: Tensor, frames: Tensor, sizes: Tensor, blank: int) -> Tensor:
    """See :func:`kdkit.recognition.ctc_loss.ctc_loss`."""
    return CTC.apply(log_probs, labels, frames, sizes, blank)


class CTC(torch.autograd.Function):
    @staticmethod
    def forward(ctx, log_probs: Tensor, labels: Tensor, frames: Tensor, sizes: Tensor, blank: int) -> Tensor:
        log_probs, labels = log_probs.contiguous(), labels.contiguous()
        batch, total, letters = log_probs.shape
        states = triton.next_power_of_2(2 * labels.shape[1] + 1)
        # one table for each direction, and a row before the first
        tables = torch.empty(2, batch, total, states, device=log_probs.device)
        loss = torch.empty(batch, device=log_probs.device)
        warps = max(1, min(8, states // 64))
        _tables[(batch, 2)](
            log_probs, labels, frames, sizes, tables, loss, batch, total, letters, labels.shape[1],
            BLANK=blank, STATES=states, num_warps=warps,
        )  # fmt: skip
        ctx.save_for_backward(log_probs, labels, frames, sizes, tables, loss)
        ctx.blank = blank
        return loss

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple:
        log_probs, labels, frames, sizes, tables, loss = ctx.saved_tensors
        batch, total, letters = log_probs.shape
        into, states = torch.empty_like(log_probs), tables.shape[3]
        _occupancy[(total, batch)](
            log_probs, labels, frames, sizes, tables, loss, gradient.contiguous(), into,
            batch, total, letters, labels.shape[1],
            BLANK=ctx.blank, STATES=states, LETTERS=triton.next_power_of_2(letters),
            num_warps=max(1, min(8, states // 64)),
        )  # fmt: skip
        return into, None, None, None, None


if AVAILABLE:
    NEVER = tl.constexpr(-1e30)  # the logarithm of a probability of 0, with which numbers stay numbers

    @triton.jit
    def _label(labels, state, size, longest, BLANK: tl.constexpr):
        """Character of a state: blanks at even ones."""
        place = (state - 1) // 2
        letter = tl.load(labels + place, mask=(state % 2 == 1) & (place >= 0) & (place < size), other=BLANK)
        return letter.to(tl.int32)

    @triton.jit
    def _tables(
        log_probs, labels, frames, sizes, tables, loss, batch, total, letters, longest,
        BLANK: tl.constexpr, STATES: tl.constexpr,
    ):  # fmt: skip
        row, turned = tl.program_id(0).to(tl.int64), tl.program_id(1)
        last, size = tl.load(frames + row).to(tl.int32) - 1, tl.load(sizes + row).to(tl.int32)
        count = 2 * size + 1
        state = tl.arange(0, STATES)
        own = tl.where(turned == 1, count - 1 - state, state)  # what it is in the label's own order
        real = state < tl.where(size < 0, 0, count)  # none of a label that does not fit
        labels += row * longest
        letter = _label(labels, tl.where(real, own, 0), size, longest, BLANK)
        before = tl.where(turned == 1, own + 2, own - 2)
        inside = real & (state >= 2)
        skips = (
            inside
            & (letter != BLANK)
            & (letter != _label(labels, tl.where(inside, before, 0), size, longest, BLANK))
        )
        log_probs += row * total * letters
        tables += (turned * batch + row) * total * STATES
        frame = tl.where(turned == 1, last, 0)
        heard = tl.load(log_probs + frame * letters + letter)
        now = tl.where(real & (state < 2), heard, NEVER)
        tl.store(tables + frame * STATES + tl.where(real, own, state), now)
        for t in range(1, last + 1):
            tl.debug_barrier()
            earlier = tables + frame * STATES
            frame = tl.where(turned == 1, last - t, t)
            step = tl.where(turned == 1, -1, 1)
            one = tl.load(earlier + own - step, mask=real & (state >= 1), other=NEVER)
            two = tl.load(earlier + own - 2 * step, mask=skips, other=NEVER)
            most = tl.maximum(now, tl.maximum(one, two))
            ways = tl.exp(now - most) + tl.exp(one - most) + tl.exp(two - most)
            heard = tl.load(log_probs + frame * letters + letter)
            now = tl.where(real, tl.maximum(most + tl.log(ways) + heard, NEVER), NEVER)
            tl.store(tables + frame * STATES + tl.where(real, own, state), now)
        ends = tl.where(real & (state >= count - 2), now, NEVER)
        most = tl.max(ends, 0)
        whole = most + tl.log(tl.sum(tl.exp(ends - most), 0))
        if turned == 0:
            tl.store(loss + row, tl.where(size >= 0, -whole, 0.0))

    @triton.jit
    def _occupancy(
        log_probs, labels, frames, sizes, tables, loss, gradient, into, batch, total, letters, longest,
        BLANK: tl.constexpr, STATES: tl.constexpr, LETTERS: tl.constexpr,
    ):  # fmt: skip
        t, row = tl.program_id(0), tl.program_id(1).to(tl.int64)
        size, state, letter = tl.load(sizes + row).to(tl.int32), tl.arange(0, STATES), tl.arange(0, LETTERS)
        real = state < tl.where((t < tl.load(frames + row)) & (size >= 0), 2 * size + 1, 0)
        said = _label(labels + row * longest, tl.where(real, state, 0), size, longest, BLANK)
        alpha = tl.load(tables + (row * total + t) * STATES + state, mask=real, other=NEVER)
        beta = tl.load(tables + ((batch + row) * total + t) * STATES + state, mask=real, other=NEVER)
        heard = tl.load(log_probs + (row * total + t) * letters + said, mask=real, other=0.0)
        # of the state in the frame
        share = tl.exp(tl.minimum(alpha + beta - heard + tl.load(loss + row), 0.0))
        share = tl.where(real, share, 0.0)
        by_letter = tl.sum(tl.where(said[:, None] == letter[None], share[:, None], 0.0), 0)
        found = -by_letter * tl.load(gradient + row)
        tl.store(into + (row * total + t) * letters + letter, found, mask=letter < letters)


@check("ctc")
def check_ctc(device: torch.device, low: torch.dtype, plain: Callable[..., Tensor]) -> None:
    letters = 28
    logits = 2 * torch.randn(5, 40, letters)
    labels, frames = torch.randint(1, letters, (5, 16)), torch.tensor([40, 33, 12, 1, 20])
    labels[0, 3:5] = labels[0, 2]  # the same letter three times
    labels[2, :5] = torch.arange(1, 6)
    sizes, given = torch.tensor([14, 16, 5, 0, -1]), torch.randn(5)
    for blank in (0, letters - 1):
        targets, results = labels if blank == 0 else labels - 1, []
        for place, run in (("cpu", plain), (device, ctc_on_gpu)):
            own = logits.to(place).requires_grad_()
            loss = run(own.log_softmax(-1), *(t.to(place) for t in (targets, frames, sizes)), blank)
            results.append((loss.detach().cpu(), torch.autograd.grad(loss, own, given.to(place))[0].cpu()))
        for expected, found in zip(*results, strict=True):
            compare(found, expected, 1e-4)
        if results[1][0][4] or results[1][1][4].any() or results[1][1][1, 33:].any():
            raise AssertionError("padding has a loss or a gradient")
