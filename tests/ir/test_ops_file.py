"""ops.mlir is complete, and printing and parsing it changes nothing."""

from io import StringIO
from pathlib import Path

import pytest
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation
from xdsl.parser import Parser
from xdsl.printer import Printer

from niwaki.ir.context import NiwakiContext
from niwaki.ir.dialects.nn import NN
from niwaki.ir.dialects.plan import PLAN
from niwaki.ir.dialects.train import TRAIN
from niwaki.ir.effects import verify

TEXT = (Path(__file__).parent / "ops.mlir").read_text(encoding="utf-8")
OPS = [*NN.operations, *TRAIN.operations, *PLAN.operations]


def _parse(text: str) -> ModuleOp:
    module = Parser(NiwakiContext(), text, "ops.mlir").parse_module()
    verify(module)
    return module


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_every_operation_is_in_the_file(op: type[Operation]):
    assert any(isinstance(o, op) for o in _parse(TEXT).walk())


def _print(module: ModuleOp, generic: bool) -> str:
    stream = StringIO()
    Printer(stream, print_generic_format=generic).print_op(module)
    return stream.getvalue()


@pytest.mark.parametrize("generic", [False, True])
def test_print_parse_print(generic: bool):
    module = _parse(TEXT)
    text = _print(module, generic)
    again = _parse(text)
    assert _print(again, generic) == text
    assert again.is_structurally_equivalent(module)
