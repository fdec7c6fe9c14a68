"""Cluster ids of every frame: the teacher's codebook (HuBERT's, or k-means centroids) and the student's head.

Both give cosines, one for each cluster; :mod:`kdkit.losses` divides them by a temperature and makes distributions of
them. arXiv 2106.07447 (codebook), 2210.15631 (variants of the student); notebook 02 derives the loss.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdkit.common.errors import ConfigError
from kdkit.common.validation import choice

VARIANTS = ("codebook", "linear", "hard")
TAU = (1e-4, 1e4)  # the temperatures that are accepted


def cosines(projected: Tensor, embeddings: Tensor) -> Tensor:
    """(..., E), (K, E) -> (..., K), as one product of normalised matrices; in float32 inside autocast, too."""
    with torch.autocast(projected.device.type, enabled=False):
        return F.normalize(projected.float(), dim=-1) @ F.normalize(embeddings.float(), dim=-1).T


class Codebook(nn.Module):
    """HuBERT's distribution over K cluster ids at every frame: softmax( cos(final_proj(h), e_k) / tau ).

    Args:
        dim: width D of the hidden states. clusters: K. proj: width E of the embeddings (256 in HuBERT Base).
        tau: temperature of the teacher's own training; 0.1 in HuBERT.

    Every row of ``label_embeddings`` (K, E) is a cluster. fairseq's HuBERT has four rows of dictionary specials in
    front of its 500 clusters, which are never targets: :meth:`from_hubert` leaves them out.
    """

    def __init__(self, dim: int, clusters: int, proj: int = 256, tau: float = 0.1):
        super().__init__()
        self.tau = tau
        self.final_proj = nn.Linear(dim, proj)
        self.label_embeddings = nn.Parameter(torch.empty(clusters, proj).normal_())

    @classmethod
    def from_hubert(
        cls, weight: Tensor, bias: Tensor, label_embeddings: Tensor, specials: int = 4, tau: float = 0.1
    ) -> Codebook:
        """Codebook of fairseq's ``final_proj`` (E, D), (E,) and ``label_embs_concat`` (rows, E)."""
        rows = label_embeddings[specials:]
        codebook = cls(weight.shape[1], len(rows), weight.shape[0], tau)
        codebook.load_state_dict(
            {"final_proj.weight": weight, "final_proj.bias": bias, "label_embeddings": rows}
        )
        return codebook.requires_grad_(False).eval()

    @classmethod
    def from_centroids(cls, centroids: Tensor, tau: float = 0.1) -> Codebook:
        """Codebook of k-means centroids (K, D) of a teacher's layer, for a teacher that has none of its own.

        The projection subtracts the mean of the centroids, so the cosine compares directions from the centre of the
        data: softmax( cos(h - mean, c_k - mean) / tau ).
        """
        mean = centroids.mean(0)
        codebook = cls(len(mean), len(centroids), len(mean), tau)
        state = {"final_proj.weight": torch.eye(len(mean)), "final_proj.bias": -mean}
        codebook.load_state_dict(state | {"label_embeddings": centroids - mean})
        return codebook.requires_grad_(False).eval()

    def cosines(self, hidden: Tensor) -> Tensor:
        """cos(final_proj(h), e_k) of hidden states (..., D): (..., K), float32."""
        with torch.autocast(hidden.device.type, enabled=False):
            return cosines(self.final_proj(hidden.float()), self.label_embeddings)

    def forward(self, hidden: Tensor) -> Tensor:
        """The teacher's own logits, cosines / tau: (..., D) -> (..., K)."""
        return self.cosines(hidden) / self.tau


class ClusterHead(nn.Module):
    """The student's scores of the teacher's K cluster ids: (..., dim) -> (..., K), float32, before any temperature.

    ``codebook`` and ``hard``: cosines between a projection of its own and the teacher's label embeddings, which stay
    fixed. ``linear``: outputs of a linear layer, which have no bound. Thrown away after distillation, like all heads.
    """

    def __init__(self, variant: str, dim: int, codebook: Codebook):
        super().__init__()
        self.variant = choice(variant, "variant", VARIANTS)
        clusters, proj = codebook.label_embeddings.shape
        self.projection = nn.Linear(dim, clusters if variant == "linear" else proj)
        if variant != "linear":
            self.register_buffer("label_embeddings", codebook.label_embeddings.detach().clone())

    def forward(self, hidden: Tensor) -> Tensor:
        projected = self.projection(hidden)
        if self.variant == "linear":
            return projected.float()
        return cosines(projected, self.label_embeddings)


def check_clusters(clusters: int, frames: int) -> None:
    """Raises :class:`ConfigError` for more clusters than there are frames."""
    if frames < clusters:
        raise ConfigError(f"{clusters} clusters of {frames} frames: take fewer clusters, or more speech")
