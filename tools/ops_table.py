"""The table of operations, from the registries of dialects, gradients, frontends and kernels."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType

from xdsl.ir import Operation

from niwaki.backends.kernels import scalar
from niwaki.backends.kernels.select import ALONE, FUSING
from niwaki.frontends import aten, onnx_ops
from niwaki.ir.dialects import nn, train
from niwaki.ir.dialects.nn import (
    composite,
    contraction,
    elementwise,
    fused,
    pooling,
    quantized,
    shape,
)
from niwaki.passes.decompose import DECOMPOSITIONS
from niwaki.passes.dependences import ANCHORS
from niwaki.passes.expand_updates import EXPANDED
from niwaki.passes.gradients import NOT_DIFFERENTIABLE, RULES
from niwaki.passes.lower_quantized import LOWERINGS

FAMILIES: Mapping[str, tuple[ModuleType, Sequence[type[Operation]]]] = {
    "Elementwise": (elementwise, elementwise.OPS),
    "Convolution and matrix product": (contraction, contraction.OPS),
    "Pooling": (pooling, pooling.OPS),
    "Shape and reduction": (shape, shape.OPS),
    "Composite": (composite, composite.OPS),
    "Quantised": (quantized, quantized.OPS),
    "Fused": (fused, fused.OPS),
    "Training": (train, list(train.TRAIN.operations)),
}
"""Title -> the file of the dialect, and its operations."""

ORIGINS: Mapping[type[Operation], str] = {
    nn.NarrowOp: "`narrow-stash`",
    nn.Conv2dDxOp: "`autodiff`",
    nn.Conv2dDwOp: "`autodiff`",
    nn.MaxPool2dGradOp: "`autodiff`",
    nn.AvgPool2dGradOp: "`autodiff`",
    nn.ScatterAddOp: "`autodiff`",
    nn.AddRowsOp: "`canonicalize`",
    nn.CountCorrectOp: "`build-training`",
    nn.BatchNormTrainOp: "`build-training`",
    nn.RandomMaskOp: "`build-training`",
    nn.QuantizeOp: "quantised networks",
    nn.DequantizeOp: "quantised networks",
    nn.QuantizedConv2dOp: "quantised networks",
    nn.QuantizedAddOp: "quantised networks",
    nn.QuantizedMeanOp: "quantised networks",
    nn.CodesOp: "`autodiff`, `expand-updates`",
    nn.FromCodesOp: "`lower-quantized`",
    nn.ScalesOp: "`autodiff`, `expand-updates`",
    nn.IntegerConv2dOp: "`lower-quantized`",
    nn.IntegerConv2dDxOp: "`integer-backward`",
    nn.IntegerConv2dDwOp: "`integer-backward`",
    nn.RescaleOp: "`lower-quantized`",
    nn.RoundOp: "`expand-updates`",
    nn.RandomUniformOp: "`expand-updates`",
    nn.FusedOp: "`fuse`",
    nn.YieldOp: "`fuse`",
    train.ParameterOp: "every weight of a file",
    train.StateOp: "`build-training`, `autodiff`",
    train.AssignOp: "`build-training`, `expand-updates`",
    train.SgdOp: "`autodiff`",
    train.AdamOp: "`autodiff`",
    train.ClipByNormOp: "`autodiff`",
}
"""What makes the operations that no operation of a model file becomes."""

_TRAIN_GRADIENTS: Mapping[type[Operation], str] = {
    train.ParameterOp: "receives one",
    train.StateOp: "none: it is no parameter",
    train.AssignOp: "none: it has no result",
    train.SgdOp: "none: it has no result",
    train.AdamOp: "none: it has no result",
    train.ClipByNormOp: "none: it is made after gradients are taken",
}

_MEMORY: Mapping[type[Operation], str] = {
    nn.ConstantOp: "memory",
    nn.ReshapeOp: "view",
    nn.CodesOp: "view",
    nn.FromCodesOp: "view",
    nn.FusedOp: "one kernel",
    nn.YieldOp: "part of `nn.fused`",
    train.ParameterOp: "memory",
    train.StateOp: "memory",
    train.AssignOp: "in place, else a copy",
}
"""Operations that are not computed, but say where values are."""


@dataclass(frozen=True)
class Row:
    """What there is to know of one operation."""

    op: str
    summary: str
    """The first line of its docstring."""
    torch: tuple[str, ...]
    """The aten operations that become (among others) this one."""
    onnx: tuple[str, ...]
    origin: str
    """What else makes it; empty where a frontend does."""
    gradient: str
    kernel: str


def rows(family: str) -> list[Row]:
    """The rows of a family, in the order of the dialect.

    Raises KeyError for an operation that some registry lacks.
    """
    _, ops = FAMILIES[family]
    return [_row(op) for op in ops]


def _row(op: type[Operation]) -> Row:
    torch, onnx = _sources(aten.OPS, op), _sources(onnx_ops.OPS, op)
    origin = ORIGINS[op] if op in ORIGINS or not (torch or onnx) else ""
    summary = (op.__doc__ or "").strip().splitlines()[0]
    return Row(op.name, summary, torch, onnx, origin, _gradient(op), _kernel(op))


def _sources(ops: Mapping[str, tuple[str, ...]], op: type[Operation]) -> tuple[str, ...]:
    return tuple(sorted(source for source, becomes in ops.items() if op.name in becomes))


def _gradient(op: type[Operation]) -> str:
    if op in RULES:
        return "rule"
    if op in NOT_DIFFERENTIABLE:
        return f"none: {NOT_DIFFERENTIABLE[op]}"
    return _TRAIN_GRADIENTS[op]


def _kernel(op: type[Operation]) -> str:
    if op in _MEMORY:
        return _MEMORY[op]
    if op in DECOMPOSITIONS:
        return "`decompose`"
    if op in EXPANDED:
        return "`expand-updates`"
    if op in LOWERINGS:
        return "`lower-quantized`"
    if op in scalar.RULES or op in (nn.OneHotOp, nn.RandomUniformOp):
        return "elementwise"
    if op in FUSING and issubclass(op, ANCHORS):
        return "anchor"
    if op in FUSING or op in ALONE or op is nn.BroadcastOp:
        return "alone"
    raise KeyError(op)


def markdown() -> str:
    """The table of all families, for docs/ops.md."""
    return "\n".join(line for family in FAMILIES for line in _section(family))


def _section(family: str) -> list[str]:
    module, _ = FAMILIES[family]
    path = "/".join(module.__name__.split(".")[1:])
    return [
        f"### {family} ([source](../{path}.py))",
        "",
        "| operation | meaning | from PyTorch | from ONNX | gradient | kernel |",
        "|---|---|---|---|---|---|",
        *(_line(row) for row in rows(family)),
        "",
    ]


def _line(row: Row) -> str:
    torch = list(dict.fromkeys(name.split(".")[1] for name in row.torch))
    cells = [
        f"`{row.op}`",
        _escaped(row.summary),
        ", ".join(f"`{name}`" for name in torch) or (f"({row.origin})" if row.origin else "–"),
        ", ".join(f"`{name}`" for name in row.onnx) or "–",
        row.gradient,
        row.kernel,
    ]
    return f"| {' | '.join(cells)} |"


def _escaped(text: str) -> str:
    """`text` without Markdown's meaning of * | < outside of code."""
    parts = text.split("`")
    parts[::2] = [re.sub(r"([*|<])", r"\\\1", part) for part in parts[::2]]
    return "`".join(parts)
