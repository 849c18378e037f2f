"""Worker: Niwaki. Images NHWC, filters OHWI."""

import pickle
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from xdsl.dialects.builtin import i32

import niwaki
from benchmarks.peers.frameworks.ahead_of_time import run_python
from benchmarks.peers.frameworks.niwaki_memory import LAYOUT, STEP_FILE
from benchmarks.peers.models import EPSILON, Array, Model, Net, Parameter
from benchmarks.peers.worker import Built, Task, serve
from niwaki.ir.builder import ProgramBuilder, Value
from niwaki.ir.dialects.tensor_op import shape_of
from niwaki.ir.lowered import StorageEntry

SCHEMES = Path(__file__).parents[3] / "examples" / "schemes"


class NiwakiOps:
    """`benchmarks.peers.models.Ops` as operations of a program."""

    def __init__(self, builder: ProgramBuilder) -> None:
        self._b = builder
        self.relu = builder.relu
        self.relu6 = builder.relu6
        self.gelu = builder.gelu
        self.silu = builder.silu
        self.tanh = builder.tanh
        self.add = builder.add
        self.mul = builder.mul
        self.max_pool = builder.max_pool2d
        self.global_avg_pool = builder.global_avg_pool

    def conv(self, x: Value, w: Value, b: Value, stride: int, padding: int, groups: int) -> Value:
        y = self._b.conv2d(x, w, strides=stride, padding=padding, groups=groups)
        return self._b.add(y, b)

    def flatten(self, x: Value) -> Value:
        batch, *sizes = shape_of(x)
        return self._b.reshape(x, [batch, int(np.prod(sizes))])

    def linear(self, x: Value, w: Value, b: Value | None) -> Value:
        *outer, size = shape_of(x)
        rows = self._b.reshape(x, [int(np.prod(outer)), size])
        return self._b.reshape(self._b.dense(rows, w, b), [*outer, shape_of(w)[0]])

    def embedding(self, tokens: Value, table: Value) -> Value:
        return self._b.gather(table, tokens)

    def layer_norm(self, x: Value, gamma: Value, beta: Value) -> Value:
        return self._b.layer_norm(x, gamma, beta, EPSILON)

    def rms_norm(self, x: Value, gamma: Value) -> Value:
        return self._b.rms_norm(x, gamma, EPSILON)

    def split_heads(self, x: Value, heads: int) -> Value:
        batch, sequence, size = shape_of(x)
        apart = self._b.reshape(x, [batch, sequence, heads, size // heads])
        return self._b.transpose(apart, [0, 2, 1, 3])

    def merge_heads(self, x: Value) -> Value:
        batch, heads, sequence, size = shape_of(x)
        together = self._b.transpose(x, [0, 2, 1, 3])
        return self._b.reshape(together, [batch, sequence, heads * size])

    def attention(self, q: Value, k: Value, v: Value, scale: float, causal: bool) -> Value:
        b, (batch, heads, sequence, size) = self._b, shape_of(q)
        q, k, v = (b.reshape(t, [batch * heads, sequence, size]) for t in (q, k, v))
        scores = b.scale(b.matmul(q, k, transpose_b=True), scale)
        if causal:
            later = np.triu(np.full([sequence, sequence], -1e9, np.float32), 1)
            name = f"causal_mask.{len(b.store)}"
            scores = b.add(scores, b.weight(name, later, fixed=True))
        y = b.matmul(b.softmax(scores), v)
        return b.reshape(y, [batch, heads, sequence, size])

    def rotate(self, x: Value, cosine: Value, sine: Value) -> Value:
        b, (*outer, size) = self._b, shape_of(x)
        half, origin = [*outer, size // 2], [0] * len(outer)
        first = b.slice(x, [*origin, 0], half)
        second = b.slice(x, [*origin, size // 2], half)
        turned = (
            b.sub(b.mul(first, cosine), b.mul(second, sine)),
            b.add(b.mul(second, cosine), b.mul(first, sine)),
        )
        return b.concat(turned, len(outer))

    def first_token(self, x: Value) -> Value:
        batch, _, size = shape_of(x)
        return self._b.reshape(self._b.slice(x, [0, 0, 0], [batch, 1, size]), [batch, size])


class ProgramNet(Net):
    """Makes a parameter of the program of each that is asked for."""

    def __init__(self, builder: ProgramBuilder, arrays: Mapping[str, Array]) -> None:
        super().__init__(NiwakiOps(builder), arrays)
        self._builder = builder

    def parameter(self, declared: Parameter) -> Any:
        array, fixed = super().parameter(declared), declared.constant is not None
        return self._builder.weight(declared.name, array, fixed=fixed)


def program(model: Model, batch: int) -> niwaki.Program:
    """`model` as a program."""
    b = ProgramBuilder()
    shape = model.data(batch, LAYOUT)[0].shape
    x = b.input(shape) if model.vocabulary is None else b.input(shape, i32)
    return b.finish(model.network(ProgramNet(b, model.arrays(LAYOUT)), x))


def scheme(model: Model, update: str) -> niwaki.Scheme:
    """The scheme that `update` stands for."""
    if update == "scheme":
        if model.scheme is None:
            raise ValueError("no scheme was published for this model")
        return niwaki.Scheme.from_toml(SCHEMES / model.scheme)
    text = f"last_layers({model.last})" if update == "last" else update
    return niwaki.Scheme.parse(text)


def build(task: Task) -> Built:
    """The compiled step. Raises ValueError if it would update other parameters than the peers."""
    model = task.model
    step = niwaki.compile(
        program(model, task.batch),
        optimizer=niwaki.SGD(lr=model.lr),
        update=scheme(model, task.update),
        threads=task.threads,
        target="host",
    )
    updated = {entry.name for entry in step.lowered.state if entry.kind == "parameter"}
    if task.update != "scheme" and updated != set(model.trainable(task.update)):
        differing = sorted(updated ^ set(model.trainable(task.update)))
        raise ValueError(f"'{task.update}' differs from the peers' in {', '.join(differing)}")
    x, y = model.data(task.batch, LAYOUT)
    # The compiler's own memory is not the step's: that is measured in a process without it.
    lowered = replace(
        step.lowered,
        kernels=(),
        programs=(),
        state=_without_packings(step.lowered.state),
        constants=_without_packings(step.lowered.constants),
    )
    (task.folder / STEP_FILE).write_bytes(pickle.dumps((lowered, step.object_code())))
    peak = int(run_python(Path(sys.executable), "niwaki_memory", task))
    return Built(lambda: step(x, y), peak)


def _without_packings(entries: Sequence[StorageEntry]) -> tuple[StorageEntry, ...]:
    """Without what belongs to kernels: only reading parameters by name needs it."""
    return tuple(replace(entry, packing=None) for entry in entries)


if __name__ == "__main__":
    serve(version("niwaki"), build)
