"""Worker: PyTorch, eager, with images and filters in its faster memory format."""

from functools import partial

import torch

from benchmarks.peers.frameworks.torch_step import build
from benchmarks.peers.worker import serve

if __name__ == "__main__":
    serve(torch.__version__, partial(build, channels_last=True))
