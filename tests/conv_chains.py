"""Chains of equal convolutions: what they keep for the backward pass is most of their memory."""

import numpy as np

from niwaki.ir.builder import ProgramBuilder
from niwaki.ir.program import Program

CHANNELS = 4
SIZE = 16


def conv_chain(batch: int, layers: int, batch_norm: bool = False) -> Program:
    """On [batch, 16, 16, 4]; 4 classes. The layers share their kernels, so it compiles fast."""
    random = np.random.default_rng(0)
    b = ProgramBuilder()
    x = b.input((batch, SIZE, SIZE, CHANNELS))
    for i in range(layers):
        w = random.standard_normal((CHANNELS, 3, 3, CHANNELS)).astype(np.float32) / 4
        x = b.conv2d(x, b.weight(f"conv{i}.weight", w), padding=1)
        if batch_norm:
            gamma, beta, mean, var = (
                b.weight(f"bn{i}.{name}", np.full(CHANNELS, value, np.float32))
                for name, value in (("weight", 1), ("bias", 0), ("mean", 0), ("var", 1))
            )
            x = b.batch_norm(x, gamma, beta, mean, var, training=True)
        x = b.tanh(x)
    return b.finish(b.reshape(b.reduce_mean(x, [1, 2]), (batch, CHANNELS)))
