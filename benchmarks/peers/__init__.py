"""Training steps of Niwaki and of other frameworks, timed in turn on the same models.

    python -m benchmarks.peers.install [PEER ...]
    python -m benchmarks.peers --json peers.json --markdown peers.md

`models.py`, the networks and `worker.py` run in the environments of the frameworks: they import
NumPy alone.
"""
