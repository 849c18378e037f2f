"""Networks for tests and benchmarks, each stated once and built twice: as Program and in torch.

Parameters carry torch-like names ("stem.weight", "blocks.0.dw.bias"); filters are OHWI in the
program and OIHW in torch. Weights are drawn by He et al. 2015 from a seed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from niwaki.ir.builder import ProgramBuilder
from niwaki.ir.dialects.tensor_op import shape_of
from niwaki.ir.program import Program

if TYPE_CHECKING:
    import torch


class Net(Protocol):
    """What a network is stated in."""

    def conv(
        self,
        name: str,
        x: Any,
        channels: int,
        kernel: int,
        stride: int = 1,
        padding: int = 0,
        groups: int = 1,
        gain: float = 2.0,
    ) -> Any:
        """A convolution with bias; `gain`: variance of the weights times their fan-in."""
        ...

    def dense(self, name: str, x: Any, channels: int) -> Any:
        """A dense layer with bias."""
        ...

    def batch_norm(self, name: str, x: Any, training: bool) -> Any:
        """Batch norm with running statistics that are not 0 and 1."""
        ...

    def relu(self, x: Any) -> Any: ...
    def relu6(self, x: Any) -> Any: ...
    def add(self, a: Any, b: Any) -> Any: ...
    def max_pool(self, x: Any, kernel: int, stride: int, padding: int = 0) -> Any: ...
    def global_avg_pool(self, x: Any) -> Any: ...

    def flatten(self, x: Any) -> Any:
        """In the order height, width, channel."""
        ...

    def channels(self, x: Any) -> int: ...


Network = Callable[[Net, Any], Any]


class _ProgramNet:
    """Builds a program and draws its weights."""

    def __init__(self, seed: int) -> None:
        self.builder = ProgramBuilder()
        self.random = np.random.default_rng(seed)
        self.relu = self.builder.relu
        self.relu6 = self.builder.relu6
        self.add = self.builder.add
        self.global_avg_pool = self.builder.global_avg_pool

    def _normal(self, shape: tuple[int, ...], variance: float) -> NDArray[np.float32]:
        return (self.random.standard_normal(shape) * variance**0.5).astype(np.float32)

    def _bias(self, name: str, channels: int) -> Any:
        return self.builder.weight(f"{name}.bias", self._normal((channels,), 0.01))

    def conv(
        self,
        name: str,
        x: Any,
        channels: int,
        kernel: int,
        stride: int = 1,
        padding: int = 0,
        groups: int = 1,
        gain: float = 2.0,
    ) -> Any:
        inputs = self.channels(x) // groups
        array = self._normal((channels, kernel, kernel, inputs), gain / (kernel**2 * inputs))
        w = self.builder.weight(f"{name}.weight", array)
        y = self.builder.conv2d(x, w, strides=stride, padding=padding, groups=groups)
        return self.builder.add(y, self._bias(name, channels))

    def dense(self, name: str, x: Any, channels: int) -> Any:
        inputs = self.channels(x)
        w = self.builder.weight(f"{name}.weight", self._normal((channels, inputs), 1.0 / inputs))
        return self.builder.dense(x, w, self._bias(name, channels))

    def batch_norm(self, name: str, x: Any, training: bool) -> Any:
        shape = (self.channels(x),)
        gamma = self.builder.weight(f"{name}.weight", 1 + self._normal(shape, 0.01))
        beta = self.builder.weight(f"{name}.bias", self._normal(shape, 0.01))
        mean = self.builder.weight(f"{name}.running_mean", self._normal(shape, 0.01))
        var = self.builder.weight(f"{name}.running_var", 1 + np.abs(self._normal(shape, 0.01)))
        return self.builder.batch_norm(x, gamma, beta, mean, var, training=training)

    def max_pool(self, x: Any, kernel: int, stride: int, padding: int = 0) -> Any:
        return self.builder.max_pool2d(x, kernel, stride, padding)

    def flatten(self, x: Any) -> Any:
        shape = shape_of(x)
        return self.builder.reshape(x, [shape[0], int(np.prod(shape[1:]))])

    def channels(self, x: Any) -> int:
        return shape_of(x)[-1]


class _TorchNet:
    """Runs a network in torch, on `parameters` under the program's names."""

    def __init__(self, parameters: Mapping[str, torch.Tensor]) -> None:
        import torch

        self.parameters = parameters
        self.relu = torch.nn.functional.relu
        self.relu6 = torch.nn.functional.relu6
        self.add = torch.add

    def conv(
        self,
        name: str,
        x: Any,
        channels: int,
        kernel: int,
        stride: int = 1,
        padding: int = 0,
        groups: int = 1,
        gain: float = 2.0,
    ) -> Any:
        import torch

        w, bias = self.parameters[f"{name}.weight"], self.parameters[f"{name}.bias"]
        return torch.nn.functional.conv2d(x, w, bias, stride, padding, groups=groups)

    def dense(self, name: str, x: Any, channels: int) -> Any:
        import torch

        return torch.nn.functional.linear(
            x, self.parameters[f"{name}.weight"], self.parameters[f"{name}.bias"]
        )

    def batch_norm(self, name: str, x: Any, training: bool) -> Any:
        import torch

        return torch.nn.functional.batch_norm(
            x,
            self.parameters[f"{name}.running_mean"],
            self.parameters[f"{name}.running_var"],
            self.parameters[f"{name}.weight"],
            self.parameters[f"{name}.bias"],
            training=training,
        )

    def max_pool(self, x: Any, kernel: int, stride: int, padding: int = 0) -> Any:
        import torch

        return torch.nn.functional.max_pool2d(x, kernel, stride, padding)

    def global_avg_pool(self, x: Any) -> Any:
        return x.mean((2, 3))

    def flatten(self, x: Any) -> Any:
        return x.permute(0, 2, 3, 1).flatten(1)

    def channels(self, x: Any) -> int:
        return x.shape[1]


