"""The `kernel` dialect: what the loop level needs beyond xDSL's scf, arith, math and vector.

xDSL's comparisons, selections and conversions take scalars only; these take vectors too.
"""

from collections.abc import Mapping
from types import MappingProxyType

from xdsl.dialects.builtin import (
    BoolAttr,
    Float32Type,
    IndexType,
    IntegerAttr,
    IntegerType,
    MemRefType,
    StringAttr,
    VectorType,
    i1,
    i8,
    i16,
    i32,
)
from xdsl.ir import Attribute, Dialect, SSAValue
from xdsl.irdl import (
    IRDLOperation,
    irdl_op_definition,
    operand_def,
    prop_def,
    region_def,
    result_def,
    traits_def,
    var_operand_def,
    var_result_def,
)
from xdsl.traits import (
    IsolatedFromAbove,
    MemoryReadEffect,
    MemoryWriteEffect,
    NoTerminator,
    Pure,
)

from niwaki.ir.dialects.tensor_op import get_int, require

PREDICATES: Mapping[str, bool] = MappingProxyType(
    {
        "oeq": True, "ogt": True, "oge": True, "olt": True, "ole": True,
        "eq": False, "ne": False, "slt": False, "sle": False, "sgt": False, "sge": False,
        "ult": False,
    }
)  # fmt: skip
"""Predicate -> whether it compares floats. LLVM's names."""


def element_of(kind: Attribute) -> Attribute:
    """The element type of a vector type; a scalar type itself."""
    return kind.element_type if isinstance(kind, VectorType) else kind


def with_element(kind: Attribute, element: Attribute) -> Attribute:
    """`element` for a scalar type, a vector of as many for a vector type."""
    return VectorType(element, kind.get_shape()) if isinstance(kind, VectorType) else element


def mask_type(kind: Attribute) -> Attribute:
    """i1 for a scalar type, a vector of i1 for a vector type."""
    return with_element(kind, i1)


@irdl_op_definition
class CompareOp(IRDLOperation):
    """lhs `predicate` rhs, elementwise, as i1."""

    name = "kernel.compare"
    traits = traits_def(Pure())
    predicate = prop_def(StringAttr)
    lhs = operand_def()
    rhs = operand_def()
    result = result_def()
    assembly_format = (
        "$predicate $lhs `,` $rhs attr-dict `:` type($lhs) `,` type($rhs) `->` type($result)"
    )

    @classmethod
    def make(cls, predicate: str, lhs: SSAValue, rhs: SSAValue) -> "CompareOp":
        """Builds the operation; the result type follows from the operands'."""
        return cls.create(
            operands=[lhs, rhs],
            properties={"predicate": StringAttr(predicate)},
            result_types=[mask_type(lhs.type)],
        )

    def verify_(self) -> None:
        require(self.predicate.data in PREDICATES, f"unknown predicate '{self.predicate.data}'")
        require(self.lhs.type == self.rhs.type, "operands must have one type")
        require(self.result.type == mask_type(self.lhs.type), "the result must be the mask type")
        integers = isinstance(element_of(self.lhs.type), IntegerType)
        require(not (PREDICATES[self.predicate.data] and integers), "a float predicate on integers")


@irdl_op_definition
class SelectOp(IRDLOperation):
    """a where mask, else b, elementwise."""

    name = "kernel.select"
    traits = traits_def(Pure())
    mask = operand_def()
    a = operand_def()
    b = operand_def()
    result = result_def()
    assembly_format = (
        "$mask `,` $a `,` $b attr-dict `:` type($mask) `,` type($a) `,` type($b) `->` type($result)"
    )

    @classmethod
    def make(cls, mask: SSAValue, a: SSAValue, b: SSAValue) -> "SelectOp":
        """Builds the operation; the result type is that of `a`."""
        return cls.create(operands=[mask, a, b], result_types=[a.type])

    def verify_(self) -> None:
        require(self.a.type == self.b.type == self.result.type, "both arms must have one type")
        require(self.mask.type == mask_type(self.a.type), "the mask must fit the arms")


