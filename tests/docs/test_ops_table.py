"""docs/ops.md is what the registries say today, and they say something of every operation."""

import re

import pytest
from xdsl.ir import Operation

from niwaki.frontends import aten, onnx_ops
from niwaki.ir.dialects.nn import NN
from niwaki.ir.dialects.train import TRAIN
from niwaki.tools.ops_table import FAMILIES, ORIGINS, Row, markdown, rows
from tests.generated_docs import DOCS, fill, part_names

PAGE = (DOCS / "ops.md").read_text(encoding="utf-8")
ROWS = [row for family in FAMILIES for row in rows(family)]
OPS = [*NN.operations, *TRAIN.operations]
FRONTENDS = {"torch": aten.OPS, "onnx": onnx_ops.OPS}


def test_the_page_is_up_to_date():
    assert part_names(PAGE) == ["ops"]
    assert fill(PAGE, {"ops": markdown()}) == PAGE, "run: python -m tests.generated_docs"


def test_every_operation_has_one_row():
    assert sorted(row.op for row in ROWS) == sorted(op.name for op in OPS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.op)
def test_no_cell_is_empty_by_accident(row: Row):
    assert row.summary
    assert row.gradient
    assert row.kernel
    assert row.torch or row.onnx or row.origin


@pytest.mark.parametrize("op", ORIGINS, ids=lambda op: op.name)
def test_an_origin_is_named_only_where_no_file_has_the_operation(op: type[Operation]):
    (row,) = (row for row in ROWS if row.op == op.name)
    assert not row.torch


@pytest.mark.parametrize("frontend", FRONTENDS)
def test_frontends_name_known_operations_only(frontend: str):
    named = {name for becomes in FRONTENDS[frontend].values() for name in becomes}
    assert named <= {op.name for op in OPS}


def test_every_cell_survives_markdown():
    lines = [line for line in markdown().splitlines() if line.startswith("| `")]
    assert len(lines) == len(ROWS)
    for line in lines:
        cells = re.split(r"(?<!\\)\|", line)[1:-1]
        assert len(cells) == 6
        assert all(cell.strip() for cell in cells), line
