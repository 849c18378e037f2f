"""The `nn` dialect: operations on static tensors with value semantics."""

from xdsl.ir import Dialect

from niwaki.ir.dialects.nn import composite, contraction, elementwise, fused, pooling, shape
from niwaki.ir.dialects.nn.composite import (
    BatchNormOp as BatchNormOp,
    BatchNormTrainOp as BatchNormTrainOp,
    BceWithLogitsOp as BceWithLogitsOp,
    CrossEntropyOp as CrossEntropyOp,
    DropoutOp as DropoutOp,
    LogSoftmaxOp as LogSoftmaxOp,
    MseOp as MseOp,
    RandomMaskOp as RandomMaskOp,
    SoftmaxOp as SoftmaxOp,
)
from niwaki.ir.dialects.nn.contraction import (
    Conv2dDwOp as Conv2dDwOp,
    Conv2dDxOp as Conv2dDxOp,
    Conv2dOp as Conv2dOp,
    Convolution as Convolution,
    MatmulOp as MatmulOp,
    Window as Window,
)
from niwaki.ir.dialects.nn.elementwise import (
    AbsOp as AbsOp,
    AddOp as AddOp,
    AndOp as AndOp,
    Binary as Binary,
    CastOp as CastOp,
    CompareOp as CompareOp,
    DivOp as DivOp,
    Elementwise as Elementwise,
    ErfOp as ErfOp,
    ExpOp as ExpOp,
    GeluOp as GeluOp,
    HardSigmoidOp as HardSigmoidOp,
    HardSwishOp as HardSwishOp,
    LeakyReluOp as LeakyReluOp,
    LogOp as LogOp,
    MaxOp as MaxOp,
    MinOp as MinOp,
    MulOp as MulOp,
    NegOp as NegOp,
    Relu6Op as Relu6Op,
    ReluOp as ReluOp,
    RsqrtOp as RsqrtOp,
    SelectOp as SelectOp,
    SigmoidOp as SigmoidOp,
    SiluOp as SiluOp,
    SoftplusOp as SoftplusOp,
    SqrtOp as SqrtOp,
    SubOp as SubOp,
    TanhOp as TanhOp,
    Unary as Unary,
)
from niwaki.ir.dialects.nn.fused import FusedOp as FusedOp, YieldOp as YieldOp
from niwaki.ir.dialects.nn.pooling import (
    AvgPool2dGradOp as AvgPool2dGradOp,
    AvgPool2dOp as AvgPool2dOp,
    MaxPool2dGradOp as MaxPool2dGradOp,
    MaxPool2dOp as MaxPool2dOp,
    Pooling as Pooling,
)
from niwaki.ir.dialects.nn.shape import (
    BroadcastOp as BroadcastOp,
    ConcatOp as ConcatOp,
    ConstantOp as ConstantOp,
    CountCorrectOp as CountCorrectOp,
    OneHotOp as OneHotOp,
    PadOp as PadOp,
    ReduceMaxOp as ReduceMaxOp,
    ReduceMeanOp as ReduceMeanOp,
    ReduceSumOp as ReduceSumOp,
    Reduction as Reduction,
    ReshapeOp as ReshapeOp,
    SliceOp as SliceOp,
    TransposeOp as TransposeOp,
)

NN = Dialect(
    "nn",
    [
        *elementwise.OPS,
        *contraction.OPS,
        *pooling.OPS,
        *shape.OPS,
        *composite.OPS,
        *fused.OPS,
    ],
)
