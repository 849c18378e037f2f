"""Worker: TFLite's on-device training (a signature with variables and TensorFlow's gradients)."""

import sys
from functools import partial
from pathlib import Path

import numpy as np
import tensorflow as tf  # pyright: ignore[reportMissingModuleSource]

from benchmarks.peers.frameworks.ahead_of_time import once, run_script
from benchmarks.peers.frameworks.tensorflow_step import LAYOUT
from benchmarks.peers.worker import Built, Task, serve


def build(task: Task) -> Built:
    """The converted step."""
    once(task.folder, partial(run_script, Path(sys.prefix).name, "tflite_convert", task))
    path = task.folder / "step.tflite"
    interpreter = tf.lite.Interpreter(model_path=str(path), num_threads=task.threads)
    signature = interpreter.get_signature_runner("step")
    x, y = (np.ascontiguousarray(array) for array in task.model.data(task.batch, LAYOUT))
    return Built(lambda: float(signature(x=x, y=y)["loss"]))


if __name__ == "__main__":
    serve(tf.__version__, build)
