"""C99 text of one kernel.

Vectors are spelled out lane by lane. Integers have no sign at the kernel level: they are unsigned
in C, where arithmetic wraps, and cast where an operation is signed. An index is an int32_t.
"""

from collections.abc import Callable, Sequence

from xdsl.dialects import arith, func, math, memref, scf, vector
from xdsl.dialects.builtin import (
    Float32Type,
    FloatAttr,
    IndexType,
    IntegerAttr,
    IntegerType,
    MemRefType,
    UnrealizedConversionCastOp,
    VectorType,
    i16,
)
from xdsl.ir import Attribute, Block, BlockArgument, Operation, SSAValue

from niwaki.backends.c import vectors
from niwaki.backends.c.kernel_text import KernelText, number
from niwaki.backends.c.literals import float_literal, unsigned_literal
from niwaki.backends.kernels.spec import buffer_bytes, strides_of
from niwaki.ir.dialects import kernel
from niwaki.ir.dialects.kernel import element_of
from niwaki.ir.dialects.tensor_op import get_int
from niwaki.ir.errors import DoesNotFitError

_OPERATORS: dict[type[Operation], str] = {
    arith.AddfOp: "+",
    arith.SubfOp: "-",
    arith.MulfOp: "*",
    arith.DivfOp: "/",
    arith.AddiOp: "+",
    arith.SubiOp: "-",
    arith.MuliOp: "*",
    arith.DivUIOp: "/",
    arith.RemUIOp: "%",
    arith.AndIOp: "&",
    arith.OrIOp: "|",
    arith.XOrIOp: "^",
    arith.ShLIOp: "<<",
    arith.ShRUIOp: ">>",
}
_CALLS: dict[type[Operation], str] = {
    math.FmaOp: "NIWAKI_FMA",
    vector.FMAOp: "NIWAKI_FMA",
    math.ExpOp: "expf",
    math.LogOp: "logf",
    math.SqrtOp: "sqrtf",
    math.TanhOp: "tanhf",
    math.ErfOp: "erff",
    math.AbsFOp: "fabsf",
    math.RoundEvenOp: "rintf",
    kernel.DualMultiplyOp: "NIWAKI_MULTIPLY_BOTH",
    kernel.PackHalvesOp: "NIWAKI_PACK",
    kernel.MultiplyHighOp: "NIWAKI_MULTIPLY_UPPER",
}
_COMPARISONS = {
    "oeq": "==", "ogt": ">", "oge": ">=", "olt": "<", "ole": "<=",
    "eq": "==", "ne": "!=", "slt": "<", "sle": "<=", "sgt": ">", "sge": ">=", "ult": "<",
}  # fmt: skip
_STORES = memref.StoreOp | vector.StoreOp | kernel.StoreWordOp | kernel.StoreApartOp
_EFFECTS = _STORES | scf.ForOp | scf.IfOp | scf.YieldOp | func.ReturnOp
_MOST_BYTES = (1 << 31) - 1
_LONG_DOTS = 4
"""Words from which on the loop is worth a call, and their number an argument."""


def _scalar_type(element: Attribute) -> str:
    match element:
        case Float32Type():
            return "float"
        case IndexType():
            return "int32_t"
        case IntegerType():
            bits = element.width.data
            return "int" if bits == 1 else f"uint{bits}_t"
        case _:
            raise NotImplementedError(f"no C type for {element}")


def _lanes(kind: Attribute) -> int:
    return kind.get_shape()[0] if isinstance(kind, VectorType) else 1


