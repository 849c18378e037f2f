"""Kernels of table rows at indices known at run time."""

import numpy as np
import pytest
from xdsl.dialects.builtin import i32

from niwaki.ir.dialects import nn
from tests.backends.kernel_cases import LANES, SIZES, check, normal, values

INDICES = np.array([[0, 4, 0], [5, -1, 2], [2**31 - 1, -(2**31), 3]], np.int32)
"""One twice, some outside of five rows."""


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("columns", SIZES)
def test_gather(columns: int, lanes: int) -> None:
    op = nn.GatherOp.make(*values([5, columns], ([3, 3], i32)))
    check(op, [normal(5, columns), INDICES], lanes)


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("columns", SIZES)
def test_scatter_add(columns: int, lanes: int) -> None:
    op = nn.ScatterAddOp.make(*values([3, 3, columns], ([3, 3], i32)), rows=5)
    check(op, [normal(3, 3, columns), INDICES], lanes)


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("columns", SIZES)
def test_add_rows_in_the_place_of_the_table(columns: int, lanes: int) -> None:
    op = nn.AddRowsOp.make(*values([5, columns], [3, 3, columns], ([3, 3], i32)))
    arrays = [normal(5, columns), normal(3, 3, columns), INDICES]
    check(op, arrays, lanes, 1e-6, in_place=True)


def test_gather_of_one_row() -> None:
    op = nn.GatherOp.make(*values([5, 3], ([], i32)))
    check(op, [normal(5, 3), np.array(4, np.int32)], 8)
