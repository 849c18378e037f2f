"""Worker: Niwaki updating every parameter, to compare its other updates with."""

from dataclasses import replace
from importlib.metadata import version

from benchmarks.peers.frameworks.niwaki_step import build
from benchmarks.peers.worker import Built, Task, serve


def build_full(task: Task) -> Built:
    """The step with the update "full"."""
    return build(replace(task, update="full"))


if __name__ == "__main__":
    serve(version("niwaki"), build_full)
