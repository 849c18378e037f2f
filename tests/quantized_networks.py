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


def load(name: str, classes: int, batch: int = 1, resolution: int = 128) -> Program:
    """The network with a head of `classes` (the first rows of the published one).

    Takes images as int8 codes, NHWC; gives logits [batch, classes], f32.
    """
    path = find_data(f"{name}-int8.npz")
    assert path is not None
    with np.load(path, allow_pickle=False) as data:
        arrays = {key: data[key] for key in data.files}
    return _Loader(arrays, classes, batch, resolution).program(name)


class _Loader:
    def __init__(
        self, arrays: Mapping[str, NDArray[Any]], classes: int, batch: int, resolution: int
    ) -> None:
        self.arrays = arrays
        self.classes = classes
        self.ops: list[dict[str, Any]] = json.loads(bytes(arrays["ops.json"]))
        self.b = ProgramBuilder()
        stem = self.ops[0]
        element = QuantizedType.of(i8, stem["x_scale"], int(stem["x_zero"]))
        self.x = self.b.input([batch, resolution, resolution, 3], element)

    def program(self, source: str) -> Program:
        x = block_input = self.x
        previous = ""
        for op in self.ops:
            name = op["name"]
            block = name.split(".")[0]
            if block != previous:
                previous, block_input = block, x
            if name.endswith(".add"):
                x = self.b.quantized_add(block_input, x, _activation(op))
            elif name == "fc":
                x = self._head(op, x)
            else:
                x = self._convolution(op, x, _activation(op))
        return self.b.finish(x, source=source)

    def _head(self, op: Mapping[str, Any], x: Value) -> Value:
        pooled = self.b.quantized_mean(x, [1, 2])
        y = self._convolution(op, pooled, None)
        batch, _, _, channels = type_of(y).get_shape()
        return self.b.reshape(self.b.dequantize(y), [batch, channels])

    def _convolution(self, op: Mapping[str, Any], x: Value, to: QuantizedType | None) -> Value:
        """`to`: the type of the codes; None: the sums."""
        name = op["name"]
        rows = slice(self.classes if to is None else None)
        weight, bias, scales = (
            self.arrays[f"{name}/{part}"][rows] for part in ("weight", "bias", "w_scales")
        )
        weight, bias, scales = revive_dead_channels(weight, bias, scales, op["x_scale"])
        filters = QuantizedType.of(i8, scales, axis=0)
        offsets = QuantizedType.of(i32, scales * np.float32(op["x_scale"]), axis=0)
        w = self.b.weight(f"{name}.weight", weight.transpose(0, 2, 3, 1), element=filters)
        bias_value = self.b.weight(f"{name}.bias", bias, element=offsets)
        result = QuantizedType.of(i32, offsets.scales, axis=3) if to is None else to
        (kernel, _), stride = op["kernel_size"], op["stride"]
        return self.b.quantized_conv2d(
            x, w, bias_value, result, stride, kernel // 2, groups=op["groups"]
        )


def _activation(op: Mapping[str, Any]) -> QuantizedType:
    return QuantizedType.of(i8, float(op["y_scale"]), int(op["y_zero"]))