@irdl_op_definition
class CastOp(IRDLOperation):
    """Integers to wider (unsigned) or narrower ones, or, signed, to f32 and back; elementwise.

    A float loses its fraction; what i32 cannot hold gives any value.
    """

    name = "kernel.cast"
    traits = traits_def(Pure())
    x = operand_def()
    result = result_def()
    assembly_format = "$x attr-dict `:` type($x) `->` type($result)"

    @classmethod
    def make(cls, x: SSAValue, element: Attribute) -> "CastOp":
        """Builds the operation; the result has elements of type `element`."""
        return cls.create(operands=[x], result_types=[with_element(x.type, element)])

    def verify_(self) -> None:
        source, result = element_of(self.x.type), element_of(self.result.type)
        back = isinstance(source, Float32Type) and result == i32
        require(back or isinstance(source, IntegerType), "the operand must be of integers or f32")
        require(isinstance(result, IntegerType | Float32Type), "the result must be of i<n> or f32")
        require(source != result, "source and result must differ")
        require(mask_type(self.x.type) == mask_type(self.result.type), "the lanes must be the same")


@irdl_op_definition
class ExtendOp(IRDLOperation):
    """Signed integers as wider ones, elementwise."""

    name = "kernel.extend"
    traits = traits_def(Pure())
    x = operand_def()
    result = result_def()
    assembly_format = "$x attr-dict `:` type($x) `->` type($result)"

    @classmethod
    def make(cls, x: SSAValue, element: Attribute) -> "ExtendOp":
        """Builds the operation; the result has elements of type `element`."""
        return cls.create(operands=[x], result_types=[with_element(x.type, element)])

    def verify_(self) -> None:
        source, result = element_of(self.x.type), element_of(self.result.type)
        require(
            isinstance(source, IntegerType)
            and isinstance(result, IntegerType)
            and source.width.data < result.width.data,
            "the result must be of wider integers",
        )
        require(mask_type(self.x.type) == mask_type(self.result.type), "the lanes must be the same")


def _require_flat(kind: Attribute, *elements: Attribute) -> None:
    names = " or ".join(map(str, elements))
    require(
        isinstance(kind, MemRefType) and kind.get_num_dims() == 1 and kind.element_type in elements,
        f"the memref must be flat, of {names}",
    )


@irdl_op_definition
class LoadWordOp(IRDLOperation):
    """Four neighbouring bytes from `index` on as an i32, at any alignment."""

    name = "kernel.load_word"
    traits = traits_def(MemoryReadEffect())
    ref = operand_def(MemRefType)
    index = operand_def(IndexType)
    result = result_def(i32)
    assembly_format = "$ref `[` $index `]` attr-dict `:` type($ref)"

    def verify_(self) -> None:
        _require_flat(self.ref.type, i8)


@irdl_op_definition
class StoreWordOp(IRDLOperation):
    """Stores an i32 as four neighbouring bytes from `index` on, at any alignment."""

    name = "kernel.store_word"
    traits = traits_def(MemoryWriteEffect())
    value = operand_def(i32)
    ref = operand_def(MemRefType)
    index = operand_def(IndexType)
    assembly_format = "$value `,` $ref `[` $index `]` attr-dict `:` type($ref)"

    def verify_(self) -> None:
        _require_flat(self.ref.type, i8)


@irdl_op_definition
class ExtendPairOp(IRDLOperation):
    """Bytes 0 and 2 of `x` (`odd`: 1 and 3), signed, added to the halves of `offset` (SXTAB16)."""

    name = "kernel.extend_pair"
    traits = traits_def(Pure())
    x = operand_def(i32)
    offset = operand_def(i32)
    result = result_def(i32)
    odd = prop_def(BoolAttr)
    assembly_format = "$odd $x `,` $offset attr-dict"


@irdl_op_definition
class DualMultiplyOp(IRDLOperation):
    """sum + a.low * b.low + a.high * b.high, of the signed halves of words (SMLAD)."""

    name = "kernel.dual_multiply"
    traits = traits_def(Pure())
    a = operand_def(i32)
    b = operand_def(i32)
    sum = operand_def(i32)
    result = result_def(i32)
    assembly_format = "$a `,` $b `,` $sum attr-dict"


