"""Worker: ONNX Runtime's on-device training.

Through the bindings that its Python classes wrap: those import PyTorch, whose memory would count.
"""

from functools import partial

import numpy as np
import onnxruntime  # pyright: ignore[reportMissingImports]
from onnxruntime.capi import _pybind_state as bindings  # pyright: ignore[reportMissingImports]

from benchmarks.peers.frameworks.ahead_of_time import once, run_script
from benchmarks.peers.models import Layout
from benchmarks.peers.worker import Built, Task, serve


def build(task: Task) -> Built:
    """The training and the optimizer graph over one checkpoint."""
    make = partial(run_script, "onnxruntime-artifacts", "onnxruntime_artifacts", task)
    once(task.folder, make)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = task.threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    cpu = bindings.OrtDevice(bindings.OrtDevice.cpu(), bindings.OrtDevice.default_memory(), 0)
    state = bindings.load_checkpoint(str(task.folder / "checkpoint"))
    graph = bindings.Module(str(task.folder / "training_model.onnx"), state, None, cpu, options)
    optimizer = bindings.Optimizer(str(task.folder / "optimizer_model.onnx"), state, cpu, options)
    optimizer.set_learning_rate(task.model.lr)
    x, labels = task.model.data(task.batch, Layout())
    y = labels.astype(np.int64).reshape(-1)

    def step(_state: object = state) -> float:  # the graph points into the checkpoint
        fetched = bindings.OrtValueVector()
        graph.train_step([x, y], fetched)
        optimizer.optimizer_step()
        graph.lazy_reset_grad()
        return float(fetched[0].numpy())

    return Built(step)


if __name__ == "__main__":
    serve(onnxruntime.__version__, build)
