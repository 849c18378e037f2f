"""What the tests of kernels share: targets, sizes, inputs and the comparison."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from xdsl.dialects.builtin import MemRefType
from xdsl.ir import Attribute, Block, Operation, Region, SSAValue

from niwaki.backends.targets import get_target
from niwaki.ir.builder import Builder
from niwaki.ir.dialects import nn
from niwaki.ir.dialects.tensor_op import f32, tensor
from tests.backends.run_kernel import reference, run_op

Array = np.ndarray[Any, np.dtype[Any]]

LANES = (16, 8, 4, 1)
INTEGER_TARGETS = {
    **{f"{n} lanes": replace(get_target("host"), lanes=n) for n in LANES},
    "packed halves": replace(get_target("host"), lanes=1, packed_halves=True),
    "vector dots": replace(get_target("host"), lanes=4, packed_halves=True, vector_dots=True),
}
"""The host with vectors of every width, and with the kernels of cores that pack halves or sum up
products of vectors."""
SIZES = (1, 7, 8, 9, 31, 32, 33)


def values(*kinds: tuple[Sequence[int], Attribute] | Sequence[int]) -> list[SSAValue]:
    """Tensor values without a meaning: (shape, element type) or shape (f32) each."""
    types = [
        tensor(k[0], k[1]) if len(k) == 2 and not isinstance(k[0], int) else tensor(k, f32)
        for k in kinds
    ]
    return list(Block(arg_types=types).args)


def normal(*shape: int, seed: int = 0) -> Array:
    """Standard normal f32."""
    return np.random.default_rng([seed, *shape]).standard_normal(shape, np.float32)


class FusedBuilder(Builder):
    """Builds the body of an `nn.fused`: arguments first, `finish` last."""

    def __init__(self, operands: Sequence[SSAValue]) -> None:
        self._operands = operands
        self._block = Block(arg_types=[o.type for o in operands])
        super().__init__(Builder.at_end(self._block).point)
        self.args = list(self._block.args)

    def finish(self, *outputs: SSAValue) -> nn.FusedOp:
        """The group that yields `outputs`."""
        self.insert(nn.YieldOp(*outputs))
        op = nn.FusedOp.create(
            operands=list(self._operands),
            result_types=[o.type for o in outputs],
            regions=[Region(self._block)],
        )
        op.verify()
        return op


def check(
    op: Operation,
    arrays: Sequence[Array],
    lanes: int,
    tolerance: float = 0.0,
    operands: Sequence[MemRefType] | None = None,
    results: Sequence[MemRefType] | None = None,
    in_place: bool = False,
) -> None:
    """Asserts that the kernel of `op` computes what the reference semantics say.

    `tolerance` is relative to the largest magnitude of the result, or 1.
    """
    target = replace(get_target("host"), lanes=lanes)
    actual = run_op(op, arrays, target, operands=operands, results=results, in_place=in_place)
    for got, expected in zip(actual, reference(op, arrays), strict=True):
        assert got.shape == expected.shape
        if tolerance == 0.0 or not np.issubdtype(expected.dtype, np.floating):
            np.testing.assert_array_equal(got, expected)
            continue
        largest = np.max(np.abs(expected), initial=1.0, where=np.isfinite(expected))
        np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance * largest)