@irdl_op_definition
class DotsOp(IRDLOperation):
    """Four dot products of packed halves with one row of bytes or halves, added to `sums`.

    `words` words of `w`, from the element `w_start` on. Four bytes are the words (0, 2) and (1, 3)
    of `kernel.extend_pair`: the first meets the next four words of `x`, the second the four behind
    them, one of each for every sum. Two halves meet the next four words of `x` as they are.
    """

    name = "kernel.dots"
    traits = traits_def(MemoryReadEffect())
    x = operand_def(MemRefType)
    w = operand_def(MemRefType)
    w_start = operand_def(IndexType)
    sums = var_operand_def(i32)
    totals = var_result_def(i32)
    words = prop_def(IntegerAttr)
    assembly_format = (
        "$words $x `,` $w `[` $w_start `]` `,` $sums attr-dict `:` type($x) `,` type($w) `->` "
        "type($totals)"
    )

    def verify_(self) -> None:
        _require_flat(self.w.type, i8, i16)
        require(len(self.sums) == len(self.totals) == 4, "there must be four sums")


@irdl_op_definition
class RowDotsOp(IRDLOperation):
    """Dot products of rows of `x` with rows of `w`, one for each lane (VMLADAV).

    The rows of lane n begin at `x_start` + n `x_stride` and `w_start` + n `w_stride`; all have
    `length` elements, bytes or halves. Where `x_stride` is not 0, these are bytes, and whole
    registers of 16. Rows of fewer than 16 bytes that are as far apart may be read as 16.
    """

    name = "kernel.row_dots"
    traits = traits_def(MemoryReadEffect())
    x = operand_def(MemRefType)
    x_start = operand_def(IndexType)
    w = operand_def(MemRefType)
    w_start = operand_def(IndexType)
    sums = result_def()
    length = prop_def(IntegerAttr)
    x_stride = prop_def(IntegerAttr)
    w_stride = prop_def(IntegerAttr)
    assembly_format = (
        "$length $x_stride $w_stride $x `[` $x_start `]` `,` $w `[` $w_start `]` attr-dict `:` "
        "type($x) `,` type($w) `->` type($sums)"
    )

    def verify_(self) -> None:
        _require_flat(self.x.type, i8, i16)
        assert isinstance(self.x.type, MemRefType)
        _require_flat(self.w.type, self.x.type.element_type)
        vector = isinstance(self.sums.type, VectorType)
        require(vector and element_of(self.sums.type) == i32, "the sums must be a vector of i32")
        registers = self.x.type.element_type == i8 and get_int(self.properties, "length") % 16 == 0
        alike = get_int(self.properties, "x_stride") == 0
        require(alike or registers, "rows of x that differ must be whole registers of bytes")


@irdl_op_definition
class LoadApartOp(IRDLOperation):
    """A vector of the elements from `index` on that are `stride` elements apart."""

    name = "kernel.load_apart"
    traits = traits_def(MemoryReadEffect())
    ref = operand_def(MemRefType)
    index = operand_def(IndexType)
    result = result_def(VectorType)
    stride = prop_def(IntegerAttr)
    assembly_format = "$stride $ref `[` $index `]` attr-dict `:` type($ref) `->` type($result)"

    def verify_(self) -> None:
        _require_flat(self.ref.type, i8, i16)
        assert isinstance(self.ref.type, MemRefType)
        require(element_of(self.result.type) == self.ref.type.element_type, "elements must agree")


@irdl_op_definition
class StoreApartOp(IRDLOperation):
    """Stores the lanes of `value` from `index` on, `stride` elements apart."""

    name = "kernel.store_apart"
    traits = traits_def(MemoryWriteEffect())
    value = operand_def(VectorType)
    ref = operand_def(MemRefType)
    index = operand_def(IndexType)
    stride = prop_def(IntegerAttr)
    assembly_format = (
        "$stride $value `,` $ref `[` $index `]` attr-dict `:` type($value) `,` type($ref)"
    )

    def verify_(self) -> None:
        _require_flat(self.ref.type, i8, i16)
        assert isinstance(self.ref.type, MemRefType)
        require(element_of(self.value.type) == self.ref.type.element_type, "elements must agree")


@irdl_op_definition
class SaturateOp(IRDLOperation):
    """x >> `shift`, signed, as the nearest i8, which stays an i32 (SSAT)."""

    name = "kernel.saturate"
    traits = traits_def(Pure())
    x = operand_def(i32)
    result = result_def(i32)
    shift = prop_def(IntegerAttr)
    assembly_format = "$x `,` $shift attr-dict"


