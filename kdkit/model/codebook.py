"""Cluster ids at every frame: HuBERT's codebook, k-means centroids where a teacher has none, and the student's side.

DESIGN 1.3, arXiv 2106.07447 (codebook) and 2210.15631 (student variants).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdkit.common.errors import ConfigError

VARIANTS = ("codebook", "linear", "hard")
TAU = (1e-4, 1e4)  # what a temperature may be


def cosine_logits(projected: Tensor, embeddings: Tensor, tau: float) -> Tensor:
    """(..., proj), (K, proj) -> (..., K): cosine / tau as one normalised matmul, in float32 inside autocast too."""
    with torch.autocast(projected.device.type, enabled=False):
        return F.normalize(projected.float(), dim=-1) @ F.normalize(embeddings.float(), dim=-1).T / tau


class Codebook(nn.Module):
    """Distribution over K cluster ids at each frame: softmax( cos(final_proj(h), e_k) / tau ).

    Args:
        dim: width of the hidden states. clusters: K. proj: width of the embeddings (256 in HuBERT Base).
        tau: temperature; HuBERT was trained with 0.1.

    Every row of ``label_embeddings`` is a cluster. fairseq's HuBERT has four rows of dictionary specials in front of
    its 500 clusters, which are never targets: :meth:`from_hubert` leaves them out.
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
        """Codebook of fairseq's ``final_proj`` (proj, dim), (proj,) and ``label_embs_concat`` (rows, proj)."""
        rows = label_embeddings[specials:]
        codebook = cls(weight.shape[1], len(rows), weight.shape[0], tau)
        codebook.load_state_dict(
            {"final_proj.weight": weight, "final_proj.bias": bias, "label_embeddings": rows}
        )
        return codebook.requires_grad_(False).eval()

    @classmethod
    def from_centroids(cls, centroids: Tensor, tau: float = 0.1) -> Codebook:
        """Codebook of k-means centroids (K, dim) of a teacher layer, for a teacher that carries none.

        The projection only takes the centroids' mean away, so that the cosine compares directions from the centre of
        the data: softmax( cos(h - mean, c_k - mean) / tau ).
        """
        mean = centroids.mean(0)
        codebook = cls(len(mean), len(centroids), len(mean), tau)
        state = {"final_proj.weight": torch.eye(len(mean)), "final_proj.bias": -mean}
        codebook.load_state_dict(state | {"label_embeddings": centroids - mean})
        return codebook.requires_grad_(False).eval()

    def forward(self, hidden: Tensor) -> Tensor:
        """(..., dim) -> logits (..., K), cosine / tau."""
        with torch.autocast(hidden.device.type, enabled=False):
            return cosine_logits(self.final_proj(hidden.float()), self.label_embeddings, self.tau)


class ClusterHead(nn.Module):
    """The student's distribution over the teacher's cluster ids; thrown away after distillation like all heads.

    ``codebook`` and ``hard``: the student's own projection, scored by the teacher's label embeddings, which stay as
    they are. ``linear``: logits of a linear layer. All divided by ``tau``: (..., dim) -> (..., K).
    """

    def __init__(self, variant: str, dim: int, codebook: Codebook, tau: float):
        super().__init__()
        if variant not in VARIANTS:
            raise ConfigError(f"discriminative variant {variant!r}: choose one of {', '.join(VARIANTS)}")
        clusters, proj = codebook.label_embeddings.shape
        self.variant, self.tau = variant, tau
        self.projection = nn.Linear(dim, clusters if variant == "linear" else proj)
        if variant != "linear":
            self.register_buffer("label_embeddings", codebook.label_embeddings.detach().clone())

    def forward(self, hidden: Tensor) -> Tensor:
        projected = self.projection(hidden)
        if self.variant == "linear":
            return projected.float() / self.tau
        return cosine_logits(projected, self.label_embeddings, self.tau)


def check_clusters(clusters: int, frames: int) -> None:
    """Raises :class:`ConfigError` for more clusters than there are frames to make them of."""
    if frames < clusters:
        raise ConfigError(f"{clusters} clusters of {frames} frames: take fewer clusters, or more speech")
