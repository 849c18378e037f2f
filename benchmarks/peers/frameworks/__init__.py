"""One worker for each framework, and what it is made of; each runs in its own environment."""
