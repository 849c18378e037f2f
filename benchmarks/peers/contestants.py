"""The frameworks that are compared: how each is run, and what its environment holds."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

OURS = "niwaki"


@dataclass(frozen=True)
class Contestant:
    """A framework in one way of using it."""

    script: str
    """Its worker in `frameworks`."""
    environment: str | None
    """Of ENVIRONMENTS; None: that of this process."""
    needs: Sequence[str] = ()
    """Further environments, for what it does ahead of time."""
    variables: Mapping[str, str] = field(default_factory=dict[str, str])
    single_thread_variables: Mapping[str, str] = field(default_factory=dict[str, str])
    """On one thread, these too."""

    def python(self, environments: Path) -> Path:
        """Its interpreter."""
        if self.environment is None:
            return Path(sys.executable)
        return environments / self.environment / "bin" / "python"


ENVIRONMENTS: Mapping[str, Sequence[str]] = {
    "torch": ("torch==2.13.0", "numpy==2.4.6"),
    "jax": ("jax==0.10.2", "jaxlib==0.10.2"),
    "onnxruntime": ("onnxruntime-training==1.19.2", "numpy==1.26.4"),
    # The tool that makes its files imports PyTorch, which must not be there when it is measured.
    "onnxruntime-artifacts": (
        "onnxruntime-training==1.19.2",
        "onnx==1.16.2",
        "torch==2.13.0",
        "numpy==1.26.4",
        "setuptools<80",
    ),
    "tensorflow": ("tensorflow-cpu==2.21.0",),
    # The last release whose TFLite interpreter brings TensorFlow's operations for training.
    "tflite": ("tensorflow-cpu==2.16.2",),
    "iree": ("iree-base-compiler==3.13.0", "iree-base-runtime==3.13.0", "numpy==2.4.6"),
    "mnn": ("MNN==3.6.1", "numpy==2.4.6"),
}
"""Requirements of each environment."""

CONTESTANTS: Mapping[str, Contestant] = {
    OURS: Contestant("niwaki_step", None),
    "torch": Contestant("torch_eager", "torch"),
    "torch-channels-last": Contestant("torch_channels_last", "torch"),
    "torch-compile": Contestant("torch_compiled", "torch"),
    "jax": Contestant(
        "jax_jit",
        "jax",
        variables={"JAX_PLATFORMS": "cpu"},
        single_thread_variables={"XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false"},
    ),
    "onnxruntime": Contestant("onnxruntime_training", "onnxruntime", ["onnxruntime-artifacts"]),
    "tensorflow": Contestant(
        "tensorflow_function", "tensorflow", variables={"TF_CPP_MIN_LOG_LEVEL": "3"}
    ),
    "tflite": Contestant("tflite_signature", "tflite", variables={"TF_CPP_MIN_LOG_LEVEL": "3"}),
    "iree": Contestant("iree_module", "iree", ["jax"]),
    "mnn": Contestant("mnn_train", "mnn"),
    "niwaki-full": Contestant("niwaki_full", None),
}
"""Ours first; "niwaki-full" is our own full update, whatever the others update."""
PEERS = tuple(name for name in CONTESTANTS if not name.startswith(OURS))
"""The other frameworks."""
