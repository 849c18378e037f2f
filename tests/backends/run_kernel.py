"""Runs one operation as a kernel on arrays, through the whole backend."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from xdsl.dialects.builtin import (
    MemRefType,
    ModuleOp,
    i8,
)
from xdsl.interpreter import Interpreter
from xdsl.ir import Operation

from niwaki.backends.kernels.select import alternatives
from niwaki.backends.kernels.spec import (
    KernelSpec,
    buffer_bytes,
    element_bytes,
    memref_of,
    strides_of,
)
from niwaki.backends.llvm.compile import LoadedObject, compile_object, pointer_block
from niwaki.backends.llvm.emit import emit_module
from niwaki.backends.llvm.one_call import one_call
from niwaki.backends.targets import Target
from niwaki.ir.dialects.tensor_op import Tensor, i1, type_of
from niwaki.ir.dtypes import dtype_of
from niwaki.ir.interpreter import STATELESS

Array = np.ndarray[Any, np.dtype[Any]]
GUARD = 64
"""Bytes around each buffer that no kernel may touch."""
POISON = 0xFF
"""nan as f32, -1 as integers."""


class Buffer:
    """Memory of one argument, poisoned, with guards on both sides."""

    def __init__(self, kind: MemRefType) -> None:
        self.kind = kind
        size = buffer_bytes(kind)
        self.memory = np.full(size + 2 * GUARD, POISON, np.uint8)
        self.data = self.memory[GUARD : GUARD + size]

    def elements(self) -> Array:
        """A view of the elements under the memref's shape."""
        width = element_bytes(self.kind.element_type)
        strides = [s * width for s in strides_of(self.kind)]
        flat = self.data.view(dtype_of(self.kind.element_type))
        return np.lib.stride_tricks.as_strided(flat, self.kind.get_shape(), strides)

    def write(self, array: Array, kind: Tensor) -> None:
        """Stores a tensor; masks as bits."""
        if kind.element_type == i1:
            array = np.packbits(np.atleast_1d(array), axis=-1, bitorder="little").view(np.int8)
        self.elements()[...] = array

    def read(self, kind: Tensor) -> Array:
        """The tensor."""
        if kind.element_type != i1:
            return self.elements().copy()
        count = kind.get_shape()[-1] if kind.get_shape() else 1
        packed = np.ascontiguousarray(self.elements()).view(np.uint8)
        bits = np.unpackbits(packed, axis=-1, count=count, bitorder="little")
        return bits.astype(bool).reshape(kind.get_shape())

    def untouched(self) -> Array:
        """The bytes that belong to no element, guards included."""
        width = element_bytes(self.kind.element_type)
        owned = np.zeros(self.memory.size, bool)
        places = np.zeros(self.kind.get_shape(), np.int64)
        for axis, stride in enumerate(strides_of(self.kind)):
            steps = np.arange(places.shape[axis]) * stride * width
            places += steps.reshape([-1 if d == axis else 1 for d in range(places.ndim)])
        for byte in range(width):
            owned[GUARD + places.ravel() + byte] = True
        return self.memory[~owned]


def run_op(
    op: Operation,
    arrays: Sequence[Array],
    target: Target,
    emitter: str = "jit",
    operands: Sequence[MemRefType] | None = None,
    results: Sequence[MemRefType] | None = None,
    in_place: bool = False,
    alternative: str | None = None,
) -> list[Array]:
    """The results of `op` on `arrays`, computed by its kernel.

    `operands` and `results` are other memory layouts than the contiguous ones; `in_place` makes
    the arguments share memory that may. `alternative`: instead of the model's choice. Results and
    workspace are poisoned before. Asserts that the kernel writes its results and workspace only.
    """
    reads = [memref_of(type_of(o)) for o in op.operands] if operands is None else operands
    writes = [memref_of(type_of(r)) for r in op.results] if results is None else results
    found = alternatives(op, reads, writes, target)
    spec = next(a for a in found if alternative in (None, a.name)).spec()
    inputs = [Buffer(kind) for kind in spec.operands]
    for buffer, array, operand in zip(inputs, arrays, op.operands, strict=True):
        buffer.write(array, type_of(operand))
    outputs = [Buffer(kind) for kind in spec.results]
    shared: dict[int, int] = {}
    for i, j in spec.in_place if in_place else ():
        if i not in shared.values() and j not in shared:
            shared[j] = i
            outputs[j] = inputs[i]
    kept = [b.data.copy() for b in inputs]
    workspace = Buffer(MemRefType(i8, [max(spec.workspace, 1)]))

    run_spec(spec, inputs, outputs, workspace, target, emitter)

    for buffer in [*inputs, *outputs, workspace]:
        assert (buffer.untouched() == POISON).all(), "written outside the buffer"
    for number, (buffer, before) in enumerate(zip(inputs, kept, strict=True)):
        if number not in shared.values():
            assert np.array_equal(buffer.data, before), f"operand {number} was written"
    return [b.read(type_of(r)) for b, r in zip(outputs, op.results, strict=True)]


def reference(op: Operation, arrays: Sequence[Array]) -> list[Array]:
    """The results of `op` on `arrays` by the reference semantics."""
    interpreter = Interpreter(ModuleOp([]))
    for functions in STATELESS:
        interpreter.register_implementations(functions())
    with np.errstate(all="ignore"):
        return [np.asarray(r) for r in interpreter.run_op(op, tuple(arrays))]


def run_spec(
    spec: KernelSpec,
    inputs: Sequence[Buffer],
    outputs: Sequence[Buffer],
    workspace: Buffer,
    target: Target,
    emitter: str,
) -> None:
    """Runs the kernel once on the buffers."""
    kernel = spec.build("kernel")
    kernel.verify()
    program = one_call(spec, "kernel", "program")
    program.verify()
    if emitter != "jit":
        raise NotImplementedError(emitter)
    code = compile_object(emit_module([kernel], [program], target), target)
    loaded = LoadedObject(code, ["program"])
    empty = np.zeros(1, np.uint8)
    block = [workspace.data, empty, empty, *(b.data for b in (*inputs, *outputs))]
    pointers = pointer_block(block)
    loaded.functions["program"](pointers.ctypes.data)