def program_of(network: Network, shape: tuple[int, ...], seed: int = 0) -> Program:
    """`network` on an input of `shape`."""
    net = _ProgramNet(seed)
    return net.builder.finish(network(net, net.builder.input(shape)))


def torch_module(
    network: Network, program: Program, dtype: torch.dtype | None = None
) -> torch.nn.Module:
    """The torch twin of `program`, built from the same `network`: NCHW in, logits out.

    Its weights are copies of the program's. `torch_parameters` names them as the program does.
    """
    import torch

    class Twin(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            tensors: dict[str, torch.Tensor] = {}
            for name, array in program.weights.items():
                tensor = torch.tensor(_to_torch(np.asarray(array)), dtype=dtype)
                if "running_" in name:
                    tensors[name] = tensor
                    self.register_buffer(name.replace(".", "_"), tensor)
                else:
                    tensors[name] = torch.nn.Parameter(tensor)
                    self.register_parameter(name.replace(".", "_"), tensors[name])
            self.net = _TorchNet(tensors)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return network(self.net, x)

    return Twin()


def torch_parameters(module: torch.nn.Module) -> Mapping[str, torch.Tensor]:
    """Parameters and running statistics of a twin, under the program's names."""
    net = module.net
    assert isinstance(net, _TorchNet)
    return net.parameters


def _to_torch(array: NDArray[Any]) -> NDArray[Any]:
    return array.transpose(0, 3, 1, 2).copy() if array.ndim == 4 else array.copy()


def to_program_layout(tensor: torch.Tensor) -> NDArray[Any]:
    """A torch parameter (or its gradient) as the program stores it: OHWI."""
    array = tensor.detach().numpy()
    return array.transpose(0, 2, 3, 1) if array.ndim == 4 else array


# --- the networks


def lenet_network(net: Net, x: Any) -> Any:
    """Two convolutions with max pooling, three dense layers (after LeCun et al. 1998)."""
    x = net.max_pool(net.relu(net.conv("conv1", x, 6, 5, padding=2)), 2, 2)
    x = net.max_pool(net.relu(net.conv("conv2", x, 16, 5)), 2, 2)
    x = net.relu(net.dense("fc1", net.flatten(x), 120))
    x = net.relu(net.dense("fc2", x, 84))
    return net.dense("fc3", x, 10)


def lenet(batch: int, size: int = 28, seed: int = 0) -> Program:
    """LeNet on [batch, size, size, 1]; 10 classes."""
    return program_of(lenet_network, (batch, size, size, 1), seed)


_MOBILENET_V2 = (
    (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2),
    (6, 320, 1, 1),
)  # fmt: skip
"""Expansion, output channels, repeats, stride of the first (Sandler et al. 2018, table 2)."""


def _divisible(channels: float) -> int:
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * channels else rounded + 8


def mobilenet_v2_network(width: float = 0.35, classes: int = 10, depth: int = 1) -> Network:
    """MobileNetV2 without the last 1x1 convolution; `depth` multiplies the repeats of blocks."""

    def block(net: Net, name: str, x: Any, expansion: int, channels: int, stride: int) -> Any:
        inputs = net.channels(x)
        y = x
        if expansion > 1:
            y = net.relu6(net.conv(f"{name}.pw1", y, inputs * expansion, 1))
        hidden = net.channels(y)
        y = net.relu6(net.conv(f"{name}.dw", y, hidden, 3, stride, 1, groups=hidden))
        y = net.conv(f"{name}.pw2", y, channels, 1, gain=1.0)
        return net.add(x, y) if stride == 1 and inputs == channels else y

    def network(net: Net, x: Any) -> Any:
        x = net.relu6(net.conv("stem", x, _divisible(32 * width), 3, 2, 1))
        number = 0
        for expansion, channels, repeats, first_stride in _MOBILENET_V2:
            for i in range(repeats * depth):
                stride = first_stride if i == 0 else 1
                x = block(
                    net, f"blocks.{number}", x, expansion, _divisible(channels * width), stride
                )
                number += 1
        return net.dense("fc", net.global_avg_pool(x), classes)

    return network


def mobilenet_v2(
    batch: int,
    size: int = 128,
    width: float = 0.35,
    classes: int = 10,
    depth: int = 1,
    seed: int = 0,
) -> Program:
    """MobileNetV2 on [batch, size, size, 3]: 51 convolutions and a dense head at depth 1."""
    return program_of(mobilenet_v2_network(width, classes, depth), (batch, size, size, 3), seed)


def resnet18_network(classes: int = 10, batch_norm: bool | str = False, width: int = 64) -> Network:
    """ResNet-18 (He et al. 2016); `batch_norm` is False, "frozen" or "training"."""

    def conv(net: Net, name: str, x: Any, channels: int, kernel: int, stride: int) -> Any:
        gain = 0.5 if name.endswith("conv2") else 2.0
        y = net.conv(name, x, channels, kernel, stride, kernel // 2, gain=gain)
        if not batch_norm:
            return y
        return net.batch_norm(f"{name}_bn", y, training=batch_norm == "training")

    def block(net: Net, name: str, x: Any, channels: int, stride: int) -> Any:
        y = net.relu(conv(net, f"{name}.conv1", x, channels, 3, stride))
        y = conv(net, f"{name}.conv2", y, channels, 3, 1)
        if stride > 1:
            x = conv(net, f"{name}.downsample", x, channels, 1, stride)
        return net.relu(net.add(x, y))

    def network(net: Net, x: Any) -> Any:
        x = net.relu(conv(net, "conv1", x, width, 7, 2))
        x = net.max_pool(x, 3, 2, 1)
        for stage in range(4):
            for i in (0, 1):
                stride = 2 if stage > 0 and i == 0 else 1
                x = block(net, f"layer{stage + 1}.{i}", x, width * 2**stage, stride)
        return net.dense("fc", net.global_avg_pool(x), classes)

    return network


def resnet18(
    batch: int,
    size: int = 64,
    classes: int = 10,
    batch_norm: bool | str = False,
    width: int = 64,
    seed: int = 0,
) -> Program:
    """ResNet-18 on [batch, size, size, 3]."""
    return program_of(resnet18_network(classes, batch_norm, width), (batch, size, size, 3), seed)
