"""The Transformer of the teacher and of every student: positional convolution, then layers of attention and FFN.

Post-norm (HuBERT Base) and pre-norm (HuBERT Large) are the same modules in another order, as in
"HuBERT: Self-Supervised Speech Representation Learning" (arXiv 2106.07447) and wav2vec 2.0.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdkit.model.fast.attention import attend, has_amx, multiplies_low, segments, takes_segments
from kdkit.model.fast.checks import trusted
from kdkit.model.fast.fftconv import fft_conv1d, kernel_spectrum, product_conv1d, product_matrices
from kdkit.model.fast.positions import GroupedConv, fits
from kdkit.model.relative_positions import PositionGate, RelativePositions


class PositionalConv(nn.Module):
    """Convolutional relative position embedding: one grouped, weight-normed convolution, GELU (wav2vec 2.0).

    Computed by Fourier transform (:mod:`kdkit.model.fast.fftconv`), on a GPU, too, where grouped convolutions do not
    use the matrix units. :meth:`fold` prepares it for inference.
    """

    def __init__(self, dim: int, kernel: int = 128, groups: int = 16):
        super().__init__()
        conv = nn.Conv1d(dim, dim, kernel, padding=kernel // 2, groups=groups)
        nn.init.normal_(conv.weight, std=(4.0 / (kernel * dim)) ** 0.5)
        nn.init.zeros_(conv.bias)
        self.conv = nn.utils.parametrizations.weight_norm(conv, dim=2)
        self.trim = 1 - kernel % 2  # an even kernel gives one frame too many
        self.by_fourier = True
        self.spectrum = self.matrices = None  # of the weights, once they are fixed

    def forward(self, x: Tensor) -> Tensor:  # (B, T, D)
        if not self.by_fourier or torch.compiler.is_compiling():  # when exported: runtimes have convolutions
            y = self.conv(x.transpose(1, 2))
            return F.gelu(y[..., : y.shape[-1] - self.trim]).transpose(1, 2)
        if self.matrices is not None and x.device.type == "cpu":
            y = product_conv1d(x.to(torch.bfloat16), self.matrices)
            return F.gelu(y + self.conv.bias.to(y.dtype)).to(x.dtype)
        if self.spectrum is None and multiplies_low(x) and self._by_kernels():
            low = x.to(torch.get_autocast_dtype("cuda")) if x.dtype == torch.float32 else x
            y = GroupedConv.apply(low, self.conv.weight, self.conv.groups)
            return F.gelu(y + self.conv.bias.to(y.dtype))
        spectrum = self.spectrum
        if spectrum is None:
            spectrum = kernel_spectrum(self.conv.weight, self.conv.groups)
        return F.gelu(fft_conv1d(x, spectrum.to(x.device)) + self.conv.bias).to(x.dtype)

    def _by_kernels(self) -> bool:
        return fits(self.conv) and trusted("windows") and trusted("weight_gradient")

    def fold(self, bf16: bool = False) -> None:
        """Folds the weight norm into the weight and stores its spectrum, for a model that is no longer trained.

        ``bf16``: compute in bf16 where a CPU has matrix units, which is faster there.
        """
        old = self.conv
        plain = nn.Conv1d(
            old.in_channels, old.out_channels, old.kernel_size, padding=old.padding, groups=old.groups
        )
        plain.weight.data, plain.bias.data = old.weight.detach().clone(), old.bias.detach().clone()
        self.conv = plain  # not remove_parametrizations: it would change every copy of this module
        spectrum = kernel_spectrum(self.conv.weight, self.conv.groups)
        if bf16 and spectrum.device.type == "cpu" and has_amx():
            self.matrices = product_matrices(spectrum)
        else:
            self.spectrum = spectrum.contiguous()


class Attention(nn.Module):
    """Multi-head self-attention. ``mask``: (B, 1, 1, T), True on keys that may be attended to; None without padding; or
    int32 (:func:`segments`).

    ``dtype``: of queries, keys and values, where it is not that of the linear layers. ``gated`` (WavLM): ``bias``
    (heads, T, T) is weighted by the input and added to the logits.
    """

    dtype: torch.dtype | None = None

    def __init__(self, dim: int, heads: int, dropout: float, gated: bool = False):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.gate = PositionGate(dim, heads) if gated else None
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor, mask: Tensor | None, bias: Tensor | None = None) -> Tensor:
        qkv = self.qkv(x)
        apart = qkv.to(self.dtype or qkv.dtype).unflatten(-1, (3, self.heads, -1)).unbind(2)
        q, k, v = (some.transpose(1, 2) for some in apart)  # each (B, heads, T, d)
        if bias is not None:
            bias = self.gate(x, bias).to(q.dtype)
            mask = bias if mask is None else bias.masked_fill(~mask, -torch.inf)
        y = attend(q, k, v, mask, self.dropout if self.training else 0.0)
        return self.out(y.transpose(1, 2).flatten(2).to(qkv.dtype))


class Layer(nn.Module):
    """Attention and FFN, each with a residual; LayerNorms after the sums (post-norm) or before the branches (pre-norm).

    ``residual_scale`` multiplies the residual of a post-norm layer; 1 in HuBERT Base. A deep post-norm network trains
    much faster with DeepNorm's (2 * layers) ** 0.25 and its smaller initialisation (arXiv 2203.00555).
    """

    def __init__(
        self,
        dim: int,
        ffn: int,
        heads: int,
        dropout: float,
        pre_norm: bool,
        residual_scale: float = 1.0,
        gated: bool = False,
    ):
        super().__init__()
        self.pre_norm, self.residual_scale = pre_norm, residual_scale
        self.attention = Attention(dim, heads, dropout, gated)
        self.norm1 = nn.LayerNorm(dim)
        self.ffn_in = nn.Linear(dim, ffn)
        self.ffn_out = nn.Linear(ffn, dim)
        self.norm2 = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def residual(self, x: Tensor, branch: Tensor) -> Tensor:
        return torch.add(branch, x, alpha=self.residual_scale)

    def feed_forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.ffn_out(self.dropout(F.gelu(self.ffn_in(x)))))

    def forward(self, x: Tensor, mask: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
        if self.pre_norm:
            x = x + self.dropout(self.attention(self.norm1(x), mask, bias))
            return x + self.feed_forward(self.norm2(x))
        x = self.norm1(self.residual(x, self.dropout(self.attention(x, mask, bias))))
        return self.norm2(self.residual(x, self.feed_forward(x)))


class Encoder(nn.Module):
    """Positional convolution, LayerNorm (its place depends on ``pre_norm``), ``layers`` layers.

    ``forward(x (B, T, D), mask (B, T) or None)`` gives the list of ``layers + 1`` hidden states, each (B, T, D): the
    input of layer 1, then the output of every layer after its residual; with ``depth`` only those up to that layer. In
    a pre-norm encoder the last one has passed the final LayerNorm, as in transformers. ``relative_buckets`` and
    ``relative_distance`` are WavLM's (:mod:`kdkit.model.relative_positions`); 0 buckets: no relative positions.
    """

    def __init__(
        self,
        dim: int,
        layers: int,
        ffn: int,
        heads: int,
        dropout: float = 0.1,
        pre_norm: bool = False,
        pos_kernel: int = 128,
        pos_groups: int = 16,
        residual_scale: float = 1.0,
        relative_buckets: int = 0,
        relative_distance: int = 800,
    ):
        super().__init__()
        self.pre_norm = pre_norm
        self.positions = PositionalConv(dim, pos_kernel, pos_groups)
        self.norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)
        gated = relative_buckets > 0
        self.relative = RelativePositions(heads, relative_buckets, relative_distance) if gated else None
        self.layers = nn.ModuleList(
            Layer(dim, ffn, heads, dropout, pre_norm, residual_scale, gated) for _ in range(layers)
        )
        # frames are padded to a multiple of this: some kernels are faster with round numbers
        self.multiple = 1
        self.apply(_init_bert)
        if residual_scale != 1.0:
            self._init_deepnorm()

    def forward(self, x: Tensor, mask: Tensor | None = None, depth: int | None = None) -> list[Tensor]:
        total, more = x.shape[1], -x.shape[1] % self.multiple
        if more and not torch.compiler.is_compiling():
            mask = x.new_ones(x.shape[:2], dtype=torch.bool) if mask is None else mask
            hidden = self._forward(F.pad(x, (0, 0, 0, more)), F.pad(mask, (0, more)), depth)
            return [state[:, :total] for state in hidden]
        return self._forward(x, mask, depth)

    def _forward(self, x: Tensor, mask: Tensor | None, depth: int | None) -> list[Tensor]:
        keys = None
        if mask is not None:
            x = x * mask[..., None]  # the positional convolution must see zeros after the end of an utterance
            plain = self.relative is not None or not takes_segments(x, self.layers[0].attention.heads)
            keys = mask[:, None, None] if plain else segments(mask)
        x = x + self.positions(x)
        x = self.dropout(x if self.pre_norm else self.norm(x))
        hidden, bias = [x], self.relative(x.shape[1]) if self.relative else None
        for layer in self.layers[:depth]:
            hidden.append(layer(hidden[-1], keys, bias))
        if self.pre_norm and len(hidden) > len(self.layers):
            hidden[-1] = self.norm(hidden[-1])
        return hidden

    def _init_deepnorm(self) -> None:
        gain = (8 * len(self.layers)) ** -0.25
        for layer in self.layers:
            query, key, value = layer.attention.qkv.weight.chunk(3)
            nn.init.xavier_normal_(query)
            nn.init.xavier_normal_(key)
            for weight in (value, layer.attention.out.weight, layer.ffn_in.weight, layer.ffn_out.weight):
                nn.init.xavier_normal_(weight, gain)


def _init_bert(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):  # BERT's initialisation, as in fairseq
        nn.init.normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
