"""The platform layer of the examples and tests: files of C, for Linux and for the boards."""
