"""HuBERT's own codebook: a projection, one embedding per cluster, cosine logits (DESIGN 1.3, arXiv 2106.07447)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Codebook(nn.Module):
    """Distribution over K cluster ids at each frame: softmax( cos(final_proj(h), e_k) / tau ).

    Args:
        dim: width of the hidden states. clusters: K. proj: width of the embeddings (256 in HuBERT Base).
        tau: temperature; HuBERT was trained with 0.1.
    """

    def __init__(self, dim: int, clusters: int, proj: int = 256, tau: float = 0.1):
        super().__init__()
        self.tau = tau
        self.final_proj = nn.Linear(dim, proj)
        self.label_embeddings = nn.Parameter(torch.empty(clusters, proj).normal_())

    def forward(self, hidden: Tensor) -> Tensor:
        """(..., dim) -> logits (..., K), cosine / tau: one normalised matmul, always in float32."""
        with torch.autocast(hidden.device.type, enabled=False):
            projected = F.normalize(self.final_proj(hidden.float()), dim=-1)
            return projected @ F.normalize(self.label_embeddings.float(), dim=-1).T / self.tau
