"""A small decoder, stated for torch under the names of Hugging Face Transformers."""

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from xdsl.dialects.builtin import f32

from niwaki.frontends.decoder_config import DecoderConfig, LowRank

CONFIG = DecoderConfig(
    hidden=32,
    intermediate=48,
    blocks=2,
    heads=4,
    key_value_heads=2,
    vocabulary=50,
    positions=16,
    epsilon=1e-5,
    rope_theta=100.0,
    element=f32,
    tied=False,
)
CONFIGS = {
    "grouped": CONFIG,
    "one-for-each": replace(CONFIG, key_value_heads=4),
    "one-for-all": replace(CONFIG, key_value_heads=1, blocks=1),
    "tied": replace(CONFIG, tied=True, blocks=1),
}


class Projection(nn.Module):
    """A matrix, with an adapter or without."""

    def __init__(self, inputs: int, outputs: int, adapters: LowRank | None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / inputs**0.5)
        self.factor = 0.0
        if adapters is not None:
            self.factor = adapters.alpha / adapters.rank
            self.lora_A = nn.Linear(inputs, adapters.rank, bias=False)
            self.lora_B = nn.Linear(adapters.rank, outputs, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x @ self.weight.T
        return y + self.factor * self.lora_B(self.lora_A(x)) if self.factor else y


def _rotated(x: torch.Tensor, theta: float) -> torch.Tensor:
    length, size = x.shape[-2:]
    rates = theta ** (-torch.arange(0, size, 2) / size)
    turns = torch.polar(torch.ones(length, size // 2), torch.outer(torch.arange(length), rates))
    y = torch.complex(x[..., : size // 2], x[..., size // 2 :]) * turns
    return torch.cat((y.real, y.imag), -1)


class Attention(nn.Module):
    def __init__(self, c: DecoderConfig, adapters: LowRank | None) -> None:
        super().__init__()
        self.c = c
        keys = c.key_value_heads * c.head
        for name, outputs in (("q", c.hidden), ("k", keys), ("v", keys), ("o", c.hidden)):
            setattr(self, f"{name}_proj", projection(name, c.hidden, outputs, adapters))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        c, (batch, length, _) = self.c, x.shape
        q = self.q_proj(x).view(batch, length, c.heads, c.head).transpose(1, 2)
        k, v = (
            p(x).view(batch, length, c.key_value_heads, c.head).transpose(1, 2)
            for p in (self.k_proj, self.v_proj)
        )
        q, k = _rotated(q, c.rope_theta), _rotated(k, c.rope_theta)
        y = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        return self.o_proj(y.transpose(1, 2).reshape(batch, length, c.hidden))


class FeedForward(nn.Module):
    def __init__(self, c: DecoderConfig, adapters: LowRank | None) -> None:
        super().__init__()
        self.gate_proj = projection("gate", c.hidden, c.intermediate, adapters)
        self.up_proj = projection("up", c.hidden, c.intermediate, adapters)
        self.down_proj = projection("down", c.intermediate, c.hidden, adapters)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down_proj(nn.functional.silu(self.gate_proj(x)) * self.up_proj(x))


class DecoderBlock(nn.Module):
    def __init__(self, c: DecoderConfig, adapters: LowRank | None) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(c.hidden, c.epsilon)
        self.self_attn = Attention(c, adapters)
        self.post_attention_layernorm = nn.RMSNorm(c.hidden, c.epsilon)
        self.mlp = FeedForward(c, adapters)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.self_attn(self.input_layernorm(x))
        return x + self.mlp(self.post_attention_layernorm(x))


class Decoder(nn.Module):
    """Tokens [batch, sequence] to logits; only adapters have gradients where there are some."""

    def __init__(self, c: DecoderConfig, adapters: LowRank | None = None) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.model = nn.Module()
        self.model.embed_tokens = nn.Embedding(c.vocabulary, c.hidden)
        self.model.layers = nn.ModuleList(DecoderBlock(c, adapters) for _ in range(c.blocks))
        self.model.norm = nn.RMSNorm(c.hidden, c.epsilon)
        self.lm_head = nn.Linear(c.hidden, c.vocabulary, bias=False)
        if c.tied:
            self.lm_head.weight = self.model.embed_tokens.weight
        for name, parameter in self.named_parameters():
            if "norm" in name:
                nn.init.normal_(parameter, 1.0, 0.1)
            parameter.requires_grad_(adapters is None or "lora" in name)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.model.embed_tokens(tokens)
        for block in self.model.layers:
            x = block(x)
        return self.lm_head(self.model.norm(x))

    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """Copies of the parameters."""
        return {n: p.detach().numpy().copy() for n, p in self.named_parameters()}


def projection(name: str, inputs: int, outputs: int, adapters: LowRank | None) -> Projection:
    """The matrix `name`, with an adapter if it is to have one."""
    adapted = adapters is not None and name in adapters.targets
    return Projection(inputs, outputs, adapters if adapted else None)


def tokens(config: DecoderConfig, batch: int, sequence: int, seed: int = 0) -> NDArray[np.int32]:
    """Random tokens, and one after each: [batch, sequence + 1]."""
    random = np.random.default_rng(seed)
    return random.integers(0, config.vocabulary, (batch, sequence + 1), np.int32)
