"""Transformers, stated for torch as their users write them."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Sizes:
    """What a transformer is made of."""

    layers: int
    width: int
    heads: int
    hidden: int
    """Of the feed-forward network."""
    vocabulary: int
    sequence: int
    classes: int = 10
    """Of the encoder's head."""


MINILM = Sizes(6, 384, 12, 1536, 30522, 128)
"""MiniLM-L6-H384 (Wang et al. 2020), with a head for classes."""
SMALL_LLAMA = Sizes(8, 512, 8, 1376, 8192, 128)
"""A small decoder of the LLaMA family (Touvron et al. 2023)."""
TINY = Sizes(2, 24, 3, 40, 29, 7, 5)
"""Both, for tests: no size is a multiple of a vector."""


class Attention(nn.Module):
    """Attention over heads, with rotary position embedding where tables are given."""

    def __init__(self, sizes: Sizes, causal: bool, bias: bool) -> None:
        super().__init__()
        self.heads, self.causal = sizes.heads, causal
        self.query, self.key, self.value, self.output = (
            nn.Linear(sizes.width, sizes.width, bias) for _ in range(4)
        )

    def forward(self, x: Tensor, cosine: Tensor | None, sine: Tensor | None) -> Tensor:
        batch, length, width = x.shape
        q, k, v = (
            project(x).view(batch, length, self.heads, -1).transpose(1, 2)
            for project in (self.query, self.key, self.value)
        )
        if cosine is not None and sine is not None:
            q, k = (t * cosine + _half_turned(t) * sine for t in (q, k))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.output(y.transpose(1, 2).reshape(batch, length, width))


def _half_turned(x: Tensor) -> Tensor:
    first, second = x.chunk(2, -1)
    return torch.cat((-second, first), -1)


class EncoderLayer(nn.Module):
    """Devlin et al. 2019, "BERT": normalisation behind each sum."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.attention = Attention(sizes, causal=False, bias=True)
        self.norm1, self.norm2 = nn.LayerNorm(sizes.width), nn.LayerNorm(sizes.width)
        self.up = nn.Linear(sizes.width, sizes.hidden)
        self.down = nn.Linear(sizes.hidden, sizes.width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm1(x + self.attention(x, None, None))
        return self.norm2(x + self.down(F.gelu(self.up(x))))


class Encoder(nn.Module):
    """Tokens [batch, sequence] to logits [batch, classes]."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.tokens = nn.Embedding(sizes.vocabulary, sizes.width)
        self.positions = nn.Embedding(sizes.sequence, sizes.width)
        self.register_buffer("numbers", torch.arange(sizes.sequence)[None])
        self.norm = nn.LayerNorm(sizes.width)
        self.layers = nn.ModuleList(EncoderLayer(sizes) for _ in range(sizes.layers))
        self.pool = nn.Linear(sizes.width, sizes.width)
        self.head = nn.Linear(sizes.width, sizes.classes)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.norm(self.tokens(tokens) + self.positions(self.numbers))
        for layer in self.layers:
            x = layer(x)
        return self.head(torch.tanh(self.pool(x[:, 0])))


class DecoderLayer(nn.Module):
    """Touvron et al. 2023, "LLaMA": normalisation before each branch, gated feed-forward."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.attention = Attention(sizes, causal=True, bias=False)
        self.norm1, self.norm2 = nn.RMSNorm(sizes.width, 1e-5), nn.RMSNorm(sizes.width, 1e-5)
        self.gate = nn.Linear(sizes.width, sizes.hidden, bias=False)
        self.up = nn.Linear(sizes.width, sizes.hidden, bias=False)
        self.down = nn.Linear(sizes.hidden, sizes.width, bias=False)

    def forward(self, x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x), cosine, sine)
        y = self.norm2(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))


class Decoder(nn.Module):
    """Tokens [batch, sequence] to logits [batch, sequence, vocabulary]."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        torch.manual_seed(6)
        self.tokens = nn.Embedding(sizes.vocabulary, sizes.width)
        nn.init.normal_(self.tokens.weight, std=0.1)
        self.layers = nn.ModuleList(DecoderLayer(sizes) for _ in range(sizes.layers))
        self.norm = nn.RMSNorm(sizes.width, 1e-5)
        self.head = nn.Linear(sizes.width, sizes.vocabulary, bias=False)
        half = sizes.width // sizes.heads // 2
        rates = 10_000.0 ** (-torch.arange(half) / half)
        angles = torch.outer(torch.arange(sizes.sequence), rates).repeat(1, 2)
        self.register_buffer("cosine", angles.cos())
        self.register_buffer("sine", angles.sin())

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.tokens(tokens)
        for layer in self.layers:
            x = layer(x, self.cosine, self.sine)
        return self.head(self.norm(x))
