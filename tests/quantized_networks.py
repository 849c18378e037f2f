"""The pretrained int8 networks of the shared data, as programs. Tests skip where it is absent."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from xdsl.dialects.builtin import i8, i32

from niwaki.ir.builder import ProgramBuilder, Value
from niwaki.ir.dialects.quantized_type import QuantizedType
from niwaki.ir.dialects.tensor_op import type_of
from niwaki.ir.program import Program
from niwaki.ir.quantization import revive_dead_channels

NETWORKS = ("mcunet-5fps", "mbv2-w0.35")


def find_data(name: str) -> Path | None:
    """The file `name` of the shared data folder, if it is there."""
    folder = os.environ.get("NIWAKI_TEST_DATA", str(Path(__file__).parents[2] / "shared" / "data"))
    path = Path(folder) / name
    return path if path.exists() else None


def load(
    name: str,
    classes: int,
    batch: int = 1,
    resolution: int = 128,
    first: str | None = None,
    stop: str | None = None,
) -> Program:
    """The network with a head of `classes` (the first rows of the published one).

    Takes images as int8 codes, NHWC; gives logits [batch, classes], f32. `first`: the block ("B1"
    on, or "fc") to begin with, on real numbers, which it quantises; `stop`: the block to end
    before, with the real numbers of its input's codes.
    """
    return _QuantizedLoader(name, classes, batch, resolution).program(first, stop)


def load_float(
    name: str,
    classes: int,
    batch: int = 1,
    resolution: int = 128,
    first: str | None = None,
    stop: str | None = None,
) -> Program:
    """The same network of the real numbers that its codes stand for, its images' included.

    Linear layers are not clamped as codes are; ReLU6 is what it was before quantisation.
    """
    return _FloatLoader(name, classes, batch, resolution).program(first, stop)


def layers(name: str) -> tuple[str, ...]:
    """The layers in execution order, as schemes count them; "BLOCK.part" but for stem and head."""
    ops = json.loads(bytes(_arrays(name)["ops.json"]))
    return tuple(op["name"] for op in ops if not op["name"].endswith(".add"))


def _arrays(name: str) -> dict[str, NDArray[Any]]:
    path = find_data(f"{name}-int8.npz")
    assert path is not None
    with np.load(path, allow_pickle=False) as data:
        return {key: data[key] for key in data.files}


class _Loader:
    """Reads the network layer by layer; subclasses say what a layer computes."""

    def __init__(self, name: str, classes: int, batch: int, resolution: int) -> None:
        self.arrays = _arrays(name)
        self.ops: list[dict[str, Any]] = json.loads(bytes(self.arrays["ops.json"]))
        self.source = name
        self.classes = classes
        self.batch = batch
        self.resolution = resolution
        self.b = ProgramBuilder()

    def program(self, first: str | None, stop: str | None) -> Program:
        blocks = [op["name"].split(".")[0] for op in self.ops]
        start = 0 if first is None else blocks.index(first)
        end = len(blocks) if stop is None else blocks.index(stop)
        x = block_input = self.input_of(start)
        previous = ""
        for op, block in zip(self.ops[start:end], blocks[start:end], strict=True):
            if block != previous:
                previous, block_input = block, x
            if op["name"].endswith(".add"):
                x = self.add(op, block_input, x)
            elif op["name"] == "fc":
                x = self.head(op, x)
            else:
                x = self.convolution(op, x)
        return self.b.finish(x if stop is None else self.real(x), source=self.source)

    def input_of(self, start: int) -> Value:
        """The input of the layers from `start` on."""
        op, size = self.ops[start], self.resolution
        for earlier in self.ops[:start]:
            size = -(-size // earlier.get("stride", 1))  # additions have none
        channels = op["in_channel"]
        return self.input([self.batch, size, size, channels], op)

    def logits(self, y: Value) -> Value:
        """[batch, 1, 1, classes] as a matrix."""
        batch, _, _, channels = type_of(y).get_shape()
        return self.b.reshape(y, [batch, channels])

    def weights(self, op: Mapping[str, Any]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """Filters (OHWI) and biases, as codes, and the scales of the filters."""
        rows = slice(self.classes if op["name"] == "fc" else None)
        weight, bias, scales = (
            self.arrays[f"{op['name']}/{part}"][rows] for part in ("weight", "bias", "w_scales")
        )
        weight, bias, scales = revive_dead_channels(weight, bias, scales, op["x_scale"])
        return weight.transpose(0, 2, 3, 1), bias, scales

    def input(self, shape: list[int], op: Mapping[str, Any]) -> Value:
        raise NotImplementedError

    def real(self, x: Value) -> Value:
        raise NotImplementedError

    def add(self, op: Mapping[str, Any], a: Value, b: Value) -> Value:
        raise NotImplementedError

    def head(self, op: Mapping[str, Any], x: Value) -> Value:
        raise NotImplementedError

    def convolution(self, op: Mapping[str, Any], x: Value) -> Value:
        raise NotImplementedError


class _QuantizedLoader(_Loader):
    def input(self, shape: list[int], op: Mapping[str, Any]) -> Value:
        element = QuantizedType.of(i8, op["x_scale"], int(op["x_zero"]))
        if op["name"] == "stem":
            return self.b.input(shape, element)
        return self.b.quantize(self.b.input(shape), element)

    def real(self, x: Value) -> Value:
        return self.b.dequantize(x)

    def add(self, op: Mapping[str, Any], a: Value, b: Value) -> Value:
        return self.b.quantized_add(a, b, _activation(op))

    def head(self, op: Mapping[str, Any], x: Value) -> Value:
        sums = self._convolution(op, self.b.quantized_mean(x, [1, 2]), None)
        return self.logits(self.b.dequantize(sums))

    def convolution(self, op: Mapping[str, Any], x: Value) -> Value:
        return self._convolution(op, x, _activation(op))

    def _convolution(self, op: Mapping[str, Any], x: Value, to: QuantizedType | None) -> Value:
        """`to`: the type of the codes; None: the sums."""
        name = op["name"]
        weight, bias, scales = self.weights(op)
        filters = QuantizedType.of(i8, scales, axis=0)
        offsets = QuantizedType.of(i32, scales * np.float32(op["x_scale"]), axis=0)
        w = self.b.weight(f"{name}.weight", weight, element=filters)
        bias_value = self.b.weight(f"{name}.bias", bias, element=offsets)
        result = QuantizedType.of(i32, offsets.scales, axis=3) if to is None else to
        (kernel, _), stride = op["kernel_size"], op["stride"]
        return self.b.quantized_conv2d(
            x, w, bias_value, result, stride, kernel // 2, groups=op["groups"]
        )


class _FloatLoader(_Loader):
    def input(self, shape: list[int], op: Mapping[str, Any]) -> Value:
        return self.b.input(shape)

    def real(self, x: Value) -> Value:
        return x

    def add(self, op: Mapping[str, Any], a: Value, b: Value) -> Value:
        return self.b.add(a, b)

    def head(self, op: Mapping[str, Any], x: Value) -> Value:
        pooled = self.b.reduce_mean(x, [1, 2])
        return self.logits(self._convolution(op, pooled))

    def convolution(self, op: Mapping[str, Any], x: Value) -> Value:
        y = self._convolution(op, x)
        return self.b.relu6(y) if op["y_zero"] == -128 else y

    def _convolution(self, op: Mapping[str, Any], x: Value) -> Value:
        name = op["name"]
        weight, bias, scales = self.weights(op)
        real = weight * scales[:, None, None, None]
        w = self.b.weight(f"{name}.weight", real.astype(np.float32))
        real_bias = bias * (scales * np.float32(op["x_scale"]))
        offsets = self.b.weight(f"{name}.bias", real_bias.astype(np.float32))
        (kernel, _), stride = op["kernel_size"], op["stride"]
        sums = self.b.conv2d(x, w, stride, kernel // 2, groups=op["groups"])
        return self.b.add(sums, offsets)


def _activation(op: Mapping[str, Any]) -> QuantizedType:
    return QuantizedType.of(i8, float(op["y_scale"]), int(op["y_zero"]))