class KernelEmitter:
    """One kernel function."""

    def __init__(self, function: func.FuncOp, vectorized: bool = False) -> None:
        block = function.body.block
        self._vectorized = vectorized
        """Whether vectors are registers of Helium; otherwise they are spelled out."""
        self._registers: dict[SSAValue, tuple[str, ...]] = {}
        self._function = function
        self._lines: list[str] = []
        self._depth = 1
        self._count = 0
        self._texts: dict[SSAValue, tuple[str, ...]] = {}
        """The C expression of each lane: a name, a literal or an inlined index expression."""
        self._inlined: dict[SSAValue, str] = {}
        """Index expressions that stand where they are used, without their parentheses."""
        self._live = _live_operations(function)
        self._written = {_root(op.operands[1]) for op in function.walk() if _is_store(op)}
        self._parameters: list[str] = []
        for position, argument in enumerate(block.args):
            kind = argument.type
            assert isinstance(kind, MemRefType)
            if buffer_bytes(kind) > _MOST_BYTES:
                raise DoesNotFitError(
                    f"a buffer of {buffer_bytes(kind)} bytes ({function.sym_name.data}): C targets "
                    f"address at most {_MOST_BYTES}; use a smaller batch or model"
                )
            self._parameters.append(self._pointer_type(argument))
            self._texts[argument] = (f"a{position}",)

    def _pointer_type(self, ref: SSAValue) -> str:
        assert isinstance(ref.type, MemRefType)
        const = "" if _root(ref) in self._written else "const "
        return f"{const}{_scalar_type(ref.type.element_type)} *"

    def text(self) -> KernelText:
        """The function, with a comment that gives the types of its arguments."""
        block = self._function.body.block
        for argument in block.args:
            if not any(use.operation in self._live for use in argument.uses):
                self._line(f"(void){self._texts[argument][0]};")
        self._block(block)
        types = ", ".join(f"a{n} {_shape_text(a.type)}" for n, a in enumerate(block.args))
        name = self._function.sym_name.data
        return KernelText(name, tuple(self._parameters), types, "\n".join(self._lines))

    def _line(self, text: str) -> None:
        self._lines.append(f"{'    ' * self._depth}{text}")

    def _fresh(self, prefix: str) -> str:
        self._count += 1
        return f"{prefix}{self._count}"

    def _define(self, value: SSAValue, expressions: Sequence[str]) -> None:
        """A named constant for each lane of `value`."""
        ctype = _scalar_type(element_of(value.type))
        name = self._fresh("v")
        names = _lane_names(name, len(expressions))
        for lane, expression in zip(names, expressions, strict=True):
            self._line(f"const {ctype} {lane} = {expression};")
        self._texts[value] = names

    def _whole(self, value: SSAValue) -> str:
        """The expression of a scalar where nothing binds tighter."""
        return self._inlined.get(value, self._texts[value][0])

    def _block(self, block: Block) -> None:
        for op in block.ops:
            if op in self._live and not isinstance(op, scf.YieldOp | func.ReturnOp):
                self._op(op)

    def _op(self, op: Operation) -> None:
        kind = type(op)
        if self._vectorized and self._in_registers(op):
            return
        if kind in _OPERATORS:
            self._binary(op, _OPERATORS[kind])
        elif kind in _CALLS:
            self._elementwise(op, f"{_CALLS[kind]}({', '.join('{}' for _ in op.operands)})")
        elif kind in _HANDLERS:
            _HANDLERS[kind](self, op)
        else:
            raise NotImplementedError(f"'{op.name}' is not part of the kernel level")

    # --- registers of vectors

    def _in_registers(self, op: Operation) -> bool:
        """Emits an operation on whole registers, if it is one."""
        if vectors.joins_sum(op):
            return True
        texts = vectors.expressions(op, self._registers_of, lambda v: self._texts[v][0])
        if texts is None:
            return False
        self._define_registers(op.results[0], texts)
        return True

    def _registers_of(self, value: SSAValue) -> tuple[str, ...]:
        """The registers of a vector, put together where its lanes are spelled out."""
        if value in self._registers:
            return self._registers[value]
        lanes, element = self._texts[value], element_of(value.type)
        starts = range(0, len(lanes), vectors.LANES)
        return tuple(vectors.of_lanes(element, lanes[i : i + vectors.LANES]) for i in starts)

    def _define_registers(self, value: SSAValue, expressions: Sequence[str]) -> None:
        ctype = vectors.c_type(element_of(value.type))
        name = self._fresh("q")
        names = _lane_names(name, len(expressions))
        for register, expression in zip(names, expressions, strict=True):
            self._line(f"const {ctype} {register} = {expression};")
        self._name_registers(value, names)

    def _name_registers(self, value: SSAValue, names: tuple[str, ...]) -> None:
        element = element_of(value.type)
        self._registers[value] = names
        self._texts[value] = tuple(t for n in names for t in vectors.lanes_of(element, n))

    def _holds_registers(self, value: SSAValue) -> int:
        return vectors.registers(value.type) if self._vectorized else 0

    def _elementwise(self, op: Operation, template: str) -> None:
        """Defines the result by a format of one lane's operands."""
        lanes = zip(*(self._texts[o] for o in op.operands), strict=True)
        self._define(op.results[0], [template.format(*texts) for texts in lanes])

    def _binary(self, op: Operation, operator: str) -> None:
        result = op.results[0]
        element = element_of(result.type)
        template = _arithmetic(element, operator)
        if isinstance(element, IndexType) and result.has_one_use() and _is_stable(op):
            self._inlined[result] = template.format(*(self._texts[o][0] for o in op.operands))
            self._texts[result] = (f"({self._inlined[result]})",)
        else:
            self._elementwise(op, template)

    # --- values

    def _constant(self, op: Operation) -> None:
        assert isinstance(op, arith.ConstantOp)
        value, kind = op.value, op.result.type
        if isinstance(value, FloatAttr):
            text = number("float", float_literal(value.value.data))
        else:
            assert isinstance(value, IntegerAttr)
            known = value.value.data
            if isinstance(kind, IndexType):
                text = _index(known)
            else:
                assert isinstance(kind, IntegerType)
                bits = kind.width.data
                literal = unsigned_literal(known, bits) if bits > 1 else str(abs(known))
                text = number(_scalar_type(kind), literal)
        self._texts[op.result] = (text,)

    def _compare(self, op: Operation) -> None:
        assert isinstance(op, kernel.CompareOp)
        predicate, element = op.predicate.data, element_of(op.lhs.type)
        operator = _COMPARISONS[predicate]
        if predicate == "ult" and isinstance(element, IndexType):
            cast = "(uint32_t)"
        elif predicate.startswith("s") and isinstance(element, IntegerType):
            cast = f"(int{element.width.data}_t)"
        else:
            cast = ""
        self._elementwise(op, f"{cast}{{}} {operator} {cast}{{}}")

    def _extremum(self, op: Operation) -> None:
        """The signed type throughout lets compilers see an instruction of saturation."""
        element = element_of(op.results[0].type)
        name = "niwaki_min" if isinstance(op, arith.MinSIOp) else "niwaki_max"
        if isinstance(element, IndexType):
            self._elementwise(op, f"{name}({{}}, {{}})")
            return
        assert isinstance(element, IntegerType)
        bits = element.width.data
        wide = "64" if bits == 64 else ""
        texts = f"(int{bits}_t){{}}, (int{bits}_t){{}}"
        self._elementwise(op, f"(uint{bits}_t){name}{wide}({texts})")

    def _select(self, op: Operation) -> None:
        self._elementwise(op, "{} ? {} : {}")

    def _negate(self, op: Operation) -> None:
        self._elementwise(op, "-{}")

    def _index_cast(self, op: Operation) -> None:
        source, result = op.operands[0].type, op.results[0].type
        assert not isinstance(source, VectorType)
        if isinstance(result, IndexType):
            assert isinstance(source, IntegerType)
            bits = source.width.data
            cast = "-" if bits == 1 else "(int32_t)" if bits == 32 else f"(int32_t)(int{bits}_t)"
            self._elementwise(op, f"{cast}{{}}")
        else:
            self._elementwise(op, _truncation(result))

    def _convert(self, op: Operation) -> None:
        source, result = (element_of(v.type) for v in (op.operands[0], op.results[0]))
        if isinstance(source, Float32Type):
            self._elementwise(op, "(uint32_t)(int32_t){}")
            return
        assert isinstance(source, IntegerType)
        if isinstance(result, Float32Type):
            self._elementwise(op, f"(float)(int{source.width.data}_t){{}}")
        else:
            self._elementwise(op, _truncation(result))

    def _extend(self, op: Operation) -> None:
        source, result = (element_of(v.type) for v in (op.operands[0], op.results[0]))
        assert isinstance(source, IntegerType)
        assert isinstance(result, IntegerType)
        wide, bits = result.width.data, source.width.data
        self._elementwise(op, f"(uint{wide}_t)(int{wide}_t)(int{bits}_t){{}}")

    def _shift_right_signed(self, op: Operation) -> None:
        element = element_of(op.results[0].type)
        assert isinstance(element, IntegerType)
        bits = element.width.data
        self._elementwise(op, f"(uint{bits}_t)((int{bits}_t){{}} >> {{}})")

    # --- vectors

    def _broadcast(self, op: Operation) -> None:
        assert isinstance(op, vector.BroadcastOp)
        self._texts[op.vector] = self._texts[op.source] * _lanes(op.vector.type)

    def _extract(self, op: Operation) -> None:
        assert isinstance(op, vector.ExtractOp)
        lane = int(op.static_position.get_values()[0])
        self._texts[op.result] = (self._texts[op.vector][lane],)

    def _insert(self, op: Operation) -> None:
        assert isinstance(op, vector.InsertOp)
        lane = int(op.static_position.get_values()[0])
        before, element = self._texts[op.dest], self._texts[op.source]
        self._texts[op.result] = (*before[:lane], *element, *before[lane + 1 :])

    def _shuffle(self, op: Operation) -> None:
        assert isinstance(op, vector.ShuffleOp)
        both = self._texts[op.v1] + self._texts[op.v2]
        self._texts[op.result] = tuple(both[lane] for lane in op.mask.get_values())

    def _reduction(self, op: Operation) -> None:
        assert isinstance(op, vector.ReductionOp)
        element = element_of(op.vector.type)
        if self._holds_registers(op.vector) and isinstance(element, IntegerType):
            total, *others = self._registers_of(op.vector)
            for other in others:
                total = f"vaddq_s32({total}, {other})"
            self._define(op.dest, [f"(uint32_t)vaddvq_s32({total})"])
            return
        texts = list(self._texts[op.vector])
        combine = "{} + {}" if op.kind.data.value == "add" else "fmaxf({}, {})"
        while len(texts) > 1:
            pairs = [combine.format(*texts[i : i + 2]) for i in range(0, len(texts) - 1, 2)]
            if "+" in combine:
                pairs = [f"({p})" for p in pairs]
            texts = pairs + texts[len(pairs) * 2 :]
        self._define(op.dest, texts)

    def _bitcast(self, op: Operation) -> None:
        """Of one size: float and uint32_t. Else between bytes and their bits, the lowest first."""
        source, result = op.operands[0], op.results[0]
        if self._vectorized and self._bits_of_registers(source, result):
            return
        texts = self._texts[source]
        if _lanes(source.type) == _lanes(result.type):
            to_float = isinstance(element_of(result.type), Float32Type)
            self._elementwise(op, f"{'niwaki_float' if to_float else 'niwaki_bits'}({{}})")
        elif _scalar_type(element_of(source.type)) == "int":
            bytes_ = [texts[i : i + 8] for i in range(0, len(texts), 8)]
            bits = [" | ".join(f"({t} << {k})" for k, t in enumerate(b)) for b in bytes_]
            self._define(result, [f"(uint8_t)({b})" for b in bits])
        else:
            self._define(result, [f"({t} >> {k}) & 1" for t in texts for k in range(8)])

    def _bits_of_registers(self, source: SSAValue, result: SSAValue) -> bool:
        """Between bytes and predicates, eight bits at a time."""
        if _lanes(source.type) == 8 * _lanes(result.type):
            masks = self._registers_of(source)
            pairs = [masks[i : i + 2] for i in range(0, len(masks), 2)]
            self._define(result, [vectors.byte_of(pair) for pair in pairs])
            return True
        if 8 * _lanes(source.type) == _lanes(result.type):
            masks = [m for byte in self._texts[source] for m in vectors.masks_of(byte)]
            self._define_registers(result, masks)
            return True
        return False

    # --- memory

    def _address(self, ref: SSAValue, indices: Sequence[SSAValue], lane: int = 0) -> str:
        assert isinstance(ref.type, MemRefType)
        terms: list[str] = []
        constant = lane
        for value, stride in zip(indices, strides_of(ref.type), strict=True):
            known = _known(value)
            if known is not None:
                constant += known * stride
            elif stride == 1:
                terms.append(self._whole(value))
            else:
                terms.append(f"{self._texts[value][0]} * {_index(stride)}")
        place = " + ".join(terms)
        if not terms:
            place = _index(constant)
        elif constant:
            place += f" {'-' if constant < 0 else '+'} {_index(abs(constant))}"
        return f"{self._texts[ref][0]}[{place}]"

    def _view(self, op: Operation) -> None:
        (ref,), (view,) = op.operands, op.results
        source, result = self._pointer_type(ref), self._pointer_type(view)
        if source == result:
            self._texts[view] = self._texts[ref]
            return
        void = "const void *" if result.startswith("const") else "void *"
        name = self._fresh("p")
        self._line(f"{result}{name} = ({result})({void}){self._texts[ref][0]};")
        self._texts[view] = (name,)

    def _load(self, op: Operation) -> None:
        ref, *indices = op.operands
        result = op.results[0]
        registers, element = self._holds_registers(result), element_of(result.type)
        if registers:
            starts = [vectors.LANES * n for n in range(registers)]
            places = [self._address(ref, indices, start) for start in starts]
            self._define_registers(result, [vectors.load(element, place) for place in places])
            return
        lanes = range(_lanes(result.type))
        self._define(result, [self._address(ref, indices, lane) for lane in lanes])

    def _store(self, op: Operation) -> None:
        value, ref, *indices = op.operands
        if self._holds_registers(value):
            for position, register in enumerate(self._registers_of(value)):
                place = self._address(ref, indices, vectors.LANES * position)
                self._line(vectors.store(element_of(value.type), place, register))
            return
        for lane, text in enumerate(self._texts[value]):
            self._line(f"{self._address(ref, indices, lane)} = {text};")

    def _load_apart(self, op: Operation) -> None:
        assert isinstance(op, kernel.LoadApartOp)
        stride, element = get_int(op.properties, "stride"), element_of(op.result.type)
        registers = self._holds_registers(op.result)
        step = vectors.LANES if registers else 1
        starts = range(0, _lanes(op.result.type), step)
        places = [self._address(op.ref, [op.index], stride * start) for start in starts]
        if registers:
            texts = [vectors.load_apart(element, place, stride) for place in places]
            self._define_registers(op.result, texts)
        else:
            self._define(op.result, places)

    def _store_apart(self, op: Operation) -> None:
        assert isinstance(op, kernel.StoreApartOp)
        stride, element = get_int(op.properties, "stride"), element_of(op.value.type)
        if not self._holds_registers(op.value):
            for lane, text in enumerate(self._texts[op.value]):
                self._line(f"{self._address(op.ref, [op.index], stride * lane)} = {text};")
            return
        for position, register in enumerate(self._registers_of(op.value)):
            place = self._address(op.ref, [op.index], stride * vectors.LANES * position)
            self._line(vectors.store_apart(element, place, register, stride))

    def _load_word(self, op: Operation) -> None:
        assert isinstance(op, kernel.LoadWordOp)
        self._define(op.result, [f"niwaki_word(&{self._address(op.ref, [op.index])})"])

    def _dots(self, op: Operation) -> None:
        assert isinstance(op, kernel.DotsOp)
        name = self._fresh("v")
        names = tuple(f"{name}[{n}]" for n in range(len(op.sums)))
        self._line(f"uint32_t {name}[4] = {{{', '.join(self._texts[s][0] for s in op.sums)}}};")
        x, w = self._texts[op.x][0], self._address(op.w, [op.w_start])
        assert isinstance(op.w.type, MemRefType)
        words = get_int(op.properties, "words")
        if op.w.type.element_type == i16:
            call = "niwaki_half_dots"
        else:
            call = "niwaki_long_dots" if words >= _LONG_DOTS else "niwaki_dots"
        count = _index(words) if words >= _LONG_DOTS else str(words)
        self._line(f"{call}({x}, &{w}, {count}, {name});")
        for total, text in zip(op.totals, names, strict=True):
            self._texts[total] = (text,)

    def _row_dots(self, op: Operation) -> None:
        assert isinstance(op, kernel.RowDotsOp)
        assert isinstance(op.x.type, MemRefType)
        names = ("length", "x_stride", "w_stride")
        length, x_stride, w_stride = (get_int(op.properties, name) for name in names)
        kind = "half_" if op.x.type.element_type == i16 else ""
        lanes = range(0, _lanes(op.sums.type), vectors.LANES if self._vectorized else 1)
        rows = [
            (self._address(op.x, [op.x_start], x_stride * n),
             self._address(op.w, [op.w_start], w_stride * n))
            for n in lanes
        ]  # fmt: skip
        if not self._vectorized:
            self._define(op.sums, [f"niwaki_{kind}row_dot(&{x}, &{w}, {length})" for x, w in rows])
        elif x_stride == 0:
            name = f"niwaki_{kind}row_dots"
            texts = [f"{name}(&{x}, &{w}, {w_stride}, {length})" for x, w in rows]
            self._define_registers(op.sums, texts)
        else:
            texts = [
                f"niwaki_paired_dots(&{x}, {x_stride}, &{w}, {w_stride}, {length})" for x, w in rows
            ]
            self._define_registers(op.sums, texts)

    def _saturate(self, op: Operation) -> None:
        assert isinstance(op, kernel.SaturateOp)
        shift = get_int(op.properties, "shift")
        name = f"NIWAKI_SATURATE_SHIFTED({{}}, {shift})" if shift else "NIWAKI_SATURATE({})"
        self._elementwise(op, name)

    def _store_word(self, op: Operation) -> None:
        assert isinstance(op, kernel.StoreWordOp)
        address, word = self._address(op.ref, [op.index]), self._texts[op.value][0]
        self._line(f"niwaki_store_word(&{address}, {word});")

    def _extend_pair(self, op: Operation) -> None:
        assert isinstance(op, kernel.ExtendPairOp)
        name = "NIWAKI_EXTEND_ODD" if op.odd.value.data else "NIWAKI_EXTEND_EVEN"
        self._elementwise(op, f"{name}({{}}, {{}})")

    def _half_multiply(self, op: Operation) -> None:
        assert isinstance(op, kernel.HalfMultiplyOp)
        sides = ("HIGH" if side.value.data else "LOW" for side in (op.a_high, op.b_high))
        self._elementwise(op, f"NIWAKI_MULTIPLY_{'_'.join(sides)}({{}}, {{}}, {{}})")

    # --- control flow

    def _for(self, op: Operation) -> None:
        assert isinstance(op, scf.ForOp)
        block = op.body.block
        induction, *carried = block.args
        for argument, first, result in zip(carried, op.iter_args, op.results, strict=True):
            ctype, texts = self._parts(first)
            names = _lane_names(self._fresh("c"), len(texts))
            for name, text in zip(names, texts, strict=True):
                self._line(f"{ctype} {name} = {text};")
            for value in (argument, result):
                if self._holds_registers(value):
                    self._name_registers(value, names)
                else:
                    self._texts[value] = names
        counter = self._fresh("i")
        self._texts[induction] = (counter,)
        start, stop, step = (self._whole(v) for v in (op.lb, op.ub, op.step))
        advance = f"++{counter}" if _known(op.step) == 1 else f"{counter} += {step}"
        self._line(f"for (int32_t {counter} = {start}; {counter} < {stop}; {advance}) {{")
        self._depth += 1
        self._block(block)
        terminator = block.last_op
        assert isinstance(terminator, scf.YieldOp)
        self._assign(carried, terminator.operands)
        self._depth -= 1
        self._line("}")
        for result in op.results:
            if not any(use.operation in self._live for use in result.uses):
                for name in self._parts(result)[1]:
                    self._line(f"(void){name};")

    def _parts(self, value: SSAValue) -> tuple[str, tuple[str, ...]]:
        """The C type of what a value consists of, and an expression for each part."""
        if self._holds_registers(value):
            return vectors.c_type(element_of(value.type)), self._registers_of(value)
        return _scalar_type(element_of(value.type)), self._texts[value]

    def _assign(self, carried: Sequence[SSAValue], values: Sequence[SSAValue]) -> None:
        """Gives the carried variables their next values, all at once."""
        parts = [self._parts(a) for a in carried]
        names = [name for _, own in parts for name in own]
        texts = [text for v in values for text in self._parts(v)[1]]
        types = [ctype for ctype, own in parts for _ in own]
        mutable = set(names)
        moved: list[str] = []
        for name, text, ctype in zip(names, texts, types, strict=True):
            if text in mutable and text != name:
                copy = self._fresh("t")
                self._line(f"const {ctype} {copy} = {text};")
                text = copy
            moved.append(text)
        for name, text in zip(names, moved, strict=True):
            if name != text:
                self._line(f"{name} = {text};")

    def _if(self, op: Operation) -> None:
        assert isinstance(op, scf.IfOp)
        self._line(f"if ({self._texts[op.cond][0]}) {{")
        self._depth += 1
        self._block(op.true_region.block)
        self._depth -= 1
        if op.false_region.blocks:
            self._line("} else {")
            self._depth += 1
            self._block(op.false_region.block)
            self._depth -= 1
        self._line("}")


