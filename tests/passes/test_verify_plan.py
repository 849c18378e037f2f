"""The plan verifier sees every way in which a plan can lose or invent values."""

import re

import pytest
from xdsl.dialects.builtin import IntegerAttr, MemRefType, StringAttr, SymbolRefAttr, f32, i64
from xdsl.ir import Attribute, Block, Region, SSAValue

from niwaki.ir.dialects import plan
from niwaki.ir.dialects.tensor_op import ints
from niwaki.passes.arenas.problem import PlanError
from niwaki.passes.verify_plan import verify_plan

GOOD = """
x = input 0: 4
w = state 16: 4
c = constants 0: 4
a = arena 0: 4
first(x c -> a)
b = arena 16: 4
s = arena 32: 4
second(a -> b | s)
v = arena 16: 2x2
d = arena 0: 4
third(a -> d) in place 0 1
n = state 16: 4
update(w d v -> n) in place 0 3
y = output 0: 4
last(n -> y)
"""
"""Views "name = space offset: shape", calls "kernel(reads -> writes | workspace)"."""

VIEW = re.compile(r"(\w+) = (\w+) (-?\d+): ([\dx]+)")
CALL = re.compile(r"(\w+)\(([\w ]+) -> (\w+)(?: \| (\w+))?\)(?: in place (.*))?")


def integer(value: int) -> IntegerAttr:
    return IntegerAttr(value, i64)


def program(text: str) -> plan.ProgramOp:
    block = Block()
    views: dict[str, SSAValue] = {}
    for line in text.strip().splitlines():
        if match := VIEW.fullmatch(line):
            name, space, offset, shape = match.groups()
            kind = MemRefType(f32, [int(s) for s in shape.split("x")])
            properties: dict[str, Attribute] = {
                "space": StringAttr(space),
                "offset": integer(int(offset)),
            }
            if space in ("input", "output"):
                properties["index"] = integer(0)
            view = plan.ViewOp.create(properties=properties, result_types=[kind])
            views[name] = view.view
            block.add_op(view)
            continue
        match = CALL.fullmatch(line)
        assert match is not None, line
        kernel, reads, write, workspace, in_place = match.groups()
        names = [*reads.split(), write, *([workspace] if workspace else [])]
        properties = {
            "kernel": SymbolRefAttr(kernel),
            "reads": integer(len(reads.split())),
            "writes": integer(1),
        }
        if in_place:
            properties["in_place"] = ints([int(n) for n in in_place.split()])
        operands = [views[n] for n in names]
        block.add_op(plan.CallOp.create(operands=operands, properties=properties))
    result = plan.ProgramOp.create(
        properties={"sym_name": StringAttr("step"), "arena": integer(64), "bound": integer(64)},
        regions=[Region(block)],
    )
    result.verify()
    return result


def check(text: str) -> None:
    verify_plan(program(text), 16, {"state": 32, "constants": 16})


def test_a_good_plan() -> None:
    check(GOOD)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("b = arena 16", "b = arena 0", "second: arguments 0 and 1 overlap"),
        (" in place 0 1", "", "third: arguments 0 and 1 overlap"),
        ("d = arena 0: 4", "d = arena 0: 3", "third: arguments 0 and 1 overlap"),
        ("s = arena 32", "s = arena 0", "second: arguments 0 and 2 overlap"),
        ("s = arena 32", "s = arena 16", "second: arguments 1 and 2 overlap"),
        ("d = arena 0", "d = arena 16", "update reads argument 2, which was overwritten"),
        ("second(a -> b | s)", "second(b -> s)", "second reads argument 0, which was never"),
        ("third(a", "third(y", "third reads argument 0, which was never"),
        ("update(w d v", "update(w a v", "update reads argument 1, which was overwritten"),
        ("last(n", "last(w", "last reads argument 0, which was overwritten"),
        ("last(n -> y)", "last(n -> x)", "last writes argument 1, which is read-only"),
        ("last(n -> y)", "last(n -> c)", "last writes argument 1, which is read-only"),
        ("s = arena 32", "s = arena 64", "leaves the 64 bytes of the arena"),
        ("w = state 16", "w = state 20", "leaves the 32 bytes of the state"),
        ("c = constants 0: 4", "c = constants 0: 5", "leaves the 16 bytes of the constants"),
        ("s = arena 32", "s = arena 36", "not aligned to 16"),
        ("w = state 16", "w = state 14", "not aligned to 4"),
    ],
)
def test_faults(old: str, new: str, message: str) -> None:
    assert GOOD.count(old) == 1
    # The output is declared first, so that any call may name it.
    text = GOOD.replace("y = output 0: 4\n", "").replace("x = ", "y = output 0: 4\nx = ")
    check(text)
    with pytest.raises(PlanError, match=message):
        check(text.replace(old, new))


def test_a_part_that_is_overwritten_spoils_the_whole() -> None:
    text = "x = input 0: 4\na = arena 0: 8\nf(x -> a)\nb = arena 16: 4\nf(x -> b)\n"
    check(text + "c = arena 0: 4\ny = output 0: 4\nf(c -> y)")
    with pytest.raises(PlanError, match="overwritten"):
        check(text + "y = output 0: 4\nf(a -> y)")


def test_the_message_names_the_program_and_the_operation() -> None:
    with pytest.raises(PlanError, match=r"@step, operation 10: third"):
        check(GOOD.replace(" in place 0 1", ""))
