"""The `nn` dialect: operations on static tensors with value semantics."""

from xdsl.ir import Dialect

from niwaki.ir.dialects.nn import (
    composite,
    contraction,
    elementwise,
    fused,
    pooling,
    quantized,
    shape,
)
from niwaki.ir.dialects.nn.composite import (
    BatchNormOp as BatchNormOp,
)
from niwaki.ir.dialects.nn.composite import (
    BatchNormTrainOp as BatchNormTrainOp,
)
from niwaki.ir.dialects.nn.composite import (
    BceWithLogitsOp as BceWithLogitsOp,
)
from niwaki.ir.dialects.nn.composite import (
    CrossEntropyOp as CrossEntropyOp,
)
from niwaki.ir.dialects.nn.composite import (
    DropoutOp as DropoutOp,
)
from niwaki.ir.dialects.nn.composite import (
    LayerNormOp as LayerNormOp,
)
from niwaki.ir.dialects.nn.composite import (
    LogSoftmaxOp as LogSoftmaxOp,
)
from niwaki.ir.dialects.nn.composite import (
    MseOp as MseOp,
)
from niwaki.ir.dialects.nn.composite import (
    RandomMaskOp as RandomMaskOp,
)
from niwaki.ir.dialects.nn.composite import (
    RmsNormOp as RmsNormOp,
)
from niwaki.ir.dialects.nn.composite import (
    SoftmaxOp as SoftmaxOp,
)
from niwaki.ir.dialects.nn.contraction import (
    Conv2dDwOp as Conv2dDwOp,
)
from niwaki.ir.dialects.nn.contraction import (
    Conv2dDxOp as Conv2dDxOp,
)
from niwaki.ir.dialects.nn.contraction import (
    Conv2dOp as Conv2dOp,
)
from niwaki.ir.dialects.nn.contraction import (
    Convolution as Convolution,
)
from niwaki.ir.dialects.nn.contraction import (
    MatmulOp as MatmulOp,
)
from niwaki.ir.dialects.nn.contraction import (
    Window as Window,
)
from niwaki.ir.dialects.nn.elementwise import (
    TRANSCENDENTAL as TRANSCENDENTAL,
)
from niwaki.ir.dialects.nn.elementwise import (
    AbsOp as AbsOp,
)
from niwaki.ir.dialects.nn.elementwise import (
    AddOp as AddOp,
)
from niwaki.ir.dialects.nn.elementwise import (
    AndOp as AndOp,
)
from niwaki.ir.dialects.nn.elementwise import (
    Binary as Binary,
)
from niwaki.ir.dialects.nn.elementwise import (
    CastOp as CastOp,
)
from niwaki.ir.dialects.nn.elementwise import (
    CompareOp as CompareOp,
)
from niwaki.ir.dialects.nn.elementwise import (
    DivOp as DivOp,
)
from niwaki.ir.dialects.nn.elementwise import (
    Elementwise as Elementwise,
)
from niwaki.ir.dialects.nn.elementwise import (
    ErfOp as ErfOp,
)
from niwaki.ir.dialects.nn.elementwise import (
    ExpOp as ExpOp,
)
from niwaki.ir.dialects.nn.elementwise import (
    GeluOp as GeluOp,
)
from niwaki.ir.dialects.nn.elementwise import (
    HardSigmoidOp as HardSigmoidOp,
)
from niwaki.ir.dialects.nn.elementwise import (
    HardSwishOp as HardSwishOp,
)
from niwaki.ir.dialects.nn.elementwise import (
    LeakyReluOp as LeakyReluOp,
)
from niwaki.ir.dialects.nn.elementwise import (
    LogOp as LogOp,
)
from niwaki.ir.dialects.nn.elementwise import (
    MaxOp as MaxOp,
)
from niwaki.ir.dialects.nn.elementwise import (
    MinOp as MinOp,
)
from niwaki.ir.dialects.nn.elementwise import (
    MulOp as MulOp,
)
from niwaki.ir.dialects.nn.elementwise import (
    NarrowOp as NarrowOp,
)
from niwaki.ir.dialects.nn.elementwise import (
    NegOp as NegOp,
)
from niwaki.ir.dialects.nn.elementwise import (
    OneHotOp as OneHotOp,
)
from niwaki.ir.dialects.nn.elementwise import (
    Relu6Op as Relu6Op,
)
from niwaki.ir.dialects.nn.elementwise import (
    ReluOp as ReluOp,
)
from niwaki.ir.dialects.nn.elementwise import (
    RsqrtOp as RsqrtOp,
)
from niwaki.ir.dialects.nn.elementwise import (
    SelectOp as SelectOp,
)
from niwaki.ir.dialects.nn.elementwise import (
    SigmoidOp as SigmoidOp,
)
from niwaki.ir.dialects.nn.elementwise import (
    SiluOp as SiluOp,
)
from niwaki.ir.dialects.nn.elementwise import (
    SoftplusOp as SoftplusOp,
)
from niwaki.ir.dialects.nn.elementwise import (
    SqrtOp as SqrtOp,
)
from niwaki.ir.dialects.nn.elementwise import (
    SubOp as SubOp,
)
from niwaki.ir.dialects.nn.elementwise import (
    TanhOp as TanhOp,
)
from niwaki.ir.dialects.nn.elementwise import (
    Unary as Unary,
)
from niwaki.ir.dialects.nn.fused import FusedOp as FusedOp
from niwaki.ir.dialects.nn.fused import YieldOp as YieldOp
from niwaki.ir.dialects.nn.pooling import (
    AvgPool2dGradOp as AvgPool2dGradOp,
)
from niwaki.ir.dialects.nn.pooling import (
    AvgPool2dOp as AvgPool2dOp,
)
from niwaki.ir.dialects.nn.pooling import (
    MaxPool2dGradOp as MaxPool2dGradOp,
)
from niwaki.ir.dialects.nn.pooling import (
    MaxPool2dOp as MaxPool2dOp,
)
from niwaki.ir.dialects.nn.pooling import (
    Pooling as Pooling,
)
from niwaki.ir.dialects.nn.quantized import (
    CodesOp as CodesOp,
)
from niwaki.ir.dialects.nn.quantized import (
    DequantizeOp as DequantizeOp,
)
from niwaki.ir.dialects.nn.quantized import (
    FromCodesOp as FromCodesOp,
)
from niwaki.ir.dialects.nn.quantized import (
    IntegerConv2dDwOp as IntegerConv2dDwOp,
)
from niwaki.ir.dialects.nn.quantized import (
    IntegerConv2dDxOp as IntegerConv2dDxOp,
)
from niwaki.ir.dialects.nn.quantized import (
    IntegerConv2dOp as IntegerConv2dOp,
)
from niwaki.ir.dialects.nn.quantized import (
    QuantizedAddOp as QuantizedAddOp,
)
from niwaki.ir.dialects.nn.quantized import (
    QuantizedConv2dOp as QuantizedConv2dOp,
)
from niwaki.ir.dialects.nn.quantized import (
    QuantizedMeanOp as QuantizedMeanOp,
)
from niwaki.ir.dialects.nn.quantized import (
    QuantizeOp as QuantizeOp,
)
from niwaki.ir.dialects.nn.quantized import (
    RandomUniformOp as RandomUniformOp,
)
from niwaki.ir.dialects.nn.quantized import (
    RescaleOp as RescaleOp,
)
from niwaki.ir.dialects.nn.quantized import (
    RoundOp as RoundOp,
)
from niwaki.ir.dialects.nn.quantized import (
    ScalesOp as ScalesOp,
)
from niwaki.ir.dialects.nn.shape import (
    AddRowsOp as AddRowsOp,
)
from niwaki.ir.dialects.nn.shape import (
    BroadcastOp as BroadcastOp,
)
from niwaki.ir.dialects.nn.shape import (
    ConcatOp as ConcatOp,
)
from niwaki.ir.dialects.nn.shape import (
    ConstantOp as ConstantOp,
)
from niwaki.ir.dialects.nn.shape import (
    CountCorrectOp as CountCorrectOp,
)
from niwaki.ir.dialects.nn.shape import (
    GatherOp as GatherOp,
)
from niwaki.ir.dialects.nn.shape import (
    PadOp as PadOp,
)
from niwaki.ir.dialects.nn.shape import (
    ReduceMaxOp as ReduceMaxOp,
)
from niwaki.ir.dialects.nn.shape import (
    ReduceMeanOp as ReduceMeanOp,
)
from niwaki.ir.dialects.nn.shape import (
    ReduceSumOp as ReduceSumOp,
)
from niwaki.ir.dialects.nn.shape import (
    Reduction as Reduction,
)
from niwaki.ir.dialects.nn.shape import (
    ReshapeOp as ReshapeOp,
)
from niwaki.ir.dialects.nn.shape import (
    ScatterAddOp as ScatterAddOp,
)
from niwaki.ir.dialects.nn.shape import (
    SliceOp as SliceOp,
)
from niwaki.ir.dialects.nn.shape import (
    TransposeOp as TransposeOp,
)
from niwaki.ir.dialects.quantized_type import QuantizedType

NN = Dialect(
    "nn",
    [
        *elementwise.OPS,
        *contraction.OPS,
        *pooling.OPS,
        *shape.OPS,
        *composite.OPS,
        *quantized.OPS,
        *fused.OPS,
    ],
    [QuantizedType],
)