_HANDLERS: dict[type[Operation], Callable[[KernelEmitter, Operation], None]] = {
    arith.ConstantOp: KernelEmitter._constant,  # pyright: ignore[reportPrivateUsage]
    arith.IndexCastOp: KernelEmitter._index_cast,  # pyright: ignore[reportPrivateUsage]
    arith.NegfOp: KernelEmitter._negate,  # pyright: ignore[reportPrivateUsage]
    kernel.CompareOp: KernelEmitter._compare,  # pyright: ignore[reportPrivateUsage]
    arith.MinSIOp: KernelEmitter._extremum,  # pyright: ignore[reportPrivateUsage]
    arith.MaxSIOp: KernelEmitter._extremum,  # pyright: ignore[reportPrivateUsage]
    kernel.SelectOp: KernelEmitter._select,  # pyright: ignore[reportPrivateUsage]
    kernel.ExtendOp: KernelEmitter._extend,  # pyright: ignore[reportPrivateUsage]
    arith.ShRSIOp: KernelEmitter._shift_right_signed,  # pyright: ignore[reportPrivateUsage]
    kernel.LoadWordOp: KernelEmitter._load_word,  # pyright: ignore[reportPrivateUsage]
    kernel.DotsOp: KernelEmitter._dots,  # pyright: ignore[reportPrivateUsage]
    kernel.RowDotsOp: KernelEmitter._row_dots,  # pyright: ignore[reportPrivateUsage]
    kernel.LoadApartOp: KernelEmitter._load_apart,  # pyright: ignore[reportPrivateUsage]
    kernel.StoreApartOp: KernelEmitter._store_apart,  # pyright: ignore[reportPrivateUsage]
    kernel.SaturateOp: KernelEmitter._saturate,  # pyright: ignore[reportPrivateUsage]
    kernel.StoreWordOp: KernelEmitter._store_word,  # pyright: ignore[reportPrivateUsage]
    kernel.ExtendPairOp: KernelEmitter._extend_pair,  # pyright: ignore[reportPrivateUsage]
    kernel.HalfMultiplyOp: KernelEmitter._half_multiply,  # pyright: ignore[reportPrivateUsage]
    kernel.CastOp: KernelEmitter._convert,  # pyright: ignore[reportPrivateUsage]
    arith.BitcastOp: KernelEmitter._bitcast,  # pyright: ignore[reportPrivateUsage]
    vector.BroadcastOp: KernelEmitter._broadcast,  # pyright: ignore[reportPrivateUsage]
    vector.ExtractOp: KernelEmitter._extract,  # pyright: ignore[reportPrivateUsage]
    vector.InsertOp: KernelEmitter._insert,  # pyright: ignore[reportPrivateUsage]
    vector.ShuffleOp: KernelEmitter._shuffle,  # pyright: ignore[reportPrivateUsage]
    vector.ReductionOp: KernelEmitter._reduction,  # pyright: ignore[reportPrivateUsage]
    vector.BitcastOp: KernelEmitter._bitcast,  # pyright: ignore[reportPrivateUsage]
    UnrealizedConversionCastOp: KernelEmitter._view,  # pyright: ignore[reportPrivateUsage]
    memref.LoadOp: KernelEmitter._load,  # pyright: ignore[reportPrivateUsage]
    vector.LoadOp: KernelEmitter._load,  # pyright: ignore[reportPrivateUsage]
    memref.StoreOp: KernelEmitter._store,  # pyright: ignore[reportPrivateUsage]
    vector.StoreOp: KernelEmitter._store,  # pyright: ignore[reportPrivateUsage]
    scf.ForOp: KernelEmitter._for,  # pyright: ignore[reportPrivateUsage]
    scf.IfOp: KernelEmitter._if,  # pyright: ignore[reportPrivateUsage]
}


