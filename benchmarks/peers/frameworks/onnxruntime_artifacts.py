"""Writes the files that ONNX Runtime trains from: training graph, optimizer, checkpoint."""

from onnxruntime.training import artifacts  # pyright: ignore[reportMissingImports]

from benchmarks.peers.frameworks.onnx_graph import onnx_model
from benchmarks.peers.worker import Task

if __name__ == "__main__":
    task = Task.parse()
    made = onnx_model(task)
    trainable = task.model.trainable(task.update)
    artifacts.generate_artifacts(
        made,
        requires_grad=trainable,
        frozen_params=[t.name for t in made.graph.initializer if t.name not in trainable],
        loss=artifacts.LossType.CrossEntropyLoss,
        optimizer=artifacts.OptimType.SGD,
        artifact_directory=str(task.folder),
    )
