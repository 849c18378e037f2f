"""The networks whose training steps `benchmarks.orders` puts in order."""

import networkx as nx

from benchmarks.training_graphs import Network

_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
"""Expansion, channels, blocks and first stride of MobileNetV2's stages (arXiv:1801.04381)."""


def mobilenet_v2(
    width: float, resolution: int, *, folded: bool, repeats: int = 1, frozen_blocks: int = 0
) -> Network:
    """MobileNetV2 with every block `repeats` times; batch norms folded or trained."""
    return _MobileNetV2(width, resolution, folded).build(repeats, frozen_blocks)


class _MobileNetV2:
    def __init__(self, width: float, resolution: int, folded: bool) -> None:
        self.net = Network()
        self.width = width
        self.side = resolution
        self.folded = folded
        self.channels = 3

    def build(self, repeats: int, frozen_blocks: int) -> Network:
        """The whole network."""
        blocks = [
            (expansion, channels, stride if n == 0 else 1)
            for expansion, channels, count, stride in _STAGES
            for n in range(count * repeats)
        ]
        x = self.convolution(None, self.scaled(32), kernel=3, stride=2)
        for number, (expansion, channels, stride) in enumerate(blocks):
            if 0 < number == frozen_blocks:
                self.net.freeze()
            x = self.block(x, expansion, self.scaled(channels), stride)
        features = max(1280, self.scaled(1280))
        x = self.net.move([self.convolution(x, features)], features)
        self.net.loss(self.net.linear(x, 1000, features * 1000, 1000))
        return self.net

    def block(self, x: int, expansion: int, channels: int, stride: int) -> int:
        residual = stride == 1 and channels == self.channels
        y = self.convolution(x, self.channels * expansion) if expansion > 1 else x
        y = self.convolution(y, self.channels, kernel=3, stride=stride, depthwise=True)
        y = self.convolution(y, channels, relu=False)
        return self.net.add(x, y) if residual else y

    def convolution(
        self,
        x: int | None,
        channels: int,
        *,
        kernel: int = 1,
        stride: int = 1,
        depthwise: bool = False,
        relu: bool = True,
    ) -> int:
        self.side //= stride
        weights = kernel * kernel * channels * (1 if depthwise else self.channels)
        self.channels = channels
        elements = self.side * self.side * channels
        y = self.net.linear(x, elements, weights, channels if self.folded else 0)
        if not self.folded:
            y = self.net.norm(y, channels)
        return self.net.activation(y) if relu else y

    def scaled(self, channels: int) -> int:
        """A multiple of 8, at least 90 % of the scaled width."""
        rounded = max(8, int(self.width * channels + 4) // 8 * 8)
        return rounded if rounded >= 0.9 * self.width * channels else rounded + 8


def unet(resolution: int, width: int = 16, depth: int = 3) -> Network:
    """U-Net (arXiv:1505.04597) with two 3x3 convolutions per level."""
    net = Network()

    def level(x: int | None, side: int, before: int, channels: int) -> int:
        for inputs in (before, channels):
            x = net.linear(x, side * side * channels, 9 * inputs * channels, channels)
            x = net.activation(x)
        assert x is not None
        return x

    side, channels = resolution, width
    x = level(None, side, 3, channels)
    skipped: list[int] = []
    for _ in range(depth):
        skipped.append(x)
        side //= 2
        x = net.move([x], side * side * channels)
        x = level(x, side, channels, 2 * channels)
        channels *= 2
    for skip in reversed(skipped):
        side *= 2
        x = net.move([x], side * side * channels)
        channels //= 2
        x = net.linear(x, side * side * channels, 4 * 2 * channels * channels, channels)
        x = net.move([skip, x], side * side * 2 * channels)
        x = level(x, side, 2 * channels, channels)
    net.loss(net.linear(x, side * side * 2, 2 * channels, 2))
    return net


def transformer(
    layers: int, tokens: int = 128, width: int = 256, heads: int = 4, vocabulary: int = 1000
) -> Network:
    """A decoder (arXiv:1706.03762, norms first) with the heads as separate products."""
    net = Network()
    size, head = tokens * width, width // heads
    x = net.linear(None, size, vocabulary * width)
    for _ in range(layers):
        y = net.norm(x, width)
        contexts: list[int] = []
        for _ in range(heads):
            q, k, v = (net.linear(y, tokens * head, width * head) for _ in range(3))
            weights = net.activation(net.product(q, k, tokens * tokens))
            contexts.append(net.product(weights, v, tokens * head))
        x = net.add(x, net.linear(net.move(contexts, size), size, width * width))
        y = net.gelu(net.linear(net.norm(x, width), 4 * size, 4 * width * width))
        x = net.add(x, net.linear(y, size, 4 * width * width))
    net.loss(net.linear(net.norm(x, width), tokens * vocabulary, width * vocabulary))
    return net


def randwire(nodes: int, stages: int, resolution: int = 64, channels: int = 32) -> Network:
    """Randomly wired stages (arXiv:1904.01569): Watts-Strogatz graphs with K = 4, P = 0.75."""
    net = Network()
    side = resolution // 2
    x = net.linear(None, side * side * channels, 27 * channels)
    before = channels
    for stage in range(stages):
        side //= 2
        x = _random_stage(net, x, nodes, stage, side * side, before, channels)
        before, channels = channels, 2 * channels
    features = net.move([x], before)
    net.loss(net.linear(features, 100, before * 100, 100))
    return net


def _random_stage(
    net: Network, x: int, nodes: int, seed: int, pixels: int, before: int, channels: int
) -> int:
    """One random graph, its edges from lower to higher numbers; the sinks are summed.

    A node: sum, ReLU, separable convolution, batch norm.
    """
    graph = nx.connected_watts_strogatz_graph(nodes, 4, 0.75, seed=seed)
    values: list[int] = []
    for node in range(nodes):
        sources = [values[p] for p in sorted(graph[node]) if p < node]
        inputs = channels if sources else before
        y = net.add(*sources) if len(sources) > 1 else (sources or [x])[0]
        y = net.activation(y)
        y = net.linear(y, pixels * channels, (9 + channels) * inputs)
        values.append(net.norm(y, channels))
    sinks = [values[n] for n in range(nodes) if all(p < n for p in graph[n])]
    return net.add(*sinks) if len(sinks) > 1 else sinks[0]