def _is_store(op: Operation) -> bool:
    return isinstance(op, _STORES)


def _root(ref: SSAValue) -> SSAValue:
    """The argument that `ref` is a view of."""
    while isinstance(ref.owner, UnrealizedConversionCastOp):
        ref = ref.owner.operands[0]
    return ref


def _live_operations(function: func.FuncOp) -> set[Operation]:
    """Operations with an effect, and those whose results one of these needs.

    The others are left out: C compilers warn about variables that nothing reads.
    """
    live: set[Operation] = set()
    for op in reversed(list(function.body.walk())):
        if isinstance(op, _EFFECTS) or any(u.operation in live for r in op.results for u in r.uses):
            live.add(op)
    return live


def _is_stable(op: Operation) -> bool:
    """Whether the operands keep their values: a loop-carried variable does not."""
    return not any(isinstance(v, BlockArgument) and v.index > 0 for v in op.operands)


def _index(value: int) -> str:
    return number("int32_t", str(value))


def _known(value: SSAValue) -> int | None:
    owner = value.owner
    if not isinstance(owner, arith.ConstantOp) or not isinstance(owner.value, IntegerAttr):
        return None
    return owner.value.value.data


def _lane_names(name: str, lanes: int) -> tuple[str, ...]:
    return (name,) if lanes == 1 else tuple(f"{name}_{lane}" for lane in range(lanes))


def _arithmetic(element: Attribute, operator: str) -> str:
    """The format of `a operator b`."""
    if isinstance(element, IndexType) and operator in "/%":
        # Both are >= 0; unsigned division by a constant is cheaper.
        return f"(int32_t)((uint32_t){{}} {operator} (uint32_t){{}})"
    if isinstance(element, IntegerType) and 1 < element.width.data < 32:
        # C computes in int: only the unsigned type of that width wraps.
        return f"(uint{element.width.data}_t)((uint32_t){{}} {operator} (uint32_t){{}})"
    return f"{{}} {operator} {{}}"


def _truncation(result: Attribute) -> str:
    """The format of a conversion to another integer type."""
    ctype = _scalar_type(result)
    return "(int)({} & 1)" if ctype == "int" else f"({ctype}){{}}"


def _shape_text(kind: Attribute) -> str:
    assert isinstance(kind, MemRefType)
    sizes = "x".join(map(str, kind.get_shape()))
    return f"{_scalar_type(kind.element_type)}[{sizes or 1}]"
