"""What all tests share: FileCheck tests, and Hypothesis with the same examples on every run."""

from hypothesis import settings

from tests.filecheck_plugin import pytest_collect_file as pytest_collect_file

settings.register_profile("deterministic", derandomize=True, deadline=None, database=None)
settings.load_profile("deterministic")
