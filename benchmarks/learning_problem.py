"""The task of benchmarks/learning.py: pictures, the split network, one training run.

Layers that a scheme leaves alone give the same numbers in every epoch. They run once per picture;
what is trained, by a compiled step, is the network from the first block that changes. Blocks end
in int8 codes, so the split changes no bit of an int8 network.
"""

import math
import sys
import tempfile
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import niwaki
from niwaki.step import TrainingStep
from tests import quantized_networks

NETWORK = "mcunet-5fps"
BATCH = 8
CLASSES = 10
SIZE = 128
SCHEMES = Path(__file__).parent.parent / "examples" / "schemes"

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Recipe:
    """What a step is compiled with."""

    arithmetic: str
    """fp32, int8, or int8+qas."""
    rounding: str
    """Of int8 updates; "none" in fp32."""
    scheme: str
    """A published one (49kb, 74kb, 99kb, 148kb), or what `niwaki.Scheme.parse` takes."""
    momentum: float = 0.9

    @property
    def is_float(self) -> bool:
        """Whether the network is of real numbers."""
        return self.arithmetic == "fp32"


@dataclass(frozen=True, eq=False)
class Pictures:
    """32x32 pictures (uint8) with their labels."""

    x: Array
    y: Array

    def some(self, chosen: slice) -> "Pictures":
        """A part of them."""
        return Pictures(self.x[chosen], self.y[chosen])

    def codes(self, numbers: Array) -> Array:
        """int8 codes of the chosen ones, every pixel 4 x 4 times."""
        factor = SIZE // self.x.shape[1]
        larger = self.x[numbers].repeat(factor, axis=1).repeat(factor, axis=2)
        return (larger ^ 0x80).view(np.int8)


def load_pictures() -> tuple[Pictures, Pictures]:
    """For training and for testing. Exits with a message where there are none."""
    path = quantized_networks.find_data("cifar10-small.npz")
    if path is None:
        sys.exit("cifar10-small.npz is not there: set NIWAKI_TEST_DATA to its folder")
    with np.load(path, allow_pickle=False) as data:
        train, test = (
            Pictures(data[f"x_{part}"], data[f"y_{part}"].astype(np.int32))
            for part in ("train", "test")
        )
    return train, test


def scheme_of(name: str) -> niwaki.Scheme:
    """The update scheme, its layers counted from the stem."""
    published = name.endswith("kb")
    return niwaki.Scheme.parse(f"{SCHEMES}/{NETWORK}-{name}.toml" if published else name)


def first_block(scheme: niwaki.Scheme) -> str | None:
    """The first block that `scheme` changes; None: from the stem on."""
    layers = quantized_networks.layers(NETWORK)
    if scheme.layers is None and (scheme.weights is None or scheme.biases is None):
        return None
    if scheme.layers is not None:
        first = len(layers) - scheme.layers
    else:
        assert scheme.biases is not None
        updated = [int(layer) for layer, ratio in (scheme.weights or {}).items() if ratio > 0]
        first = min([*updated, len(layers) - scheme.biases])
    return layers[first].split(".")[0]


def _counted_from(block: str | None, scheme: niwaki.Scheme) -> niwaki.Scheme:
    """`scheme` for the network that starts with `block`."""
    if block is None or scheme.weights is None:
        return scheme
    layers = quantized_networks.layers(NETWORK)
    before = [layer.split(".")[0] for layer in layers].index(block)
    weights = {str(int(layer) - before): ratio for layer, ratio in scheme.weights.items()}
    return replace(scheme, weights=weights)


def program(
    is_float: bool, first: str | None = None, stop: str | None = None, batch: int = BATCH
) -> niwaki.Program:
    """The network, or its blocks from `first` on and before `stop`."""
    load = quantized_networks.load_float if is_float else quantized_networks.load
    return load(NETWORK, CLASSES, batch, SIZE, first, stop)


class Inputs:
    """What the trained part of a network sees of the pictures."""

    def __init__(self, pictures: Pictures, is_float: bool, first: str | None) -> None:
        self.labels = pictures.y
        self._pictures = pictures
        self._is_float = is_float
        self._seen = None if first is None else self._through(_front(is_float, first))

    def batch(self, numbers: Array) -> tuple[Array, Array]:
        """Of the chosen pictures."""
        x = self._images(numbers) if self._seen is None else self._seen[numbers]
        return x, self.labels[numbers]

    def _images(self, numbers: Array) -> Array:
        codes = self._pictures.codes(numbers)
        return codes * np.float32(1 / 127.5) if self._is_float else codes

    def _through(self, front: TrainingStep) -> Array:
        parts: list[Array] = []
        for start in range(0, len(self.labels), BATCH):
            numbers = np.arange(start, start + BATCH) % len(self.labels)
            parts.append(np.asarray(front.infer(self._images(numbers))))
        return np.concatenate(parts)[: len(self.labels)]


@cache
def _front(is_float: bool, first: str) -> TrainingStep:
    """The blocks before `first`; only its inference is used."""
    return niwaki.compile(program(is_float, stop=first), loss="mse", update="head")


class Trainer:
    """A compiled step that can start again from the pretrained network."""

    def __init__(self, recipe: Recipe) -> None:
        scheme = scheme_of(recipe.scheme)
        first = first_block(scheme)
        rounding = "stochastic" if recipe.is_float else recipe.rounding
        self._step = niwaki.compile(
            program(recipe.is_float, first),
            optimizer=niwaki.SGD(lr=0.0, momentum=recipe.momentum),
            update=_counted_from(first, scheme),
            rounding=rounding,
            quantization_aware_scaling=recipe.arithmetic == "int8+qas",
        )
        self._folder = tempfile.TemporaryDirectory()
        self._start = Path(self._folder.name) / "start.safetensors"
        self._step.save(self._start)

    def train(self, inputs: Inputs, rate: float, epochs: int, seed: int) -> float:
        """Mean loss of the last epoch. The rate falls to 0 along half a cosine."""
        step = self._step
        step.load(self._start)
        random = np.random.default_rng(seed)
        count = len(inputs.labels) // BATCH
        losses: list[float] = []
        for epoch in range(epochs):
            order = random.permutation(len(inputs.labels))
            losses = []
            for i in range(count):
                step.lr = rate * (0.5 + 0.5 * math.cos(math.pi * (epoch + i / count) / epochs))
                losses.append(step(*inputs.batch(order[i * BATCH : (i + 1) * BATCH])))
        return float(np.mean(losses))

    def accuracy(self, inputs: Inputs) -> float:
        """Per cent, over whole batches."""
        count = len(inputs.labels) // BATCH
        right = 0
        for i in range(count):
            correct = self._step.evaluate(*inputs.batch(np.arange(i * BATCH, (i + 1) * BATCH)))[1]
            assert correct is not None
            right += correct
        return 100 * right / (count * BATCH)
