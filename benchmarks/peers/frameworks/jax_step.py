"""Training steps of JAX: images NHWC, filters HWIO."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax  # pyright: ignore[reportMissingImports]
import jax.numpy as jnp  # pyright: ignore[reportMissingImports]
from jax import lax  # pyright: ignore[reportMissingImports]

from benchmarks.peers.frameworks.jax_layout import LAYOUT
from benchmarks.peers.models import EPSILON, Net
from benchmarks.peers.worker import Task


class JaxOps:
    """`benchmarks.peers.models.Ops` in JAX."""

    def conv(self, x: Any, w: Any, b: Any, stride: int, padding: int, groups: int) -> Any:
        y = lax.conv_general_dilated(
            x,
            w,
            (stride, stride),
            ((padding, padding), (padding, padding)),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
        )
        return y + b

    def max_pool(self, x: Any, kernel: int, stride: int, padding: int) -> Any:
        around = ((0, 0), (padding, padding), (padding, padding), (0, 0))
        window, strides = (1, kernel, kernel, 1), (1, stride, stride, 1)
        return lax.reduce_window(x, -jnp.inf, lax.max, window, strides, around)

    def global_avg_pool(self, x: Any) -> Any:
        return x.mean((1, 2))

    def flatten(self, x: Any) -> Any:
        return x.reshape(x.shape[0], -1)

    def linear(self, x: Any, w: Any, b: Any) -> Any:
        y = lax.dot_general(x, w, (((x.ndim - 1,), (1,)), ((), ())))
        return y if b is None else y + b

    def relu(self, x: Any) -> Any:
        return jax.nn.relu(x)

    def relu6(self, x: Any) -> Any:
        return jax.nn.relu6(x)

    def gelu(self, x: Any) -> Any:
        return jax.nn.gelu(x, approximate=False)

    def silu(self, x: Any) -> Any:
        return jax.nn.silu(x)

    def tanh(self, x: Any) -> Any:
        return jnp.tanh(x)

    def add(self, a: Any, b: Any) -> Any:
        return a + b

    def mul(self, a: Any, b: Any) -> Any:
        return a * b

    def embedding(self, tokens: Any, table: Any) -> Any:
        return jnp.take(table, tokens, axis=0)

    def layer_norm(self, x: Any, gamma: Any, beta: Any) -> Any:
        centred = x - x.mean(-1, keepdims=True)
        variance = (centred * centred).mean(-1, keepdims=True)
        return centred * lax.rsqrt(variance + EPSILON) * gamma + beta

    def rms_norm(self, x: Any, gamma: Any) -> Any:
        return x * lax.rsqrt((x * x).mean(-1, keepdims=True) + EPSILON) * gamma

    def split_heads(self, x: Any, heads: int) -> Any:
        batch, sequence, size = x.shape
        return x.reshape(batch, sequence, heads, size // heads).transpose(0, 2, 1, 3)

    def merge_heads(self, x: Any) -> Any:
        batch, heads, sequence, size = x.shape
        return x.transpose(0, 2, 1, 3).reshape(batch, sequence, heads * size)

    def attention(self, q: Any, k: Any, v: Any, scale: float, causal: bool) -> Any:
        scores = jnp.einsum("bhqd,bhkd->bhqk", q, k) * scale
        if causal:
            visible = jnp.tril(jnp.ones(scores.shape[-2:], bool))
            scores = jnp.where(visible, scores, -jnp.inf)
        return jnp.einsum("bhqk,bhkd->bhqd", jax.nn.softmax(scores), v)

    def rotate(self, x: Any, cosine: Any, sine: Any) -> Any:
        first, second = jnp.split(x, 2, -1)
        turned = first * cosine - second * sine, second * cosine + first * sine
        return jnp.concatenate(turned, -1)

    def first_token(self, x: Any) -> Any:
        return x[:, 0]


@dataclass(frozen=True)
class JaxStep:
    """A step as a function, and its arguments."""

    function: Callable[..., Any]
    """(trained, frozen, inputs, labels) -> (trained, loss)."""
    trained: dict[str, Any]
    frozen: dict[str, Any]
    inputs: Any
    labels: Any


def jax_step(task: Task) -> JaxStep:
    """Forward, loss, backward and update as one function that JAX can trace."""
    model = task.model
    trainable = model.trainable(task.update)
    arrays = {name: jnp.asarray(array) for name, array in model.arrays(LAYOUT).items()}
    inputs, labels = model.data(task.batch, LAYOUT)

    def loss_of(trained: Any, frozen: Any, x: Any, y: Any) -> Any:
        logits = model.network(Net(JaxOps(), {**frozen, **trained}), x)
        rows = jax.nn.log_softmax(logits).reshape(y.size, model.classes)
        return -jnp.take_along_axis(rows, y.reshape(-1, 1), 1).mean()

    def function(trained: Any, frozen: Any, x: Any, y: Any) -> Any:
        loss, gradients = jax.value_and_grad(loss_of)(trained, frozen, x, y)
        moved = {name: value - model.lr * gradients[name] for name, value in trained.items()}
        return moved, loss

    return JaxStep(
        function,
        {name: arrays[name] for name in trainable},
        {name: array for name, array in arrays.items() if name not in trainable},
        jnp.asarray(inputs),
        jnp.asarray(labels),
    )
