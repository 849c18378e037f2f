"""Models as ONNX graphs whose operations ONNX Runtime can differentiate."""

from collections.abc import Sequence
from math import sqrt
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks.peers.models import EPSILON, Layout, Net
from benchmarks.peers.worker import Task

LAYOUT = Layout(transposed_matrices=True)
"""Images NCHW, matrices [inputs, outputs]."""
OPSET = 17


class OnnxOps:
    """`benchmarks.peers.models.Ops` as nodes; a value is the name of an edge."""

    def __init__(self, batch: int, sequence: int | None) -> None:
        """`sequence`: tokens of a sample; None if it is an image or a vector."""
        self.nodes: list[onnx.NodeProto] = []
        self._batch = batch
        self._sequence = sequence

    def node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Adds a node with one result."""
        return self._nodes(kind, inputs, 1, attributes)[0]

    def numbers(self, values: Any, dtype: type[np.generic] = np.float32) -> str:
        """A constant."""
        return self.node("Constant", value=numpy_helper.from_array(np.array(values, dtype)))

    def reshape(self, x: str, shape: Sequence[int]) -> str:
        """`x` under `shape`."""
        return self.node("Reshape", x, self.numbers(shape, np.int64))

    def conv(self, x: str, w: str, b: str, stride: int, padding: int, groups: int) -> str:
        strides, pads = [stride] * 2, [padding] * 4
        return self.node("Conv", x, w, b, strides=strides, pads=pads, group=groups)

    def max_pool(self, x: str, kernel: int, stride: int, padding: int) -> str:
        shape, strides, pads = [kernel] * 2, [stride] * 2, [padding] * 4
        return self.node("MaxPool", x, kernel_shape=shape, strides=strides, pads=pads)

    def global_avg_pool(self, x: str) -> str:
        return self.flatten(self.node("GlobalAveragePool", x))

    def flatten(self, x: str) -> str:
        return self.node("Flatten", x)

    def linear(self, x: str, w: str, b: str | None) -> str:
        if self._sequence is None and b is not None:
            return self.node("Gemm", x, w, b)
        y = self.node("MatMul", x, w)
        return y if b is None else self.add(y, b)

    def relu(self, x: str) -> str:
        return self.node("Relu", x)

    def relu6(self, x: str) -> str:
        return self.node("Clip", x, self.numbers(0), self.numbers(6))

    def gelu(self, x: str) -> str:
        erf = self.node("Erf", self.node("Div", x, self.numbers(sqrt(2))))
        return self.mul(self.mul(x, self.add(erf, self.numbers(1))), self.numbers(0.5))

    def silu(self, x: str) -> str:
        return self.mul(x, self.node("Sigmoid", x))

    def tanh(self, x: str) -> str:
        return self.node("Tanh", x)

    def add(self, a: str, b: str) -> str:
        return self.node("Add", a, b)

    def mul(self, a: str, b: str) -> str:
        return self.node("Mul", a, b)

    def embedding(self, tokens: str, table: str) -> str:
        return self.node("Gather", table, tokens)

    def layer_norm(self, x: str, gamma: str, beta: str) -> str:
        # The gradient reads mean and deviation, which are optional results.
        attributes = {"axis": -1, "epsilon": EPSILON}
        return self._nodes("LayerNormalization", (x, gamma, beta), 3, attributes)[0]

    def rms_norm(self, x: str, gamma: str) -> str:
        square = self.node("ReduceMean", self.mul(x, x), axes=[-1])
        root = self.node("Sqrt", self.add(square, self.numbers(EPSILON)))
        return self.mul(self.node("Div", x, root), gamma)

    def split_heads(self, x: str, heads: int) -> str:
        apart = self.reshape(x, [self._batch, 0, heads, -1])
        return self.node("Transpose", apart, perm=[0, 2, 1, 3])

    def merge_heads(self, x: str) -> str:
        together = self.node("Transpose", x, perm=[0, 2, 1, 3])
        return self.reshape(together, [self._batch, 0, -1])

    def attention(self, q: str, k: str, v: str, scale: float, causal: bool) -> str:
        products = self.node("MatMul", q, self.node("Transpose", k, perm=[0, 1, 3, 2]))
        scores = self.mul(products, self.numbers(scale))
        if causal:
            assert self._sequence is not None
            later = np.triu(np.full((self._sequence, self._sequence), -1e9), 1)
            scores = self.add(scores, self.numbers(later))
        return self.node("MatMul", self.node("Softmax", scores, axis=-1), v)

    def rotate(self, x: str, cosine: str, sine: str) -> str:
        first, second = self._nodes("Split", (x,), 2, {"axis": -1})
        return self.node(
            "Concat",
            self.node("Sub", self.mul(first, cosine), self.mul(second, sine)),
            self.add(self.mul(second, cosine), self.mul(first, sine)),
            axis=-1,
        )

    def first_token(self, x: str) -> str:
        return self.node("Gather", x, self.numbers(0, np.int64), axis=1)

    def _nodes(
        self, kind: str, inputs: Sequence[str], results: int, attributes: dict[str, Any]
    ) -> list[str]:
        names = [f"{kind}_{len(self.nodes)}_{i}" for i in range(results)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, **attributes))
        return names


def onnx_model(task: Task) -> onnx.ModelProto:
    """The forward pass from "x" to "logits" [rows, classes]; parameters are its initializers."""
    model = task.model
    sequence = None if model.vocabulary is None else model.sample[0]
    ops = OnnxOps(task.batch, sequence)
    arrays = model.arrays(LAYOUT)
    x, labels = model.data(task.batch, LAYOUT)
    logits = model.network(Net(ops, {name: name for name in arrays}), "x")
    rows = [labels.size, model.classes]
    ops.nodes.append(helper.make_node("Reshape", [logits, ops.numbers(rows, np.int64)], ["logits"]))
    element = TensorProto.FLOAT if model.vocabulary is None else TensorProto.INT32
    graph = helper.make_graph(
        ops.nodes,
        task.model_name,
        [helper.make_tensor_value_info("x", element, x.shape)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, rows)],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    opset = helper.make_opsetid("", OPSET)
    made = helper.make_model(graph, opset_imports=[opset], ir_version=8)
    onnx.checker.check_model(made)
    return made
