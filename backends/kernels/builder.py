"""Builds kernels: functions of loops, scalars and vectors that both emitters understand.

The subset of `func`, `scf`, `arith`, `math`, `memref` and `vector` that this builder makes is the
whole kernel level; the emitters accept nothing else.
"""

from collections.abc import Callable, Sequence
from typing import TypeAlias

from xdsl.dialects import arith, func, math, memref, scf, vector
from xdsl.dialects.builtin import (
    BoolAttr,
    DenseArrayBase,
    Float32Type,
    FloatAttr,
    IndexType,
    IntegerAttr,
    IntegerType,
    MemRefType,
    UnrealizedConversionCastOp,
    VectorType,
    f32,
    i1,
    i8,
    i32,
    i64,
)
from xdsl.ir import Attribute, Block, Operation, Region, SSAValue

from niwaki.ir.dialects.kernel import (
    CastOp,
    CompareOp,
    DotsOp,
    DualMultiplyOp,
    ExtendOp,
    ExtendPairOp,
    HalfMultiplyOp,
    LoadApartOp,
    LoadWordOp,
    MultiplyHighOp,
    PackHalvesOp,
    PrefetchOp,
    RowDotsOp,
    SaturateOp,
    SelectOp,
    StoreApartOp,
    StoreWordOp,
    element_of,
)

Value: TypeAlias = SSAValue
Index: TypeAlias = SSAValue | int
"""An index value, or one known now: arithmetic on known ones is done now."""
Body: TypeAlias = Callable[[Value, Sequence[Value]], Sequence[Value]]
"""(induction variable, carried values) -> carried values of the next iteration."""


