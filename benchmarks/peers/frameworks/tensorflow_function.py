"""Worker: TensorFlow, `tf.function`."""

import tensorflow as tf  # pyright: ignore[reportMissingModuleSource]

from benchmarks.peers.frameworks.tensorflow_step import LAYOUT, Module
from benchmarks.peers.worker import Built, Task, serve


def build(task: Task) -> Built:
    """The traced step."""
    tf.config.threading.set_intra_op_parallelism_threads(task.threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    module = Module(task)
    x, y = (tf.constant(array) for array in task.model.data(task.batch, LAYOUT))
    return Built(lambda: float(module.step(x, y)["loss"]))


if __name__ == "__main__":
    serve(tf.__version__, build)
