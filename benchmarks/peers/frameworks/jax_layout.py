"""The layout of the step that JAX makes and IREE runs."""

from benchmarks.peers.models import Layout

LAYOUT = Layout(channels_last=True, filter_axes=(2, 3, 1, 0))
"""Images NHWC, filters HWIO."""