class KernelBuilder:
    """Builds one kernel function; the arguments are `args`."""

    def __init__(self, name: str, arguments: Sequence[MemRefType]) -> None:
        self.name = name
        self._entry = self._block = Block(arg_types=arguments)
        self._constants: dict[tuple[str, Attribute, int], Value] = {}
        self._indices: dict[int, Value] = {}
        self._last_constant: Operation | None = None
        self._prototypes: dict[tuple[type[Operation], int], Operation] = {}
        self._vectors: dict[tuple[Attribute, int], VectorType] = {}
        self._masks: dict[tuple[int, ...], DenseArrayBase] = {}
        self.args: tuple[Value, ...] = tuple(self._block.args)

    def finish(self) -> func.FuncOp:
        """Ends the function and returns it."""
        self._insert(func.ReturnOp())
        types = [a.type for a in self._entry.args]
        return func.FuncOp.from_region(self.name, types, [], Region(self._entry))

    def _insert(self, op: Operation) -> Operation:
        self._block.add_op(op)
        return op

    def _one(self, op: Operation) -> Value:
        self._block.add_op(op)
        return op.results[0]

    def _like(self, kind: type[Operation], *operands: Value) -> Value:
        """Inserts an operation whose result type and properties follow from its first operand.

        Copies the first one made for that type: xDSL's constructors cost most of the time that
        building a kernel takes.
        """
        key = (kind, id(operands[0].type))
        prototype = self._prototypes.get(key)
        if prototype is None:
            op = self._prototypes[key] = kind(*operands)
        else:
            op = kind.create(
                operands=operands,
                result_types=prototype.result_types,
                properties=prototype.properties,
            )
        return self._one(op)

    def _vector(self, element: Attribute, lanes: int) -> VectorType:
        key = (element, lanes)
        if key not in self._vectors:
            self._vectors[key] = VectorType(element, [lanes])
        return self._vectors[key]

    # --- constants

    def constant(self, value: float | int, element: Attribute = f32, lanes: int = 1) -> Value:
        """A scalar, or a vector of `lanes` equal elements. Made once, at the function's start."""
        key = (repr(value), element, lanes)
        if key not in self._constants:
            attribute: FloatAttr | IntegerAttr
            if isinstance(element, Float32Type):
                attribute = FloatAttr(float(value), element)
            else:
                assert isinstance(element, IntegerType)
                attribute = IntegerAttr(int(value), element)
            scalar = self._hoist(arith.ConstantOp(attribute))
            if lanes > 1:
                scalar = self._hoist(vector.BroadcastOp(scalar, self._vector(element, lanes)))
            self._constants[key] = scalar
        return self._constants[key]

    @staticmethod
    def known(value: Value) -> int | None:
        """The number of an integer constant, or of all lanes of one."""
        owner = value.owner
        if isinstance(owner, vector.BroadcastOp):
            owner = owner.source.owner
        if isinstance(owner, arith.ConstantOp) and isinstance(owner.value, IntegerAttr):
            return owner.value.value.data
        return None

    def _hoist(self, op: Operation) -> Value:
        last, first = self._last_constant, self._entry.first_op
        if last is not None:
            self._entry.insert_op_after(op, last)
        elif first is not None:
            self._entry.insert_op_before(op, first)
        else:
            self._entry.add_op(op)
        self._last_constant = op
        return op.results[0]

    def index(self, value: Index) -> Value:
        """The SSA value of an index."""
        if not isinstance(value, int):
            return value
        if value not in self._indices:
            kind = IndexType()
            constant = arith.ConstantOp.create(
                result_types=[kind], properties={"value": IntegerAttr(value, kind)}
            )
            self._indices[value] = self._hoist(constant)
        return self._indices[value]

    # --- index arithmetic, folded where known

    def iadd(self, a: Index, b: Index) -> Index:
        """a + b."""
        if isinstance(a, int) and isinstance(b, int):
            return a + b
        if isinstance(a, int) and a == 0:
            return b
        if isinstance(b, int) and b == 0:
            return a
        return self._like(arith.AddiOp, self.index(a), self.index(b))

    def isub(self, a: Index, b: Index) -> Index:
        """a - b."""
        if isinstance(a, int) and isinstance(b, int):
            return a - b
        if isinstance(b, int) and b == 0:
            return a
        return self._like(arith.SubiOp, self.index(a), self.index(b))

    def imul(self, a: Index, b: Index) -> Index:
        """a * b."""
        if isinstance(a, int) and isinstance(b, int):
            return a * b
        for x, y in ((a, b), (b, a)):
            if isinstance(x, int) and x in (0, 1):
                return 0 if x == 0 else y
        return self._like(arith.MuliOp, self.index(a), self.index(b))

    def idiv(self, a: Index, b: int) -> Index:
        """a // b for a >= 0, b > 0."""
        if isinstance(a, int):
            return a // b
        return a if b == 1 else self._like(arith.DivUIOp, a, self.index(b))

    def imod(self, a: Index, b: int) -> Index:
        """a % b for a >= 0, b > 0."""
        if isinstance(a, int):
            return a % b
        return 0 if b == 1 else self._like(arith.RemUIOp, a, self.index(b))

    def imin(self, a: Index, b: Index) -> Index:
        """The smaller one (signed)."""
        if isinstance(a, int) and isinstance(b, int):
            return min(a, b)
        return self._like(arith.MinSIOp, self.index(a), self.index(b))

    def imax(self, a: Index, b: Index) -> Index:
        """The larger one (signed)."""
        if isinstance(a, int) and isinstance(b, int):
            return max(a, b)
        return self._like(arith.MaxSIOp, self.index(a), self.index(b))

    def affine(self, terms: Sequence[tuple[Index, int]], offset: int = 0) -> Index:
        """offset + sum of index * factor."""
        result: Index = offset
        for index, factor in terms:
            result = self.iadd(self.imul(index, factor), result)
        return result

    def icompare(self, a: Index, b: Index, predicate: str) -> Value:
        """a `predicate` b as i1; eq, ne, slt, sle, sgt, sge."""
        return self._one(CompareOp.make(predicate, self.index(a), self.index(b)))

    # --- control flow

    def loop(
        self,
        start: Index,
        stop: Index,
        step: int,
        body: Body,
        carried: Sequence[Value] = (),
    ) -> Sequence[Value]:
        """for i in range(start, stop, step): carried = body(i, carried)."""
        inner = Block(arg_types=[IndexType(), *(c.type for c in carried)])
        bounds = [self.index(start), self.index(stop), self.index(step)]
        outer, self._block = self._block, inner
        result = body(inner.args[0], list(inner.args[1:]))
        self._insert(scf.YieldOp(*result))
        self._block = outer
        return self._insert(
            scf.ForOp(bounds[0], bounds[1], bounds[2], list(carried), Region(inner))
        ).results

    def each(self, start: Index, stop: Index, step: int, body: Callable[[Value], None]) -> None:
        """for i in range(start, stop, step): body(i)."""

        def run(i: Value, _: Sequence[Value]) -> Sequence[Value]:
            body(i)
            return ()

        self.loop(start, stop, step, run)

    def nest(self, sizes: Sequence[int], body: Callable[[list[Index]], None]) -> None:
        """body(indices) for every index of the shape `sizes`, row-major."""

        def level(indices: list[Index]) -> None:
            if len(indices) == len(sizes):
                body(indices)
            elif sizes[len(indices)] == 1:
                level([*indices, 0])
            else:
                self.each(0, sizes[len(indices)], 1, lambda i: level([*indices, i]))

        level([])

    def choose(
        self, condition: Value, then: Callable[[], None], otherwise: Callable[[], None]
    ) -> None:
        """if condition: then() else: otherwise()."""
        self._insert(scf.IfOp(condition, [], self._region(then), self._region(otherwise)))

    def _region(self, body: Callable[[], None]) -> Region:
        inner = Block()
        outer, self._block = self._block, inner
        body()
        self._insert(scf.YieldOp())
        self._block = outer
        return Region(inner)

    # --- memory

    def view(self, ref: Value, kind: MemRefType) -> Value:
        """The same memory under another shape, strides or element type."""
        if ref.type == kind:
            return ref
        return self._one(UnrealizedConversionCastOp.create(operands=[ref], result_types=[kind]))

    def load(self, ref: Value, indices: Sequence[Index], lanes: int = 1) -> Value:
        """One element, or `lanes` of them, contiguous along the last dimension."""
        if lanes > 1:
            return self.load_vector(ref, indices, lanes)
        assert isinstance(ref.type, MemRefType)
        operands = [ref, *(self.index(i) for i in indices)]
        kind = ref.type.element_type
        return self._one(memref.LoadOp.create(operands=operands, result_types=[kind]))

    def load_vector(self, ref: Value, indices: Sequence[Index], lanes: int) -> Value:
        """Like `load`, but a vector even of one lane."""
        assert isinstance(ref.type, MemRefType)
        operands = [ref, *(self.index(i) for i in indices)]
        kind = self._vector(ref.type.element_type, lanes)
        return self._one(vector.LoadOp.create(operands=operands, result_types=[kind]))

    def store(self, value: Value, ref: Value, indices: Sequence[Index]) -> None:
        """Stores a scalar or a vector."""
        kind = vector.StoreOp if isinstance(value.type, VectorType) else memref.StoreOp
        self._insert(kind.create(operands=[value, ref, *(self.index(i) for i in indices)]))

    def prefetch(self, ref: Value, indices: Sequence[Index]) -> None:
        """Brings the cache line of an element, which need not exist, into the cache."""
        self._insert(PrefetchOp.create(operands=[ref, *(self.index(i) for i in indices)]))

    # --- arithmetic on scalars and vectors alike

    def add(self, a: Value, b: Value) -> Value:
        """a + b, float or integer."""
        return self._like(arith.AddfOp if _is_float(a) else arith.AddiOp, a, b)

    def sub(self, a: Value, b: Value) -> Value:
        """a - b, float or integer."""
        return self._like(arith.SubfOp if _is_float(a) else arith.SubiOp, a, b)

    def mul(self, a: Value, b: Value) -> Value:
        """a * b, float or integer."""
        return self._like(arith.MulfOp if _is_float(a) else arith.MuliOp, a, b)

    def div(self, a: Value, b: Value) -> Value:
        """a / b, float."""
        return self._like(arith.DivfOp, a, b)

    def neg(self, a: Value) -> Value:
        """-a, float."""
        return self._like(arith.NegfOp, a)

    def fma(self, a: Value, b: Value, c: Value) -> Value:
        """a * b + c, rounded once where the machine can; floats or integers."""
        if not _is_float(a):
            return self.add(self.mul(a, b), c)
        if isinstance(a.type, VectorType):
            return self._like(vector.FMAOp, a, b, c)
        return self._like(math.FmaOp, a, b, c)

    def compare(self, a: Value, b: Value, predicate: str) -> Value:
        """Float: ogt, oge, olt, ole, oeq. Integer: eq, ne, slt, sle, sgt, sge, ult."""
        return self._one(CompareOp.make(predicate, a, b))

    def select(self, mask: Value, a: Value, b: Value) -> Value:
        """a where mask, else b."""
        return self._one(SelectOp.make(mask, a, b))

    def max(self, a: Value, b: Value) -> Value:
        """a > b ? a : b."""
        if not _is_float(a):
            clamped = _clamped(a, b)
            return self._like(arith.MaxSIOp, a, b) if clamped is None else self.saturate(clamped)
        return self.select(self.compare(a, b, "ogt"), a, b)

    def min(self, a: Value, b: Value) -> Value:
        """a < b ? a : b."""
        if not _is_float(a):
            return self._like(arith.MinSIOp, a, b)
        return self.select(self.compare(a, b, "olt"), a, b)

    def exp(self, x: Value) -> Value:
        """e to the x."""
        return self._like(math.ExpOp, x)

    def log(self, x: Value) -> Value:
        """Natural logarithm."""
        return self._like(math.LogOp, x)

    def sqrt(self, x: Value) -> Value:
        """Square root."""
        return self._like(math.SqrtOp, x)

    def tanh(self, x: Value) -> Value:
        """Hyperbolic tangent."""
        return self._like(math.TanhOp, x)

    def erf(self, x: Value) -> Value:
        """Error function."""
        return self._like(math.ErfOp, x)

    def abs(self, x: Value) -> Value:
        """|x|, float."""
        return self._like(math.AbsFOp, x)

    # --- bits and integers

    def bit_and(self, a: Value, b: Value) -> Value:
        """Bitwise and."""
        x = _unclamped(a, b)
        if x is not None:
            return self.compare(self.saturate(x), x, "eq")
        return self._like(arith.AndIOp, a, b)

    def bit_or(self, a: Value, b: Value) -> Value:
        """Bitwise or."""
        return self._like(arith.OrIOp, a, b)

    def bit_xor(self, a: Value, b: Value) -> Value:
        """Bitwise exclusive or."""
        return self._like(arith.XOrIOp, a, b)

    def shift_left(self, a: Value, b: Value) -> Value:
        """a << b."""
        return self._like(arith.ShLIOp, a, b)

    def shift_right_signed(self, a: Value, b: Value) -> Value:
        """a >> b, signed."""
        return self._like(arith.ShRSIOp, a, b)

    def shift_right(self, a: Value, b: Value) -> Value:
        """a >> b, unsigned."""
        return self._like(arith.ShRUIOp, a, b)

    def cast(self, x: Value, element: Attribute) -> Value:
        """Index to or from integer (signed); wider (unsigned), narrower; signed from or to f32."""
        source = element_of(x.type)
        if source == element:
            return x
        if isinstance(source, IndexType) or isinstance(element, IndexType):
            return self._one(arith.IndexCastOp(x, element))
        if source == i1 and isinstance(element, Float32Type):
            x = self.cast(x, i32)
        return self._one(CastOp.make(x, element))

    def extend(self, x: Value, element: Attribute) -> Value:
        """Signed integers as wider ones."""
        return x if element_of(x.type) == element else self._one(ExtendOp.make(x, element))

    def round(self, x: Value) -> Value:
        """The nearest integer, as a float; ties to even."""
        return self._like(math.RoundEvenOp, x)

    # --- packed halves

    def load_word(self, ref: Value, index: Index) -> Value:
        """Four bytes of a flat memref of i8 as an i32, at any alignment."""
        op = LoadWordOp.create(operands=[ref, self.index(index)], result_types=[i32])
        return self._one(op)

    def store_word(self, word: Value, ref: Value, index: Index) -> None:
        """Stores an i32 as four bytes of a flat memref of i8, at any alignment."""
        self._insert(StoreWordOp.create(operands=[word, ref, self.index(index)]))

    def extend_pair(self, x: Value, offset: Value, odd: bool) -> Value:
        """Signed bytes 0 and 2 of a word (`odd`: 1 and 3), added to the halves of `offset`."""
        return self._one(
            ExtendPairOp.create(
                operands=[x, offset],
                properties={"odd": BoolAttr.from_bool(odd)},
                result_types=[i32],
            )
        )

    def dual_multiply(self, a: Value, b: Value, total: Value) -> Value:
        """total + the products of both signed halves."""
        return self._one(DualMultiplyOp.create(operands=[a, b, total], result_types=[i32]))

    def half_multiply(self, a: Value, b: Value, total: Value, a_high: bool, b_high: bool) -> Value:
        """total + the product of two signed halves, low ones unless told."""
        return self._one(
            HalfMultiplyOp.create(
                operands=[a, b, total],
                properties={
                    "a_high": BoolAttr.from_bool(a_high),
                    "b_high": BoolAttr.from_bool(b_high),
                },
                result_types=[i32],
            )
        )

    def pack_halves(self, low: Value, high: Value) -> Value:
        """The low halves of both in one word."""
        return self._one(PackHalvesOp.create(operands=[low, high], result_types=[i32]))

    def dots(
        self, x: Value, w: Value, w_start: Index, words: int, sums: Sequence[Value]
    ) -> list[Value]:
        """Four dot products: the packed halves `x` with `words` of `w` from `w_start` on."""
        op = DotsOp.create(
            operands=[x, w, self.index(w_start), *sums],
            properties={"words": IntegerAttr(words, i32)},
            result_types=[i32] * 4,
        )
        return list(self._insert(op).results)

    def row_dots(
        self,
        x: tuple[Value, Index, int],
        w: tuple[Value, Index, int],
        length: int,
        lanes: int,
    ) -> Value:
        """Dot products of `lanes` rows of x and of w: (memref, start, elements from row to row)."""
        (x_ref, x_start, x_stride), (w_ref, w_start, w_stride) = x, w
        op = RowDotsOp.create(
            operands=[x_ref, self.index(x_start), w_ref, self.index(w_start)],
            properties={
                "length": IntegerAttr(length, i32),
                "x_stride": IntegerAttr(x_stride, i32),
                "w_stride": IntegerAttr(w_stride, i32),
            },
            result_types=[self._vector(i32, lanes)],
        )
        return self._one(op)

    def load_apart(self, ref: Value, index: Index, stride: int, lanes: int) -> Value:
        """A vector of elements of a flat memref that are `stride` elements apart."""
        assert isinstance(ref.type, MemRefType)
        op = LoadApartOp.create(
            operands=[ref, self.index(index)],
            properties={"stride": IntegerAttr(stride, i32)},
            result_types=[self._vector(ref.type.element_type, lanes)],
        )
        return self._one(op)

    def store_apart(self, value: Value, ref: Value, index: Index, stride: int) -> None:
        """Stores the lanes of a vector in a flat memref, `stride` elements apart."""
        operands = [value, ref, self.index(index)]
        properties = {"stride": IntegerAttr(stride, i32)}
        self._insert(StoreApartOp.create(operands=operands, properties=properties))

    def saturate(self, x: Value) -> Value:
        """The nearest i8 of an i32, as an i32."""
        shift = 0
        owner = x.owner
        if isinstance(owner, arith.ShRSIOp):
            known = self.known(owner.rhs)
            if known is not None:
                x, shift = owner.lhs, known
        properties = {"shift": IntegerAttr(shift, i32)}
        return self._one(SaturateOp.create(operands=[x], properties=properties, result_types=[i32]))

    def multiply_high(self, a: Value, b: Value, total: Value) -> Value:
        """total + the upper 32 bits of the signed product; i32, scalars and vectors alike."""
        return self._one(MultiplyHighOp.create(operands=[a, b, total], result_types=[a.type]))

    # --- vectors

    def lanes(self, x: Value) -> int:
        """Elements of a vector; 1 for a scalar."""
        return x.type.get_shape()[0] if isinstance(x.type, VectorType) else 1

    def broadcast(self, scalar: Value, lanes: int) -> Value:
        """A vector of `lanes` copies; the scalar itself for one lane."""
        if lanes == 1:
            return scalar
        return self._one(
            vector.BroadcastOp.create(
                operands=[scalar], result_types=[self._vector(scalar.type, lanes)]
            )
        )

    def from_elements(self, elements: Sequence[Value]) -> Value:
        """The vector of the scalars `elements`."""
        result = self.broadcast(elements[0], len(elements))
        for lane, element in enumerate(elements[1:], 1):
            result = self._one(vector.InsertOp(element, result, [lane], result.type))
        return result

    def extract(self, x: Value, lane: int) -> Value:
        """One element of a vector (of a scalar: itself)."""
        if not isinstance(x.type, VectorType):
            return x
        return self._one(vector.ExtractOp(x, [lane], x.type.element_type))

    def shuffle(self, a: Value, b: Value, lanes: Sequence[int]) -> Value:
        """The vector of the chosen lanes, counted through `a` and then `b`."""
        key = tuple(lanes)
        if key not in self._masks:
            self._masks[key] = DenseArrayBase.from_list(i64, lanes)
        kind = self._vector(element_of(a.type), len(lanes))
        return self._one(
            vector.ShuffleOp.create(
                operands=[a, b], result_types=[kind], properties={"mask": self._masks[key]}
            )
        )

    def slice(self, x: Value, start: int, lanes: int) -> Value:
        """`lanes` neighbouring elements of a vector (all of them: itself)."""
        if lanes == self.lanes(x):
            return x
        if lanes == 1:
            return self.extract(x, start)
        return self.shuffle(x, x, range(start, start + lanes))

    def sum_lanes(self, x: Value) -> Value:
        """The sum of a vector's elements, in pairs (of a scalar: itself)."""
        return self._reduce(x, "add")

    def max_lanes(self, x: Value) -> Value:
        """The largest element of a vector (of a scalar: itself)."""
        return self._reduce(x, "maxnumf")

    def _reduce(self, x: Value, kind: str) -> Value:
        if not isinstance(x.type, VectorType):
            return x
        combining = vector.CombiningKindAttr(vector.CombiningKindFlag(kind))
        return self._one(
            vector.ReductionOp.create(
                operands=[x],
                result_types=[x.type.element_type],
                properties={"kind": combining, "fastmath": arith.FastMathFlagsAttr("none")},
            )
        )

    def bitcast(self, x: Value, element: Attribute) -> Value:
        """The bits of each element as an element of another type of the same size."""
        if not isinstance(x.type, VectorType):
            return self._one(arith.BitcastOp(x, element))
        return self._one(vector.BitcastOp(x, VectorType(element, [self.lanes(x)])))

    def pack_bits(self, mask: Value) -> Value:
        """vector<8n x i1> to vector<n x i8>, element 0 in the lowest bit."""
        assert isinstance(mask.type, VectorType)
        count = mask.type.get_shape()[0]
        return self._one(vector.BitcastOp(mask, VectorType(i8, [count // 8])))

    def unpack_bits(self, packed: Value) -> Value:
        """vector<n x i8> to vector<8n x i1>, element 0 from the lowest bit."""
        assert isinstance(packed.type, VectorType)
        count = packed.type.get_shape()[0]
        return self._one(vector.BitcastOp(packed, VectorType(i1, [count * 8])))


def _clamped(value: Value, low: Value) -> Value | None:
    """x, where max(value, low) is the scalar x clamped to i8."""
    owner = value.owner
    if value.type != i32 or not isinstance(owner, arith.MinSIOp):
        return None
    limits = KernelBuilder.known(low), KernelBuilder.known(owner.rhs)
    return owner.lhs if limits == (-128, 127) else None


def _unclamped(low: Value, high: Value) -> Value | None:
    """x, where both together say that the scalar x needs no clamping to i8."""
    lower, upper = low.owner, high.owner
    if not isinstance(lower, CompareOp) or not isinstance(upper, CompareOp):
        return None
    bounds = KernelBuilder.known(lower.rhs), KernelBuilder.known(upper.rhs)
    predicates = lower.predicate.data, upper.predicate.data
    same = lower.lhs is upper.lhs and lower.lhs.type == i32
    return lower.lhs if same and (bounds, predicates) == ((-128, 127), ("sge", "sle")) else None


def _is_float(value: Value) -> bool:
    return isinstance(element_of(value.type), Float32Type)
