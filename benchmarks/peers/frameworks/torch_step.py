"""Training steps of PyTorch."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from benchmarks.peers.models import EPSILON, Layout, Net
from benchmarks.peers.worker import Built, Task

LAYOUT = Layout()


class TorchOps:
    """`benchmarks.peers.models.Ops` in PyTorch."""

    def conv(self, x: Any, w: Any, b: Any, stride: int, padding: int, groups: int) -> Any:
        return functional.conv2d(x, w, b, stride, padding, groups=groups)

    def max_pool(self, x: Any, kernel: int, stride: int, padding: int) -> Any:
        return functional.max_pool2d(x, kernel, stride, padding)

    def global_avg_pool(self, x: Any) -> Any:
        return x.mean((2, 3))

    def flatten(self, x: Any) -> Any:
        return x.flatten(1)

    def linear(self, x: Any, w: Any, b: Any) -> Any:
        return functional.linear(x, w, b)

    def relu(self, x: Any) -> Any:
        return functional.relu(x)

    def relu6(self, x: Any) -> Any:
        return functional.relu6(x)

    def gelu(self, x: Any) -> Any:
        return functional.gelu(x)

    def silu(self, x: Any) -> Any:
        return functional.silu(x)

    def tanh(self, x: Any) -> Any:
        return torch.tanh(x)

    def add(self, a: Any, b: Any) -> Any:
        return a + b

    def mul(self, a: Any, b: Any) -> Any:
        return a * b

    def embedding(self, tokens: Any, table: Any) -> Any:
        return functional.embedding(tokens, table)

    def layer_norm(self, x: Any, gamma: Any, beta: Any) -> Any:
        return functional.layer_norm(x, gamma.shape, gamma, beta, EPSILON)

    def rms_norm(self, x: Any, gamma: Any) -> Any:
        return functional.rms_norm(x, gamma.shape, gamma, EPSILON)

    def split_heads(self, x: Any, heads: int) -> Any:
        batch, sequence, size = x.shape
        return x.reshape(batch, sequence, heads, size // heads).transpose(1, 2)

    def merge_heads(self, x: Any) -> Any:
        return x.transpose(1, 2).flatten(2)

    def attention(self, q: Any, k: Any, v: Any, scale: float, causal: bool) -> Any:
        return functional.scaled_dot_product_attention(q, k, v, is_causal=causal, scale=scale)

    def rotate(self, x: Any, cosine: Any, sine: Any) -> Any:
        first, second = x.chunk(2, -1)
        return torch.cat([first * cosine - second * sine, second * cosine + first * sine], -1)

    def first_token(self, x: Any) -> Any:
        return x[:, 0]


class Module(torch.nn.Module):
    """A model, of whose parameters those named in `trainable` have gradients."""

    def __init__(self, task: Task, trainable: Sequence[str]) -> None:
        super().__init__()
        self._network = task.model.network
        self._ops = TorchOps()
        self._named = {
            name: torch.nn.Parameter(torch.from_numpy(array), requires_grad=name in trainable)
            for name, array in task.model.arrays(LAYOUT).items()
        }
        for name, parameter in self._named.items():
            self.register_parameter(name.replace(".", "_"), parameter)

    def forward(self, x: torch.Tensor) -> Any:
        """The logits."""
        return self._network(Net(self._ops, self._named), x)


def build(task: Task, compiled: bool = False, channels_last: bool = False) -> Built:
    """The step: eager, or through `torch.compile`; images NCHW, or with channels last in memory."""
    torch.set_num_threads(task.threads)
    torch.set_num_interop_threads(1)
    module = Module(task, task.model.trainable(task.update))
    inputs, classes = task.model.data(task.batch, LAYOUT)
    x, y = torch.from_numpy(inputs), torch.from_numpy(classes.astype(np.int64)).flatten()
    if channels_last and x.ndim == 4:
        x = x.contiguous(memory_format=torch.channels_last)
        module.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    parameters = [p for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=task.model.lr)

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(module(x).flatten(0, -2), y)

    loss_function = torch.compile(loss_of) if compiled else loss_of

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        loss = loss_function(x, y)
        loss.backward()
        optimizer.step()
        return float(loss.item())

    return Built(step)
