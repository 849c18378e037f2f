"""The garbage collector is left as it was found."""

import gc
from collections.abc import Generator

import pytest

from niwaki.collector import rare_collections


@pytest.fixture(autouse=True)
def usual() -> Generator[None]:
    before = gc.get_threshold()
    gc.set_threshold(700, 10, 10)
    yield
    gc.set_threshold(*before)


def test_collections_are_rare_inside_only() -> None:
    with rare_collections():
        first, *others = gc.get_threshold()
        assert first > 10_000
        assert others == [10, 10]
        with rare_collections():
            assert gc.get_threshold()[0] == first
        assert gc.get_threshold()[0] == first
    assert gc.get_threshold() == (700, 10, 10)


def test_an_error_leaves_nothing_behind() -> None:
    with pytest.raises(ValueError), rare_collections():
        raise ValueError
    assert gc.get_threshold() == (700, 10, 10)


@pytest.mark.parametrize("threshold", [0, 10**6])
def test_who_collects_even_less_keeps_that(threshold: int) -> None:
    gc.set_threshold(threshold, 10, 10)
    with rare_collections():
        assert gc.get_threshold()[0] == threshold
