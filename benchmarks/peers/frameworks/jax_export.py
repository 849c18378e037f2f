"""Writes a training step of JAX as StableHLO.

Arguments of the function: the trained parameters by name, the frozen ones by name, inputs, labels;
results: the trained parameters by name, the loss.
"""

import jax  # pyright: ignore[reportMissingImports]

from benchmarks.peers.frameworks.jax_step import jax_step
from benchmarks.peers.worker import Task

if __name__ == "__main__":
    task = Task.parse()
    made = jax_step(task)
    lowered = jax.jit(made.function).lower(made.trained, made.frozen, made.inputs, made.labels)
    (task.folder / "step.mlir").write_text(lowered.as_text())
