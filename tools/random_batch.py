"""A batch of random inputs, and targets that the loss takes."""

import numpy as np

from niwaki.ir.lowered import Lowered, Port
from niwaki.ir.weights import Array


def random_batch(lowered: Lowered, loss: str, seed: int) -> list[Array]:
    """The inputs of train_step but for the learning rate; `loss`: as `niwaki.compile` takes it."""
    random = np.random.default_rng(seed)
    ports = lowered.entries["train_step"].inputs[:-1]
    has_target = loss != "output"
    inputs = ports[:-1] if has_target else ports
    batch: list[Array] = [_normal(random, port) for port in inputs]
    if has_target:
        (output,) = lowered.entries["infer"].outputs
        batch.append(_random_target(random, loss, ports[-1], output))
    return batch


def _normal(random: np.random.Generator, port: Port) -> Array:
    return random.standard_normal(port.shape).astype(port.dtype)


def _random_target(random: np.random.Generator, loss: str, port: Port, output: Port) -> Array:
    match loss:
        case "cross_entropy":
            return random.integers(0, output.shape[-1], port.shape).astype(port.dtype)
        case "cross_entropy_soft":
            weights = random.random(port.shape)
            return (weights / weights.sum(-1, keepdims=True)).astype(port.dtype)
        case "bce":
            return random.integers(0, 2, port.shape).astype(port.dtype)
        case _:
            return _normal(random, port)