@irdl_op_definition
class HalfMultiplyOp(IRDLOperation):
    """sum + a half of a * a half of b, signed, low or high ones (SMLABB, SMLABT, ...)."""

    name = "kernel.half_multiply"
    traits = traits_def(Pure())
    a = operand_def(i32)
    b = operand_def(i32)
    sum = operand_def(i32)
    result = result_def(i32)
    a_high = prop_def(BoolAttr)
    b_high = prop_def(BoolAttr)
    assembly_format = "$a_high $b_high $a `,` $b `,` $sum attr-dict"


@irdl_op_definition
class PackHalvesOp(IRDLOperation):
    """The low halves of `low` and `high` as the halves of one word (PKHBT)."""

    name = "kernel.pack_halves"
    traits = traits_def(Pure())
    low = operand_def(i32)
    high = operand_def(i32)
    result = result_def(i32)
    assembly_format = "$low `,` $high attr-dict"


@irdl_op_definition
class MultiplyHighOp(IRDLOperation):
    """sum + the upper 32 bits of the signed product a * b, elementwise, i32 (SMMLA)."""

    name = "kernel.multiply_high"
    traits = traits_def(Pure())
    a = operand_def()
    b = operand_def()
    sum = operand_def()
    result = result_def()
    assembly_format = (
        "$a `,` $b `,` $sum attr-dict `:` type($a) `,` type($b) `,` type($sum) `->` type($result)"
    )

    def verify_(self) -> None:
        kinds = [v.type for v in (*self.operands, self.result)]
        require(all(kind == kinds[0] for kind in kinds), "operands and result must have one type")
        require(element_of(kinds[0]) == i32, "operands must be of i32")


@irdl_op_definition
class PrefetchOp(IRDLOperation):
    """Brings the line of an element, which need not exist, into the cache.

    Changes no result: the C emitter leaves it out.
    """

    name = "kernel.prefetch"
    ref = operand_def(MemRefType)
    indices = var_operand_def(IndexType)
    assembly_format = "$ref `[` $indices `]` attr-dict `:` type($ref)"

    def verify_(self) -> None:
        assert isinstance(self.ref.type, MemRefType)
        dimensions = self.ref.type.get_num_dims()
        require(len(self.indices) == dimensions, "one index for each dimension")


@irdl_op_definition
class OffsetOp(IRDLOperation):
    """The same kind of memref, `bytes` * `index` bytes further on."""

    name = "kernel.offset"
    traits = traits_def(Pure())
    ref = operand_def(MemRefType)
    index = operand_def(IndexType)
    result = result_def(MemRefType)
    bytes = prop_def(IntegerAttr)
    assembly_format = "$ref `,` $index `,` $bytes attr-dict `:` type($ref) `->` type($result)"

    def verify_(self) -> None:
        require(self.ref.type == self.result.type, "operand and result must have one type")


@irdl_op_definition
class ParallelOp(IRDLOperation):
    """Runs its body once for each part, at the same time; ends when all of them have.

    The body knows the operands, memrefs and indices, and the number of its part, from 0 on.
    """

    name = "kernel.parallel"
    traits = traits_def(IsolatedFromAbove(), NoTerminator())
    shared = var_operand_def(MemRefType | IndexType)
    parts = prop_def(IntegerAttr)
    body = region_def("single_block")
    assembly_format = "$parts (`,` $shared^ `:` type($shared))? attr-dict-with-keyword $body"

    def verify_(self) -> None:
        expected = [*self.shared.types, IndexType()]
        require(
            list(self.body.block.arg_types) == expected,
            "the body must take the operands and the number of the part",
        )


KERNEL = Dialect(
    "kernel",
    [
        CompareOp,
        SelectOp,
        CastOp,
        ExtendOp,
        LoadWordOp,
        ExtendPairOp,
        DualMultiplyOp,
        HalfMultiplyOp,
        PackHalvesOp,
        MultiplyHighOp,
        StoreWordOp,
        DotsOp,
        RowDotsOp,
        LoadApartOp,
        StoreApartOp,
        SaturateOp,
        PrefetchOp,
        OffsetOp,
        ParallelOp,
    ],
)
