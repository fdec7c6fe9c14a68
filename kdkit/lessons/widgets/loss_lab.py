"""Loss lab (notebook 02): the trainer's losses of one real batch, distributions and gradients, as settings change."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn

from kdkit.common.errors import ConfigError
from kdkit.distill import default_pairs
from kdkit.fbank import SHIFT, WINDOW, Fbank
from kdkit.lessons import plots
from kdkit.lessons.widgets import drawing
from kdkit.lessons.widgets.panel import Panel, button, choice, choice_of_utterance, slider
from kdkit.losses import cluster_loss, regression_loss
from kdkit.model.codebook import VARIANTS, ClusterHead
from kdkit.model.speech_model import SpeechModel
from kdkit.probing.listening import occurrences, phone_shares
from kdkit.speech.batches import Batch
from kdkit.speech.manifest import Utterance
from kdkit.teachers import Teacher

_TOP = 12  # ids that are drawn


class LossLab(Panel):
    """Teacher and student on one batch. The student stays as it is; its heads, new ones, may take steps.

    ``tau`` is the temperature of both sides, ``weight`` is lambda, ``cosine`` w_cos. A click into the spectrogram picks
    the frame whose distributions are drawn. ``parts()`` gives the losses, ``gradients()`` how hard each of them pulls
    at the student's states.

    ``speech``: utterances with phones, by default the batch's, in which each id is seen to stand for a phone
    (``phones``, {id: phone}); more of them name more ids.
    """

    title = "Loss lab"

    def __init__(
        self,
        teacher: Teacher,
        student: SpeechModel,
        batch: Batch,
        seed: int = 0,
        speech: Sequence[Utterance] = (),
    ):
        if teacher.codebook is None:
            raise ConfigError("the loss lab needs a teacher with a codebook: make one of k-means centroids")
        self.teacher, self.batch = teacher, batch
        self.pairs = default_pairs(student.config, teacher.config)
        device = batch.waves.device
        with torch.no_grad():
            target = teacher.hidden(batch.waves, batch.lengths)
            states = student.to(device).eval()(batch.waves, batch.lengths)
            self.cosines = teacher.codebook.cosines(target.last)  # (B, T, K)
            self.fbank = Fbank()(batch.waves.cpu())
        self.mask, self.target, self.states = target.mask, target.hidden, states.hidden
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            dim = student.config.dim
            self.heads = nn.ModuleList(nn.Linear(dim, teacher.config.dim) for _ in self.pairs).to(device)
            book = teacher.codebook
            self.cluster_heads = nn.ModuleDict({v: ClusterHead(v, dim, book) for v in VARIANTS}).to(device)
        self._untrained = [p.detach().clone() for p in self.parameters()]
        self._begin()
        told = [utterance for utterance in speech or batch.utterances if utterance.phones]
        runs = occurrences(teacher, told)
        self.phones = {k: phone_shares(of_id)[0][0] or "silence" for k, of_id in runs.items()}
        self.frames = self.mask.sum(1).tolist()
        taus = [0.02, 0.03, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0]
        super().__init__(
            utterance=choice_of_utterance(batch.utterances),
            frame=slider("frame", self.frames[0] // 2, 0, self.frames[0] - 1),
            tau=choice("tau", taus, 0.1),
            weight=slider("lambda", 0.4, 0.0, 2.0, 0.1),
            cosine=slider("w_cos", 1.0, 0.0, 2.0, 0.1),
            variant=choice("variant", VARIANTS),
        )
        self._opened = dict(self.state)

    def parameters(self) -> list[nn.Parameter]:
        return [p for module in (self.heads, self.cluster_heads) for p in module.parameters()]

    def _begin(self) -> None:
        """Untrained heads."""
        with torch.no_grad():
            for parameter, value in zip(self.parameters(), self._untrained, strict=True):
                parameter.copy_(value)
        self.optimiser = torch.optim.AdamW(self.parameters(), lr=3e-3, weight_decay=0.0)
        self.steps, self._kept = 0, None

    # --- what is measured -------------------------------------------------------------------------------------

    def _losses(self, states: list[Tensor]) -> dict[str, Tensor]:
        """Weighted parts of the loss of these student states."""
        distance = angle = 0.0
        for head, (s, t) in zip(self.heads, self.pairs, strict=True):
            p, h = head(states[s]), self.target[t]
            plain = regression_loss(p, h, self.mask, 0.0)
            angle = angle + regression_loss(p, h, self.mask, 1.0) - plain
            distance = distance + plain
        variant, tau, count = self.state["variant"], self.state["tau"], len(self.pairs)
        student = self.cluster_heads[variant](states[-1])
        of_ids = cluster_loss(variant, student, self.cosines, self.mask, tau, tau)
        return {
            "distance": distance / count,
            "w_cos x angle": self.state["cosine"] * angle / count,
            "lambda x discriminative": self.state["weight"] * of_ids,
        }

    def logits(self, last: Tensor, cosines: Tensor) -> tuple[Tensor, Tensor]:
        """Student's and teacher's logits (..., K) at the present temperature, of student states (..., dim)."""
        student = self.cluster_heads[self.state["variant"]](last)
        return student / self.state["tau"], cosines / self.state["tau"]

    def _measured(self) -> tuple[dict[str, float], dict[str, float], tuple[float, float]]:
        """Parts, gradients and entropies of the present settings, computed once for them."""
        settings = (*(self.state[name] for name in ("tau", "weight", "cosine", "variant")), self.steps)
        if self._kept is None or self._kept[0] != settings:
            states = [state.detach().requires_grad_(True) for state in self.states]
            parts, norms = self._losses(states), {}
            for name, value in parts.items():
                grads = torch.autograd.grad(value, states, retain_graph=True, allow_unused=True)
                norms[name] = 1e3 * sum(float(g.square().sum()) for g in grads if g is not None) ** 0.5
            with torch.no_grad():
                student, teacher = self.logits(self.states[-1], self.cosines)
                both = [x[self.mask].log_softmax(-1) for x in (teacher, student)]
                entropies = tuple(float(-(log.exp() * log).sum(-1).mean()) for log in both)
            values = {name: float(value.detach()) for name, value in parts.items()}
            self._kept = settings, (values, norms, entropies)
        return self._kept[1]

    def parts(self) -> dict[str, float]:
        """The weighted parts of the loss; their sum is the loss."""
        return self._measured()[0]

    def gradients(self) -> dict[str, float]:
        """Norm of each part's gradient at the student's hidden states, times 1,000 (means over frames are small)."""
        return self._measured()[1]

    def entropies(self) -> tuple[float, float]:
        """Mean entropy over all real frames, teacher's and student's, in nats."""
        return self._measured()[2]

    def distributions(self) -> tuple[np.ndarray, np.ndarray]:
        """Teacher's and student's distribution over the cluster ids at the chosen frame, each (K,)."""
        row, frame = self.state["utterance"], self.state["frame"]
        with torch.no_grad():
            student, teacher = self.logits(self.states[-1][row, frame], self.cosines[row, frame])
        return tuple(x.softmax(-1).double().cpu().numpy() for x in (teacher, student))

    def take(self, steps: int = 20) -> None:
        """Lets the heads learn on this batch with the present weights and temperature; the student stays as it is.

        Every few steps there is a picture.
        """
        for left in reversed(range(steps)):
            loss = sum(self._losses(self.states).values())
            self.optimiser.zero_grad()
            loss.backward()
            self.optimiser.step()
            self.steps += 1
            if left % 4 == 0:
                self.redraw()

    def reset(self) -> None:
        """Everything as it was at the beginning: untrained heads, and all controls."""
        self._begin()
        self.update(**self._opened)
        self.redraw()

    # --- what is shown ----------------------------------------------------------------------------------------

    def extra(self) -> list:
        return [
            button("20 steps of the heads", self.take, "Trains the heads on this batch."),
            button("Reset", self.reset, "Untrained heads, and all controls as they were."),
        ]

    def changed(self, name: str) -> None:
        if name == "utterance":
            self.controls["frame"].max = self.frames[self.state["utterance"]] - 1

    def clicked(self, axes: int, x: float, y: float) -> None:
        if axes == 0:
            last = self.controls["frame"].max
            self.update(frame=int(np.clip(round((x - 0.0125) / 0.02), 0, last)))

    def layout(self) -> Figure:
        figure = self.paper(5.6, 7.6)
        if self.narrow:
            grid = figure.add_gridspec(3, 1, left=0.13, right=0.97, top=0.95, bottom=0.05, hspace=0.55)
            places = (grid[1], *grid[2].subgridspec(1, 2, wspace=0.35))
        else:
            grid = figure.add_gridspec(2, 1, left=0.06, right=0.985, top=0.93, bottom=0.12, hspace=0.42)
            places = grid[1].subgridspec(1, 3, width_ratios=(2.2, 1, 1), wspace=0.3)
        figure.add_subplot(grid[0], xlabel="time (s); click to choose a frame")
        ids, parts, pulls = (figure.add_subplot(place) for place in places)
        ids.set_ylabel("probability (%)")
        for axes in figure.axes:
            drawing.place_labels(axes, 34, 32 if axes is ids else 21)
        for axes, title in ((parts, "loss, weighted"), (pulls, "gradient norm x 1000")):
            axes.set_title(title, fontsize=10, y=1.0)
            axes.tick_params(axis="x", labelsize=8)
            axes.margins(y=0.15)
        return figure

    def draw(self, top: Axes, ids: Axes, parts: Axes, pulls: Axes) -> None:
        row, frame = self.state["utterance"], self.state["frame"]
        length = int(self.batch.lengths[row])
        shown = self.fbank[row, : (length - WINDOW) // SHIFT + 1]
        drawing.draw_fbank(top, shown, self.batch.utterances[row].phones)
        drawing.draw_cursor(top, 0.0125 + 0.02 * frame)
        teacher, student = self.distributions()
        best = np.argsort(-(teacher + student))[:_TOP]
        x = np.arange(len(best))
        ids.bar(x - 0.2, 100 * teacher[best], 0.4, color=plots.BLUE, label="teacher")
        ids.bar(x + 0.2, 100 * student[best], 0.4, color=plots.ORANGE, label="student")
        ids.set_xticks(x, [f"{k}\n{self.phones.get(k, '')}" for k in best], fontsize=8)
        ids.set_xlabel(f"cluster id{' and its phone' if self.phones else ''}, frame {frame}")
        ids.legend(fontsize=8)
        for axes, values in ((parts, self.parts()), (pulls, self.gradients())):
            axes.bar(
                ("distance", "angle", "discr."), values.values(), color=(plots.BLUE, plots.SKY, plots.RED)
            )
            for i, value in enumerate(values.values()):
                axes.text(i, value, f"{value:.2f}", ha="center", va="bottom", fontsize=8)

    def words(self) -> str:
        parts, (teacher, student) = self.parts(), self.entropies()
        total = sum(parts.values())
        sums = " + ".join(f"{value:.3f}" for value in parts.values())
        return (
            f"<b>loss {total:.3f}</b> = {sums} (distance, w_cos x angle, lambda x discriminative), after {self.steps} "
            f"steps of the heads. Mean entropy: teacher {teacher:.2f} nats ({np.exp(teacher):.1f} ids in play), "
            f"student {student:.2f} nats ({np.exp(student):.1f})."
        )

    def alt(self) -> str:
        parts = self.parts()
        return (
            f"Loss lab: tau {self.state['tau']}, lambda {self.state['weight']:.1f}, w_cos {self.state['cosine']:.1f}, "
            f"variant {self.state['variant']}, frame {self.state['frame']}: loss {sum(parts.values()):.3f}; "
            "spectrogram, cluster distributions, loss parts and gradient norms."
        )
