"""Worker: IREE for the CPU, running the step that JAX exported."""

from importlib.metadata import version

import iree.runtime as runtime  # pyright: ignore[reportMissingImports]

from benchmarks.peers.frameworks.ahead_of_time import once, run_ahead, run_script
from benchmarks.peers.frameworks.jax_layout import LAYOUT
from benchmarks.peers.worker import Built, Task, serve

FLAGS = (
    "--iree-input-type=stablehlo",
    "--iree-hal-target-device=local",
    "--iree-hal-local-target-device-backends=llvm-cpu",
    "--iree-llvmcpu-target-cpu=host",
    "--iree-opt-level=O3",
    "--iree-llvmcpu-stack-allocation-limit=1048576",  # attention needs more than the default
)


def build(task: Task) -> Built:
    """The step as a module of IREE's virtual machine; parameters stay on its device."""

    def make() -> None:
        run_script("jax", "jax_export", task)
        run_ahead(["iree-compile", "step.mlir", "-o=step.vmfb", *FLAGS], task.folder)

    once(task.folder, make)
    device = runtime.get_driver("local-task" if task.threads > 1 else "local-sync")
    device = device.create_default_device()
    context = runtime.SystemContext(config=runtime.Config(device=device))
    context.add_vm_module(runtime.VmModule.mmap(context.instance, str(task.folder / "step.vmfb")))
    modules = dict(context.modules.items())
    (function,) = (m["main"] for name, m in modules.items() if name.startswith("jit"))

    trainable = sorted(task.model.trainable(task.update))
    arrays = {
        name: runtime.asdevicearray(device, array)
        for name, array in task.model.arrays(LAYOUT).items()
    }
    trained = [arrays.pop(name) for name in trainable]
    frozen = [arrays[name] for name in sorted(arrays)]
    data = [runtime.asdevicearray(device, array) for array in task.model.data(task.batch, LAYOUT)]

    def step() -> float:
        nonlocal trained
        *trained, loss = function(*trained, *frozen, *data)
        return float(loss.to_host())

    return Built(step)


if __name__ == "__main__":
    serve(version("iree-base-runtime"), build)
