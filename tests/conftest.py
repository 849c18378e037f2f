"""What all tests share: FileCheck tests, Hypothesis with the same examples on every run, no cache."""

import os

from hypothesis import settings

from tests.filecheck_plugin import pytest_collect_file as pytest_collect_file

settings.register_profile("deterministic", derandomize=True, deadline=None, database=None)
settings.load_profile("deterministic")

# What was compiled earlier must not decide a test; processes that tests start inherit this.
os.environ["NIWAKI_CACHE"] = "off"
