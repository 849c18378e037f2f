"""Worker: MNN's training in Python. Images NCHW outside, MNN's packed layout inside."""

from collections.abc import Sequence
from functools import partial
from typing import Any, NoReturn

import MNN  # pyright: ignore[reportMissingImports]
import numpy as np
from MNN import expr, nn, optim  # pyright: ignore[reportMissingImports]

from benchmarks.peers.models import Array, Layout, Model, Net
from benchmarks.peers.worker import Built, Task, serve

LAYOUT = Layout()


class NoGradientError(RuntimeError):
    """MNN computes an operation, but has no gradient for it."""


class MnnOps:
    """`benchmarks.peers.models.Ops` in MNN: the operations that have a gradient."""

    def conv(self, x: Any, w: Any, b: Any, stride: int, padding: int, groups: int) -> Any:
        mode = expr.CAFFE if padding else expr.VALID
        x = expr.convert(x, expr.NC4HW4)
        return expr.conv2d(x, w, b, [stride] * 2, [padding] * 2, [1, 1], groups, mode)

    def max_pool(self, x: Any, kernel: int, stride: int, padding: int) -> Any:
        if padding:  # MNN would round sizes up; what is pooled has passed a ReLU
            around = np.array([[0, 0], [0, 0], [padding] * 2, [padding] * 2], np.int32)
            sides = expr.const(around, [4, 2], expr.NCHW, expr.int)
            x = expr.pad(expr.convert(x, expr.NCHW), sides, expr.CONSTANT)
        x = expr.convert(x, expr.NC4HW4)
        return expr.max_pool(x, [kernel] * 2, [stride] * 2, expr.VALID, [0, 0])

    def global_avg_pool(self, x: Any) -> Any:
        window = [x.shape[2]] * 2  # a mean over two dimensions has no gradient
        return self.flatten(expr.avg_pool(expr.convert(x, expr.NC4HW4), window, window))

    def flatten(self, x: Any) -> Any:
        x = expr.convert(x, expr.NCHW)
        batch, *sizes = x.shape
        return expr.reshape(x, [batch, int(np.prod(sizes))])

    def linear(self, x: Any, w: Any, b: Any) -> Any:
        """As `MNN.nn.linear` does, a 1x1 convolution: a matrix product has no gradient."""
        batch, inputs = x.shape
        image = expr.reshape(x, [batch, inputs, 1, 1])
        return self.flatten(self.conv(image, w, b, 1, 0, 1))

    def relu(self, x: Any) -> Any:
        return expr.relu(x)

    def relu6(self, x: Any) -> Any:
        return expr.relu6(x)

    def add(self, a: Any, b: Any) -> Any:
        return a + b

    def __getattr__(self, name: str) -> NoReturn:
        raise NoGradientError(f"MNN {MNN.version()} has no gradient for {name}")


class Module(nn.Module):  # pyright: ignore[reportUntypedBaseClass]
    """A model; MNN finds its trained parameters among the attributes."""

    def __init__(self, model: Model, trainable: Sequence[str]) -> None:
        super().__init__()
        arrays = model.arrays(LAYOUT)
        tensors = {name: _constant(_filter(array)) for name, array in arrays.items()}
        for name in trainable:
            tensors[name].fix_as_trainable()
            setattr(self, name.replace(".", "_"), tensors[name])
        ops: Any = MnnOps()
        # Not through the attributes: MNN takes those for modules and parameters.
        self.__dict__["run"] = partial(model.network, Net(ops, tensors))

    def forward(self, x: Any) -> Any:
        """The logits."""
        return self.__dict__["run"](x)


def _filter(array: Array) -> Array:
    return array.reshape(*array.shape, 1, 1) if array.ndim == 2 else array


def _constant(array: Array) -> Any:
    element = expr.int if array.dtype == np.int32 else expr.float
    return expr.const(np.ascontiguousarray(array), list(array.shape), expr.NCHW, element)


def build(task: Task) -> Built:
    """The step of MNN's module and optimizer."""
    expr.set_thread_number(task.threads)
    expr.lazy_eval(True)  # without it the optimizer changes nothing
    model = task.model
    inputs, labels = model.data(task.batch, LAYOUT)
    module = Module(model, model.trainable(task.update))
    module.train(True)
    optimizer = optim.SGD(module, model.lr, 0.0, 0.0)
    x, y = _constant(inputs), _constant(np.eye(model.classes, dtype=np.float32)[labels])

    def step() -> float:
        logits = expr.convert(module.forward(x), expr.NCHW)
        loss = nn.loss.cross_entropy(expr.softmax(logits, -1), y)
        value = float(loss.read())
        optimizer.step(loss)
        return value

    return Built(step)


if __name__ == "__main__":
    serve(MNN.version(), build)
