"""The networks and update schemes that the benchmarks measure."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

import niwaki
from benchmarks import recompute_networks
from niwaki import Scheme
from niwaki.frontends.decoder_config import decoder
from niwaki.ir.builder import ProgramBuilder, Value
from niwaki.ir.dialects.tensor_op import shape_of
from tests import networks


@dataclass(frozen=True)
class Case:
    """A network: the program for a batch, and the same network for torch."""

    program: Callable[[int], niwaki.Program]
    network: networks.Network
    schemes: Mapping[str, Scheme]


def _schemes(layers: int, ratios: Mapping[int | str, float], biases: int) -> dict[str, Scheme]:
    return {
        "full": Scheme.full(),
        "bias": Scheme.bias(),
        f"last{layers}": Scheme.last_layers(layers),
        "channels": Scheme.channels(ratios, biases),
    }


CASES: Mapping[str, Case] = {
    "lenet": Case(networks.lenet, networks.lenet_network, _schemes(2, {1: 0.5, 2: 0.25}, 3)),
    "mobilenetv2-w0.35-128": Case(
        networks.mobilenet_v2,
        networks.mobilenet_v2_network(),
        # The 49 KB scheme of "On-Device Training Under 256KB Memory".
        _schemes(
            7,
            {36: 1.0, 39: 1.0, 41: 0.25, 42: 0.125, 45: 0.125, 48: 0.125, 49: 0.125},
            17,
        ),
    ),
    "resnet18-64": Case(
        networks.resnet18,
        networks.resnet18_network(),
        _schemes(5, {12: 0.5, 14: 0.25, 16: 0.25, 18: 0.5}, 8),
    ),
}


def unet(resolution: int = 64, width: int = 16, depth: int = 3) -> niwaki.Program:
    """U-Net (Ronneberger et al. 2015) on [1, resolution, resolution, 3], two classes per image.

    Two 3x3 convolutions per level, nearest-neighbour upsampling; the weights are zero.
    """
    b = ProgramBuilder()

    def level(name: str, x: Value, channels: int) -> Value:
        for i in (0, 1):
            w = b.weight(f"{name}.{i}", np.zeros((channels, 3, 3, shape_of(x)[3]), np.float32))
            bias = b.weight(f"{name}.{i}.bias", np.zeros(channels, np.float32))
            x = b.relu(b.add(b.conv2d(x, w, padding=1), bias))
        return x

    def upsampled(x: Value) -> Value:
        n, height, width, channels = shape_of(x)
        spread = b.broadcast(
            b.reshape(x, [n, height, 1, width, 1, channels]), [n, height, 2, width, 2, channels]
        )
        return b.reshape(spread, [n, 2 * height, 2 * width, channels])

    x = level("down0", b.input([1, resolution, resolution, 3]), width)
    skipped: list[Value] = []
    for i in range(1, depth + 1):
        skipped.append(x)
        x = level(f"down{i}", b.max_pool2d(x, 2, 2), width * 2**i)
    for i, skip in reversed(list(enumerate(skipped))):
        x = level(f"up{i}", b.concat([skip, upsampled(x)], 3), width * 2**i)
    head = b.weight("head", np.zeros((2, width), np.float32))
    return b.finish(b.dense(b.global_avg_pool(x), head, b.weight("bias", np.zeros(2, np.float32))))


def small_decoder() -> niwaki.Program:
    """Four blocks of a decoder of the LLaMA family, 64 tokens."""
    from tests.decoders import CONFIG, Decoder  # loads PyTorch

    config = replace(CONFIG, hidden=64, intermediate=128, blocks=4, positions=64)
    return decoder(config, 1, 64, Decoder(config).arrays())


PLANNED: Mapping[str, Callable[[], niwaki.Program]] = {
    "resnet50-224": lambda: recompute_networks.resnet50(1),
    "mobilenetv2-1.0-224": lambda: networks.mobilenet_v2(1, 224, width=1.0),
    "unet-64": unet,
    "decoder-4x64": small_decoder,
}
"""Networks of which the benchmarks only plan the memory."""
