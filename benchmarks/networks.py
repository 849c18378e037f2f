"""The networks and update schemes that the benchmarks measure."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import niwaki
from niwaki import Scheme
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
