"""Worker: JAX, jit (XLA for the CPU)."""

import jax  # pyright: ignore[reportMissingImports]
import jax.numpy as jnp  # pyright: ignore[reportMissingImports]

from benchmarks.peers.frameworks.jax_step import jax_step
from benchmarks.peers.worker import Built, Task, serve


def build(task: Task) -> Built:
    """The jitted step, whose parameters are updated in place (donated)."""
    made = jax_step(task)
    jitted = jax.jit(made.function, donate_argnums=0)
    frozen, inputs, labels, trained = made.frozen, made.inputs, made.labels, made.trained

    def step() -> float:
        nonlocal trained
        trained, loss = jitted(trained, frozen, inputs, labels)
        return float(loss)

    return Built(step)


if __name__ == "__main__":
    jnp.zeros(1).block_until_ready()  # starts the runtime, as other frameworks do when imported
    serve(jax.__version__, build)
