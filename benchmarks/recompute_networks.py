"""Networks with batch norm in training mode, whose training graphs are worth recomputing."""

from typing import Any

import numpy as np

from niwaki.ir.builder import ProgramBuilder
from niwaki.ir.dialects.tensor_op import shape_of
from niwaki.ir.program import Program


class _Net:
    """Convolutions, each with a batch norm; the weights are zero, as only sizes matter."""

    def __init__(self) -> None:
        self.builder = ProgramBuilder()

    def weight(self, name: str, *shape: int) -> Any:
        return self.builder.weight(name, np.zeros(shape, np.float32))

    def conv(self, name: str, x: Any, channels: int, kernel: int, stride: int, groups: int) -> Any:
        """A convolution of the same padding, and its batch norm."""
        b = self.builder
        weight = self.weight(f"{name}.w", channels, kernel, kernel, shape_of(x)[-1] // groups)
        y = b.conv2d(x, weight, strides=stride, padding=kernel // 2, groups=groups)
        gamma, beta, mean, var = (
            self.weight(f"{name}.{statistic}", channels)
            for statistic in ("gamma", "beta", "mean", "var")
        )
        return b.batch_norm(y, gamma, beta, mean, var, training=True)

    def finish(self, x: Any, classes: int) -> Program:
        x = self.builder.global_avg_pool(x)
        weight = self.weight("fc.w", classes, shape_of(x)[-1])
        return self.builder.finish(self.builder.dense(x, weight, self.weight("fc.b", classes)))


def resnet50(batch: int, size: int = 224) -> Program:
    """ResNet-50 (He et al. 2016, table 1) on [batch, size, size, 3]."""
    net = _Net()
    b = net.builder
    x = b.input((batch, size, size, 3))
    x = b.max_pool2d(b.relu(net.conv("stem", x, 64, 7, 2, 1)), 3, 2, 1)
    for stage, repeats in enumerate((3, 4, 6, 3)):
        for i in range(repeats):
            name, width = f"stage{stage}.{i}", 64 * 2**stage
            stride = 2 if stage > 0 and i == 0 else 1
            y = b.relu(net.conv(f"{name}.reduce", x, width, 1, 1, 1))
            y = b.relu(net.conv(f"{name}.conv", y, width, 3, stride, 1))
            y = net.conv(f"{name}.expand", y, 4 * width, 1, 1, 1)
            x = net.conv(f"{name}.shortcut", x, 4 * width, 1, stride, 1) if i == 0 else x
            x = b.relu(b.add(x, y))
    return net.finish(x, 1000)


_BLOCKS = (
    (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2),
    (6, 320, 1, 1),
)  # fmt: skip
"""Expansion, output channels, repeats, stride of the first (Sandler et al. 2018, table 2)."""


def mobilenet_v2(batch: int, size: int = 224) -> Program:
    """MobileNetV2 (Sandler et al. 2018) on [batch, size, size, 3]."""
    net = _Net()
    b = net.builder
    x = b.relu6(net.conv("stem", b.input((batch, size, size, 3)), 32, 3, 2, 1))
    for stage, (expansion, channels, repeats, first_stride) in enumerate(_BLOCKS):
        for i in range(repeats):
            name, inputs = f"stage{stage}.{i}", shape_of(x)[-1]
            stride, hidden = first_stride if i == 0 else 1, inputs * expansion
            y = b.relu6(net.conv(f"{name}.expand", x, hidden, 1, 1, 1)) if expansion > 1 else x
            y = b.relu6(net.conv(f"{name}.depthwise", y, hidden, 3, stride, hidden))
            y = net.conv(f"{name}.project", y, channels, 1, 1, 1)
            x = b.add(x, y) if stride == 1 and inputs == channels else y
    return net.finish(b.relu6(net.conv("last", x, 1280, 1, 1, 1)), 1000)
