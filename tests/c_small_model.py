"""A model by hand: y = w * x, loss = sum (w * x - y)^2, one SGD step on w, all on 4 elements.

Its state holds w (named to break out of comments) and a counter, its constants one array.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from xdsl.dialects.builtin import (
    IntegerAttr,
    MemRefType,
    StringAttr,
    SymbolRefAttr,
    f32,
    i32,
    i64,
)
from xdsl.dialects.func import FuncOp
from xdsl.ir import Block, Region

from niwaki.backends.kernels.builder import KernelBuilder, Value
from niwaki.ir.dialects import plan
from niwaki.ir.image import Image
from niwaki.ir.lowered import (
    Buffer,
    CallInfo,
    EntryPoint,
    Lowered,
    LoweredKernel,
    Port,
    StorageEntry,
)

N = 4
HOSTILE = 'w */ int evil(void) { return 1; } /* "quoted"\n#error \\'
SCALE = np.array([1.0, 0.5, 2.0, 1.0], np.float32)
INITIAL = np.array([0.5, -1.0, 0.25, 2.0], np.float32)
LR = 0.1
_VECTOR = MemRefType(f32, [N])
_SCALAR = MemRefType(f32, [])
_COUNTER = MemRefType(i32, [1])
_DIFFERENCE = Buffer("difference", 0, 16, 0, 2)


def product() -> FuncOp:
    """out = w * x * scale."""
    k = KernelBuilder("product", [_VECTOR] * 4)
    w, x, scale, out = k.args
    k.each(
        0,
        N,
        1,
        lambda i: k.store(
            k.mul(k.mul(k.load(w, [i]), k.load(x, [i])), k.load(scale, [i])), out, [i]
        ),
    )
    return k.finish()


def squared_error() -> FuncOp:
    """difference = out - y (in the place of out), loss = sum of squares."""
    k = KernelBuilder("squared_error", [_VECTOR, _VECTOR, _VECTOR, _SCALAR])
    out, y, difference, loss = k.args

    def step(i: Value, sums: Sequence[Value]) -> Sequence[Value]:
        d = k.sub(k.load(out, [i]), k.load(y, [i]))
        k.store(d, difference, [i])
        return [k.add(sums[0], k.mul(d, d))]

    (total,) = k.loop(0, N, 1, step, [k.constant(0.0)])
    k.store(total, loss, [])
    return k.finish()


def update() -> FuncOp:
    """w -= lr * difference * x, counter += 1."""
    k = KernelBuilder("update", [_VECTOR, _VECTOR, _SCALAR, _VECTOR, _COUNTER])
    difference, x, lr, w, counter = k.args
    rate = k.load(lr, [])

    def step(i: Value) -> None:
        gradient = k.mul(k.load(difference, [i]), k.load(x, [i]))
        k.store(k.sub(k.load(w, [i]), k.mul(rate, gradient)), w, [i])

    k.each(0, N, 1, step)
    k.store(k.add(k.load(counter, [0]), k.constant(1, i32)), counter, [0])
    return k.finish()


class _Plan:
    def __init__(self, name: str) -> None:
        self.name = name
        self.block = Block()

    def view(
        self, kind: MemRefType, space: str, offset: int = 0, index: int | None = None
    ) -> Value:
        properties = {"space": StringAttr(space), "offset": IntegerAttr(offset, i64)}
        if index is not None:
            properties["index"] = IntegerAttr(index, i64)
        op = plan.ViewOp.create(properties=properties, result_types=[kind])
        self.block.add_op(op)
        return op.view

    def call(self, kernel: str, reads: int, arguments: Sequence[Value]) -> None:
        properties = {
            "kernel": SymbolRefAttr(kernel),
            "reads": IntegerAttr(reads, i64),
            "writes": IntegerAttr(len(arguments) - reads, i64),
        }
        self.block.add_op(plan.CallOp.create(operands=arguments, properties=properties))

    def program(self) -> plan.ProgramOp:
        return plan.ProgramOp.create(
            properties={
                "sym_name": StringAttr(self.name),
                "arena": IntegerAttr(16, i64),
                "bound": IntegerAttr(16, i64),
            },
            regions=[Region(self.block)],
        )


def _train_step() -> plan.ProgramOp:
    p = _Plan("train_step")
    w, x, scale = (
        p.view(_VECTOR, "state"),
        p.view(_VECTOR, "input", 0, 0),
        p.view(_VECTOR, "constants", 64),
    )
    out = p.view(_VECTOR, "arena")
    p.call("product", 3, [w, x, scale, out])
    y, loss = p.view(_VECTOR, "input", 0, 1), p.view(_SCALAR, "output", 0, 0)
    difference = p.view(_VECTOR, "arena")
    p.call("squared_error", 2, [out, y, difference, loss])
    lr, counter = p.view(_SCALAR, "input", 0, 2), p.view(_COUNTER, "state", 64)
    p.call("update", 3, [difference, x, lr, w, counter])
    return p.program()


def _infer() -> plan.ProgramOp:
    p = _Plan("infer")
    p.call(
        "product",
        3,
        [
            p.view(_VECTOR, "state"),
            p.view(_VECTOR, "input", 0, 0),
            p.view(_VECTOR, "constants", 64),
            p.view(_VECTOR, "output", 0, 0),
        ],
    )
    return p.program()


def _evaluate() -> plan.ProgramOp:
    p = _Plan("evaluate")
    x, y = p.view(_VECTOR, "input", 0, 0), p.view(_VECTOR, "input", 0, 1)
    w, scale, out = (
        p.view(_VECTOR, "state"),
        p.view(_VECTOR, "constants", 64),
        p.view(_VECTOR, "arena"),
    )
    p.call("product", 3, [w, x, scale, out])
    p.call("squared_error", 2, [out, y, p.view(_VECTOR, "arena"), p.view(_SCALAR, "output", 0, 0)])
    return p.program()


def small_model(target: str = "host", name: str = HOSTILE) -> Lowered:
    """The model lowered; `name` is that of everything a model file could name."""
    x, y = Port(name, (N,), "float32"), Port(f"{name}.y", (N,), "float32")
    lr, loss = Port("lr", (), "float32"), Port("loss", (), "float32")
    calls = tuple(CallInfo(k, name, N) for k in ("product", "squared_error", "update"))
    state_image = INITIAL.tobytes().ljust(64, b"\0") + bytes(64)
    constants_image = bytes(64) + SCALE.tobytes()
    return Lowered(
        kernels=tuple(
            LoweredKernel(build.__name__, build.__name__, build)
            for build in (product, squared_error, update)
        ),
        programs=(_train_step(), _infer(), _evaluate()),
        state=(
            StorageEntry(name, 0, (N,), "float32", (N,), "parameter"),
            StorageEntry("step", 64, (1,), "int32", (1,), "counter"),
        ),
        constants=(
            StorageEntry("unused", 0, (N,), "float32", None, "constant"),
            StorageEntry(f"{name}.scale", 64, (N,), "float32", None, "constant"),
        ),
        state_image=Image.of(state_image),
        constants_image=Image.of(constants_image),
        entries={
            "train_step": EntryPoint(
                "train_step", (x, y, lr), (loss,), 16, 16, (_DIFFERENCE,), calls
            ),
            "infer": EntryPoint("infer", (x,), (Port("out", (N,), "float32"),), 0, 0, (), calls),
            "evaluate": EntryPoint("evaluate", (x, y), (loss,), 16, 16, (_DIFFERENCE,), calls),
        },
        target_name=target,
    )


def reference_losses(x: NDArray[np.float32], y: NDArray[np.float32], steps: int) -> list[float]:
    """The same in NumPy."""
    w, losses = INITIAL.copy(), []
    for _ in range(steps):
        difference = w * x * SCALE - y
        losses.append(float((difference * difference).sum()))
        w -= np.float32(LR) * (difference * x)
    return losses
