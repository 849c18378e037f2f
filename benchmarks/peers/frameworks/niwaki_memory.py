"""Prints the peak of resident memory of a compiled step, which another process has compiled."""

import pickle

import numpy as np

from benchmarks.peers.models import Layout
from benchmarks.peers.worker import Task, peak_over, resident_bytes
from niwaki.backends.llvm.compile import LoadedObject, compile_object
from niwaki.backends.llvm.session import Session
from niwaki.backends.targets import get_target

LAYOUT = Layout(channels_last=True, filter_axes=(0, 2, 3, 1))
STEP_FILE = "step.pickle"
"""In the task's folder: the lowered step without its kernels, and its object code."""


def peak_bytes(task: Task) -> int:
    """Over what the imports take, as of the peers."""
    # What LLVM loads once, as others do when they are imported.
    LoadedObject(compile_object("define void @f(ptr %p) { ret void }", get_target("host")), ["f"])
    imported = resident_bytes()
    lowered, code = pickle.loads((task.folder / STEP_FILE).read_bytes())
    session = Session(lowered, code, threads=task.threads)
    del code
    model = task.model
    arguments = [*model.data(task.batch, LAYOUT), np.array(model.lr, np.float32)]
    return peak_over(imported, lambda: session.run("train_step", arguments))


if __name__ == "__main__":
    print(peak_bytes(Task.parse()))
