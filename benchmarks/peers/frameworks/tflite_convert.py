"""Writes a training step of TensorFlow as a TFLite file with the signature "step"."""

import tensorflow as tf  # pyright: ignore[reportMissingModuleSource]

from benchmarks.peers.frameworks.tensorflow_step import Module
from benchmarks.peers.worker import Task

if __name__ == "__main__":
    task = Task.parse()
    module = Module(task)
    saved = str(task.folder / "saved_model")
    tf.saved_model.save(module, saved, signatures={"step": module.step.get_concrete_function()})
    converter = tf.lite.TFLiteConverter.from_saved_model(saved)
    # Gradients and variables are no operations of TFLite's own.
    converter.target_spec.supported_ops = [
        tf.lite.OpsSet.TFLITE_BUILTINS,
        tf.lite.OpsSet.SELECT_TF_OPS,
    ]
    converter.experimental_enable_resource_variables = True
    (task.folder / "step.tflite").write_bytes(converter.convert())
