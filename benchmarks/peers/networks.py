"""The networks that are measured, by name."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from benchmarks.peers.models import Model, Net, Network


def mlp(net: Net, x: Any) -> Any:
    """Three dense layers on flat images."""
    x = net.ops.relu(net.linear("fc1", x, (784, 256)))
    x = net.ops.relu(net.linear("fc2", x, (256, 128)))
    return net.linear("fc3", x, (128, 10))


def lenet(net: Net, x: Any) -> Any:
    """Two convolutions with max pooling, three dense layers (after LeCun et al. 1998)."""
    x = net.ops.max_pool(net.ops.relu(net.conv("conv1", x, (1, 6), 5, padding=2)), 2, 2, 0)
    x = net.ops.max_pool(net.ops.relu(net.conv("conv2", x, (6, 16), 5)), 2, 2, 0)
    x = net.ops.flatten(x)
    x = net.ops.relu(net.linear("fc1", x, (400, 120), image=(16, 5, 5)))
    x = net.ops.relu(net.linear("fc2", x, (120, 84)))
    return net.linear("fc3", x, (84, 10))


Stages = Sequence[tuple[int, int, int, int]]
"""Expansion, output channels, repeats, stride of the first."""

WIDTH_035: Stages = (
    (1, 8, 1, 1), (6, 8, 2, 2), (6, 16, 3, 2), (6, 24, 4, 2), (6, 32, 3, 1), (6, 56, 3, 2),
    (6, 112, 1, 1),
)  # fmt: skip
"""As in the code of "On-Device Training Under 256KB Memory" (Lin et al. 2022)."""
WIDTH_100: Stages = (
    (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2),
    (6, 320, 1, 1),
)  # fmt: skip
"""Sandler et al. 2018, table 2."""


def mobilenet_v2(stages: Stages, stem: int, last: int | None, classes: int) -> Network:
    """MobileNetV2, its batch norms folded; `last`: channels of a 1x1 convolution at the end."""

    def block(net: Net, name: str, x: Any, channels: tuple[int, int, int], stride: int) -> Any:
        inputs, hidden, outputs = channels
        residual = stride == 1 and inputs == outputs
        y = x
        if hidden > inputs:
            y = net.ops.relu6(net.conv(f"{name}.expand", y, (inputs, hidden), 1))
        y = net.conv(f"{name}.depthwise", y, (hidden, hidden), 3, stride, 1, groups=hidden)
        gain = 0.2 if residual else 1.0
        y = net.conv(f"{name}.project", net.ops.relu6(y), (hidden, outputs), 1, gain=gain)
        return net.ops.add(x, y) if residual else y

    def network(net: Net, x: Any) -> Any:
        x = net.ops.relu6(net.conv("stem", x, (3, stem), 3, 2, 1))
        inputs, number = stem, 0
        for expansion, outputs, repeats, first_stride in stages:
            for i in range(repeats):
                channels = (inputs, inputs * expansion, outputs)
                x = block(net, f"blocks.{number}", x, channels, first_stride if i == 0 else 1)
                inputs, number = outputs, number + 1
        if last is not None:
            x = net.ops.relu6(net.conv("last", x, (inputs, last), 1))
            inputs = last
        return net.linear("head", net.ops.global_avg_pool(x), (inputs, classes))

    return network


def resnet18(net: Net, x: Any) -> Any:
    """ResNet-18 (He et al. 2016), its batch norms folded, 1000 classes."""
    x = net.ops.max_pool(net.ops.relu(net.conv("stem", x, (3, 64), 7, 2, 3)), 3, 2, 1)
    inputs = 64
    for stage in range(4):
        outputs = 64 * 2**stage
        for i in (0, 1):
            stride, name = (2 if stage > 0 and i == 0 else 1), f"blocks.{2 * stage + i}"
            y = net.ops.relu(net.conv(f"{name}.conv1", x, (inputs, outputs), 3, stride, 1))
            y = net.conv(f"{name}.conv2", y, (outputs, outputs), 3, 1, 1, gain=0.2)
            if inputs != outputs:
                x = net.conv(f"{name}.downsample", x, (inputs, outputs), 1, stride)
            x = net.ops.relu(net.ops.add(x, y))
            inputs = outputs
    return net.linear("head", net.ops.global_avg_pool(x), (512, 1000))


def encoder(net: Net, tokens: Any) -> Any:
    """The shape of all-MiniLM-L6 (Wang et al. 2020): 6 layers of 384, 12 heads, 128 tokens."""
    size, heads, hidden, sequence = 384, 12, 1536, 128
    x = net.embedding("tokens", tokens, 30522, size)
    x = net.ops.add(x, net.positions("positions", sequence, size))
    x = net.layer_norm("norm", x, size)
    for number in range(6):
        name = f"layers.{number}"
        q, k, v = (
            net.ops.split_heads(net.linear(f"{name}.{part}", x, (size, size), gain=1.0), heads)
            for part in "qkv"
        )
        y = net.ops.merge_heads(net.ops.attention(q, k, v, (size // heads) ** -0.5, False))
        y = net.linear(f"{name}.o", y, (size, size), gain=1.0)
        x = net.layer_norm(f"{name}.norm1", net.ops.add(x, y), size)
        y = net.ops.gelu(net.linear(f"{name}.up", x, (size, hidden), gain=1.0))
        y = net.linear(f"{name}.down", y, (hidden, size), gain=1.0)
        x = net.layer_norm(f"{name}.norm2", net.ops.add(x, y), size)
    x = net.ops.tanh(net.linear("pool", net.ops.first_token(x), (size, size)))
    return net.linear("head", x, (size, 10))


def decoder(net: Net, tokens: Any) -> Any:
    """The LLaMA family's decoder (Touvron et al. 2023): 8 layers of 512, 8 heads, 128 tokens."""
    size, heads, hidden, sequence, vocabulary = 512, 8, 1376, 128, 8192
    half = size // heads // 2
    angles = np.outer(np.arange(sequence), 10_000.0 ** (-np.arange(half) / half))
    cosine = net.constant("rotary.cosine", np.cos(angles).astype(np.float32))
    sine = net.constant("rotary.sine", np.sin(angles).astype(np.float32))
    project = partial(net.linear, bias=False, gain=1.0)
    x = net.embedding("tokens", tokens, vocabulary, size)
    for number in range(8):
        name = f"layers.{number}"
        y = net.rms_norm(f"{name}.norm1", x, size)
        q, k, v = (
            net.ops.split_heads(project(f"{name}.{part}", y, (size, size)), heads) for part in "qkv"
        )
        q, k = net.ops.rotate(q, cosine, sine), net.ops.rotate(k, cosine, sine)
        y = net.ops.merge_heads(net.ops.attention(q, k, v, (size // heads) ** -0.5, True))
        x = net.ops.add(x, project(f"{name}.o", y, (size, size)))
        y = net.rms_norm(f"{name}.norm2", x, size)
        gate = net.ops.silu(project(f"{name}.gate", y, (size, hidden)))
        y = net.ops.mul(gate, project(f"{name}.up", y, (size, hidden)))
        x = net.ops.add(x, project(f"{name}.down", y, (hidden, size)))
    return project("head", net.rms_norm("norm", x, size), (size, vocabulary))


MODELS: Mapping[str, Model] = {
    "mlp": Model(mlp, (784,), 10, lr=0.05, last=2, batches=(1, 8, 32)),
    "lenet": Model(lenet, (1, 28, 28), 10, lr=0.02, last=2, batches=(1, 8, 32)),
    "mobilenetv2-w0.35-128": Model(
        mobilenet_v2(WIDTH_035, 16, None, 10),
        (3, 128, 128),
        10,
        lr=1e-3,
        last=7,
        scheme="mbv2-w0.35-49kb.toml",
    ),
    "mobilenetv2-w1.0-224": Model(
        mobilenet_v2(WIDTH_100, 32, 1280, 1000), (3, 224, 224), 1000, lr=1e-4, last=7
    ),
    "resnet18-224": Model(resnet18, (3, 224, 224), 1000, lr=1e-4, last=5),
    "encoder-6x384": Model(encoder, (128,), 10, lr=1e-3, last=8, vocabulary=30522),
    "decoder-8x512": Model(
        decoder, (128,), 8192, lr=0.05, last=8, vocabulary=8192, label_per_token=True
    ),
}
