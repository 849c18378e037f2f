"""The best update scheme under a memory budget, from what each of its parts contributes.

"On-Device Training Under 256KB Memory" (Lin et al. 2022), section 3.2: gains are taken to add up
over the depth of the biases and the layers with updated weights, as the bytes do (`update_memory`).
That makes the search a knapsack with one choice for each layer. The paper searches by evolution;
dynamic programming finds the optimum.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from xdsl.dialects.func import FuncOp

from niwaki.ir.errors import DoesNotFitError, UsageError
from niwaki.ir.training import Scheme
from niwaki.passes.layers import Layer, layers_of
from niwaki.passes.update_memory import layer_bytes

RATIOS = (0.125, 0.25, 0.5, 1.0)
"""Of the channels of a layer whose weights are updated."""
MOST_DEPTHS = 12
"""Depths of updated biases that are tried."""

WeightPart: TypeAlias = tuple[int, float]
"""A layer's number, and the ratio of its channels whose weights are updated."""


@dataclass(frozen=True)
class SchemeSpace:
    """The parts of all schemes within a budget, and their bytes.

    A scheme updates the biases of the last `depth` layers and weights of some of these layers:
    deeper ones would need the masks that only updated biases count.
    """

    budget: float
    layers: tuple[str, ...]
    """The names of the weights, the head's last."""
    bias_bytes: Mapping[int, float]
    """Depth, from 1 (the head) on -> bytes with the head's."""
    weight_bytes: Mapping[WeightPart, float]

    @classmethod
    def of(cls, function: FuncOp, budget: float) -> "SchemeSpace":
        """Of the forward function of a model.

        Raises UsageError if there is nothing to train, DoesNotFitError if not even the head fits.
        """
        layers = layers_of(function.body.block)
        if not layers:
            raise UsageError("the model has no layers to update")
        count = len(layers)
        parts = layer_bytes(function, _scheme({}, count))
        deepening = np.cumsum(parts[::-1])
        if deepening[0] > budget:
            raise DoesNotFitError(
                f"the head alone needs {deepening[0]:,.0f} bytes, the budget is {budget:,.0f}"
            )
        evenly = np.linspace(1, count, min(count, MOST_DEPTHS)).round().astype(int)
        biases = {int(k): float(deepening[k - 1]) for k in evenly if deepening[k - 1] <= budget}
        weights = {
            (layer.number, ratio): size
            for layer, ratio, size in _weight_parts(function, layers)
            if any(count - layer.number <= k and size + b <= budget for k, b in biases.items())
        }
        return cls(budget, tuple(layer.weight.key for layer in layers), biases, weights)

    @property
    def head(self) -> Scheme:
        """Updates the head alone: what deeper biases are compared with."""
        return _scheme({}, 1)

    @property
    def all_biases(self) -> Scheme:
        """Updates no weights but the head's: what updated weights are compared with."""
        return _scheme({}, len(self.layers))

    def with_biases(self, depth: int) -> Scheme:
        """Updates the head and the biases of the last `depth` layers."""
        return _scheme({}, depth)

    def with_weights(self, part: WeightPart) -> Scheme:
        """`all_biases` and the weights of one layer."""
        return _scheme(dict([part]), len(self.layers))


@dataclass(frozen=True)
class Contributions:
    """What the parts of a scheme gain, in any unit."""

    biases: Mapping[int, float]
    """Depth -> gain over the head alone."""
    weights: Mapping[WeightPart, float]


@dataclass(frozen=True)
class FoundScheme:
    """A scheme of most gain."""

    scheme: Scheme
    bytes: float
    """By `update_memory.update_bytes`."""
    gain: float
    """The sum of the contributions."""


def best_scheme(space: SchemeSpace, contributions: Contributions) -> FoundScheme:
    """The scheme of `space` with the largest sum of contributions, of these one of fewest bytes.

    Parts without a contribution are left out. Exact: goes from the last layer to the first and
    keeps the weights that no others beat in both bytes and gain (Nemhauser & Ullmann 1969).
    """
    best: FoundScheme | None = None
    front = _Front.empty()
    for depth in range(1, max(contributions.biases) + 1):
        number = len(space.layers) - depth
        options = [
            (part, space.weight_bytes[part], gain)
            for part, gain in contributions.weights.items()
            if part[0] == number and gain > 0
        ]
        front = front.extended(options, space.budget - space.bias_bytes[1])
        if depth not in contributions.biases:
            continue
        size, gain = space.bias_bytes[depth], contributions.biases[depth]
        last = int(np.searchsorted(front.bytes, space.budget - size, side="right")) - 1
        size, gain = size + float(front.bytes[last]), gain + float(front.gains[last])
        if best is None or (gain, -size) > (best.gain, -best.bytes):
            best = FoundScheme(_scheme(dict(front.parts(last)), depth), size, gain)
    assert best is not None
    return best


@dataclass(frozen=True)
class _Front:
    """Choices of weights, by bytes; each gains more than all that need no more bytes."""

    bytes: NDArray[Any]
    gains: NDArray[Any]
    origins: NDArray[Any]
    """Which choice of `before` it extends."""
    chosen: NDArray[Any]
    """Which option it adds."""
    options: Sequence[WeightPart | None]
    before: "_Front | None"

    @classmethod
    def empty(cls) -> "_Front":
        zero = np.zeros(1)
        return cls(zero, zero, zero.astype(int), zero.astype(int), [None], None)

    def extended(
        self, options: Sequence[tuple[WeightPart, float, float]], most_bytes: float
    ) -> "_Front":
        """With at most one of `options` (part, bytes, gain) added to each choice."""
        if not options:
            return self
        parts, sizes, more = zip((None, 0.0, 0.0), *options, strict=True)
        size = np.add.outer(sizes, self.bytes).ravel()
        gain = np.add.outer(more, self.gains).ravel()
        # By bytes, and the largest gain first among equals.
        order = np.lexsort((-gain, size))
        order = order[size[order] <= most_bytes]
        best_before = np.concatenate([[-np.inf], np.maximum.accumulate(gain[order])[:-1]])
        order = order[gain[order] > best_before]
        chosen, origins = np.divmod(order, len(self.bytes))
        return _Front(size[order], gain[order], origins, chosen, parts, self)

    def parts(self, index: int) -> list[WeightPart]:
        """What the choice at `index` consists of, in order of layers."""
        found: list[WeightPart] = []
        front: _Front | None = self
        while front is not None:
            part = front.options[front.chosen[index]]
            if part is not None:
                found.append(part)
            index, front = int(front.origins[index]), front.before
        return found


def _weight_parts(function: FuncOp, layers: Sequence[Layer]) -> list[tuple[Layer, float, float]]:
    """(layer, ratio, bytes) for all layers but the head; of equal boxes the largest ratio."""
    found: dict[tuple[int, tuple[int, ...]], tuple[Layer, float, float]] = {}
    for ratio in RATIOS:
        able = [layer for layer in layers[:-1] if ratio == 1.0 or layer.axis is not None]
        sizes = layer_bytes(function, _scheme({layer.number: ratio for layer in able}, 0))
        for layer in able:
            key = (layer.number, layer.box(ratio))
            found[key] = (layer, ratio, sizes[layer.number])
    return sorted(found.values(), key=lambda part: (part[0].number, part[1]))


def _scheme(weights: Mapping[int, float], biases: int) -> Scheme:
    ratios = {str(number): ratio for number, ratio in sorted(weights.items())}
    return Scheme(ratios, biases, order="magnitude")
