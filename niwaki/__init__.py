"""Niwaki: a compiler for training neural networks on small devices."""
