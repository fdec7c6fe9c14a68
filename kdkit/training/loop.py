"""The one training loop: pre-training, distillation and fine-tuning all run through :func:`train`.

A task is a module whose ``forward(batch)`` returns ``(loss, {part: value})``, the loss being a mean over
``size(batch)`` items (real frames, characters): that makes several processes, or several batches a step, the same as
one large batch. A task may also have

* ``frozen``: names of sub-modules that are not trained (teachers); they are neither saved nor changed by a step;
* ``settings``: what a run must have in common with the run it resumes, besides recipe and weights;
* ``drawn``: names of parts with random initial weights, which do not tell one run from another;
* ``rates``: {prefix of parameter names: factor on the learning rate in the next step};
* ``schedule(step, steps)``: called before each step with its number, from 0, and the number of steps;
* ``leaves_some_out``: true if some parameters get no gradient in some steps;
* ``complaints(rows)``: sentences about a run that goes wrong, given the rows of its log.

Batches come from an object whose ``batch(i)`` is a pure function of ``i``, and every batch has random numbers of its
own, drawn from the seed and ``i``: a run that was killed resumes exactly. What surrounds the loop is a
:class:`kdkit.training.run.Run`; several processes are the business of :mod:`kdkit.training.processes`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch import nn

from kdkit.training.interrupt import TrainingInterrupted, patient_interrupt
from kdkit.training.processes import accelerator_for, held
from kdkit.training.recipe import TrainConfig
from kdkit.training.run import Run
from kdkit.training.selection import Selection


def train(
    task: nn.Module,
    batches,
    config: TrainConfig,
    out: Path,
    evaluate: Callable[[nn.Module], dict[str, float]] | None = None,
    resume: bool = True,
    title: str = "training",
    selection: Selection | None = None,
    watch: Callable[[list[dict]], bool] | None = None,
    decides: dict | None = None,
) -> list[dict]:
    """Trains ``task`` and returns the log: one dict per logged step (step, loss, parts, lr) or evaluation.

    Writes ``out/checkpoints`` (weights and optimiser; atomic, the last ``keep``) every ``save_minutes`` (or
    ``save_every`` steps) and ``out/metrics.jsonl``. With ``resume``, a run found in ``out`` resumes from its newest
    good checkpoint and ends with the weights it would have had without the interruption; a finished one is loaded and
    returned at once. Ctrl-C and SIGTERM save before they end the run, by a KeyboardInterrupt whose message says so.

    ``evaluate(task)`` returns measures for the log. ``selection`` (:mod:`kdkit.training.selection`) keeps the weights
    of evaluations that may be wanted at the end, and may end the run early. ``watch`` gets the log after every logged
    step; if it returns True, the run stops as after Ctrl-C. ``decides``: what else decides the result, such as the
    speech that ``evaluate`` uses (:mod:`kdkit.training.identity`).

    Raises :class:`TrainingError` at a non-finite loss or when memory runs out, naming step and utterances,
    :class:`CheckpointError` when ``out`` holds a run that was made of something else, :class:`OutputError` when
    ``out`` cannot be written, and :class:`ConfigError` when another training runs there.
    """
    accelerator = accelerator_for(config.precision, getattr(task, "leaves_some_out", False))
    with held(out):
        run = Run(accelerator, task, batches, config, out, evaluate, selection, title, resume, decides)
        try:
            with patient_interrupt() as asked_to_stop:
                run.evaluate_if_due()  # an interrupt may have left it undone
                for step in range(run.first, config.steps):
                    if run.ends_early():
                        break
                    some = run.read_batches(step)
                    run.set_learning_rates(step)
                    with run.changing_weights():
                        loss, parts = run.gradients(step, some)
                        norm = run.update()
                        logged, saved = run.log_is_due(step + 1), run.save_is_due(step + 1)
                        if logged or saved or loss.device.type == "cpu":  # reading the loss forces a GPU sync
                            run.check_finite(loss, step)
                    if logged:
                        run.log_step(step, loss, parts, norm)
                    run.evaluate_if_due()
                    if logged:
                        run.complain()
                    if saved:
                        run.save()
                    wanted = bool(asked_to_stop) or bool(logged and watch and watch(run.log.rows))
                    if run.stops(wanted, logged):
                        raise KeyboardInterrupt
        except KeyboardInterrupt:
            raise TrainingInterrupted(run.save_interrupted()) from None
        except RuntimeError as error:
            run.explain_out_of_memory(error)
            raise
        finally:
            run.close()
    accelerator.wait_for_everyone()
    task.eval()
    return run.log.rows
