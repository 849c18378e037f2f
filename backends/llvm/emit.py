"""LLVM IR text of kernels and of the programs that call them.

Addresses are GEPs with constant strides; every value is one line. No optimisation happens here.
"""

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence

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
    i64,
)
from xdsl.ir import Attribute, Block, Operation, SSAValue

from niwaki.backends.kernels.spec import strides_of
from niwaki.backends.llvm.pool import RUN, pool_text
from niwaki.backends.targets import Target
from niwaki.ir.dialects import kernel, plan
from niwaki.ir.dialects.plan import RegionRange
from niwaki.ir.dialects.tensor_op import get_int


def bases(program: plan.ProgramOp) -> list[tuple[str, RegionRange | None]]:
    """The first pointers of an entry point's argument block; then inputs, then outputs.

    The arena, the state (of both, the part in each region if there are several memories), the
    constants.
    """
    spaces: list[tuple[str, RegionRange | None]] = []
    for space in ("arena", "state"):
        spaces += [(space, part) for part in program.ranges(space) or (None,)]
    return [*spaces, ("constants", None)]


def float_literal(value: float) -> str:
    """LLVM's exact spelling of an f32: the hexadecimal double of the same value."""
    (rounded,) = struct.unpack("<f", struct.pack("<f", value))
    return f"0x{struct.unpack('<Q', struct.pack('<d', rounded))[0]:016X}"


_BINARY = {
    arith.AddfOp: "fadd",
    arith.SubfOp: "fsub",
    arith.MulfOp: "fmul",
    arith.DivfOp: "fdiv",
    arith.AddiOp: "add",
    arith.SubiOp: "sub",
    arith.MuliOp: "mul",
    arith.DivUIOp: "udiv",
    arith.RemUIOp: "urem",
    arith.AndIOp: "and",
    arith.OrIOp: "or",
    arith.XOrIOp: "xor",
    arith.ShLIOp: "shl",
    arith.ShRUIOp: "lshr",
    arith.ShRSIOp: "ashr",
}
_INTRINSIC = {
    arith.MinSIOp: "smin",
    arith.MaxSIOp: "smax",
    math.FmaOp: "fma",
    vector.FMAOp: "fma",
    math.ExpOp: "exp",
    math.LogOp: "log",
    math.SqrtOp: "sqrt",
    math.TanhOp: "tanh",
    math.AbsFOp: "fabs",
    math.RoundEvenOp: "rint",
}
_CASTS = {
    arith.BitcastOp: "bitcast",
    vector.BitcastOp: "bitcast",
    kernel.ExtendOp: "sext",
}
_REDUCTIONS = {"add": "fadd", "maxnumf": "fmax"}


def times_entry(program: str) -> str:
    """The entry point that copies out when the calls of a timed `program` began and ended.

    Its argument block is one pointer, to a struct timespec for the time before the first call and
    one after each.
    """
    return f"{program}.times"


class LlvmEmitter:
    """Collects the text of one LLVM module."""

    def __init__(self, target: Target, symbols: Mapping[str, str] | None = None) -> None:
        """`symbols`: of the kernels that modules share, by name; without, they are internal."""
        self.target = target
        self._symbols = symbols
        self._index = f"i{target.pointer_bits}"
        self._functions: list[str] = []
        self._declarations: dict[str, str] = {}

    def text(self) -> str:
        """The whole module."""
        head = [f'target triple = "{self.target.triple}"', ""]
        tail = [self._declarations[k] for k in sorted(self._declarations)]
        return "\n".join([*head, *self._functions, *tail, ""])

    def declare(self, name: str, result: str, arguments: Sequence[str]) -> str:
        """Makes sure that `name` is declared; returns it with its @."""
        self._declarations[name] = f"declare {result} @{name}({', '.join(arguments)})"
        return f"@{name}"

    def type(self, kind: Attribute) -> str:
        """The LLVM type."""
        match kind:
            case Float32Type():
                return "float"
            case IndexType():
                return self._index
            case IntegerType():
                return f"i{kind.width.data}"
            case VectorType():
                return f"<{kind.get_shape()[0]} x {self.type(kind.element_type)}>"
            case MemRefType():
                return "ptr"
            case _:
                raise NotImplementedError(f"no LLVM type for {kind}")

    def kernel(self, function: func.FuncOp) -> None:
        """Emits one kernel function."""
        block = function.body.block
        body = _FunctionEmitter(self)
        arguments = ", ".join(f"ptr {body.define(a)}" for a in block.args)
        body.block(block)
        lines = "\n".join([*body.stack, *body.lines])
        linkage = "internal " if self._symbols is None else ""
        self._functions.append(
            f"define {linkage}void @{self._symbol(function.sym_name.data)}({arguments}) #0 {{\n"
            f"entry:\n{lines}\n  ret void\n}}\n"
        )

    def _symbol(self, kernel: str) -> str:
        return kernel if self._symbols is None else self._symbols[kernel]

    def part(self, block: Block) -> str:
        """Emits the body of a `kernel.parallel`: void(ptr operands, i64 part); returns its name."""
        name, body = f"part.{len(self._functions)}", _FunctionEmitter(self)
        *shared, part = block.args
        lines = [f"  {body.define(part)} = add {self._index} %part, 0"]
        for number, value in enumerate(shared):
            lines.append(f"  %slot{number} = getelementptr ptr, ptr %operands, i32 {number}")
            kind = self.type(value.type)
            lines.append(f"  {body.define(value)} = load {kind}, ptr %slot{number}")
        body.block(block)
        code = "\n".join([*lines, *body.lines])
        self._functions.append(
            f"define internal void @{name}(ptr %operands, {self._index} %part) #0 {{\n"
            f"entry:\n{code}\n  ret void\n}}\n"
        )
        return f"@{name}"

    def pool(self) -> None:
        """Emits the threads that run parts."""
        self._functions.append(pool_text(self.target, shared=self._symbols is not None))
        self._declarations.pop(RUN, None)

    def program(self, program: plan.ProgramOp, timed: bool = False) -> None:
        """Emits an entry point: void(ptr block); what is in the block, `bases` says.

        `timed`: it notes the time around each call, for `times_entry`.
        """
        name = program.sym_name.data
        views = [op for op in program.body.block.ops if isinstance(op, plan.ViewOp)]
        inputs = 1 + max(
            (get_int(v.properties, "index") for v in views if v.space.data == "input"), default=-1
        )
        lines = ["  call void @pool.start()"] if self.target.threads > 1 else []
        first = bases(program)
        pointers: dict[int, str] = {}
        addresses: dict[SSAValue, str] = {}
        for number, view in enumerate(views):
            slot, offset = _slot(view, first, inputs)
            if slot not in pointers:
                pointers[slot] = f"%base{slot}"
                lines.append(f"  %slot{slot} = getelementptr ptr, ptr %block, i32 {slot}")
                lines.append(f"  {pointers[slot]} = load ptr, ptr %slot{slot}")
            address = f"%view{number}"
            lines.append(
                f"  {address} = getelementptr i8, ptr {pointers[slot]}, {self._index} {offset}"
            )
            addresses[view.view] = address
        clock = _Clock(self, name) if timed else None
        if clock is not None:
            lines.append(clock.read())
        for op in program.body.block.ops:
            if isinstance(op, plan.CallOp):
                kernel = self._symbol(op.kernel.string_value())
                if self._symbols is not None:
                    self.declare(kernel, "void", ["ptr"] * len(op.arguments))
                arguments = ", ".join(f"ptr {addresses[a]}" for a in op.arguments)
                lines.append(f"  call void @{kernel}({arguments})")
                if clock is not None:
                    lines.append(clock.read())
        if clock is not None:
            self._functions.append(clock.entry())
        body = "\n".join(lines)
        self._functions.append(
            f"define void @{name}(ptr %block) #0 {{\nentry:\n{body}\n  ret void\n}}\n"
        )


class _Clock:
    """Reads the time into one element of an array after the other."""

    _MONOTONIC = 1

    def __init__(self, module: LlvmEmitter, program: str) -> None:
        self._entry = f"@{times_entry(program)}"
        self._array = f"{self._entry}.array"
        self._word = f"i{module.target.pointer_bits}"
        self._element = f"{{ {self._word}, {self._word} }}"
        self._bytes = 2 * module.target.pointer_bits // 8
        copy = f"llvm.memcpy.p0.p0.{self._word}"
        self._copy = module.declare(copy, "void", ["ptr", "ptr", self._word, "i1"])
        self._read = module.declare("clock_gettime", "i32", ["i32", "ptr"])
        self._count = 0

    def read(self) -> str:
        place = f"getelementptr ({self._element}, ptr {self._array}, i32 {self._count})"
        self._count += 1
        return f"  call i32 {self._read}(i32 {self._MONOTONIC}, ptr {place})"

    def entry(self) -> str:
        kind = f"[{self._count} x {self._element}]"
        return (
            f"{self._array} = internal global {kind} zeroinitializer, align 8\n"
            f"define void {self._entry}(ptr %block) #0 {{\n"
            "  %goal = load ptr, ptr %block\n"
            f"  call void {self._copy}(ptr %goal, ptr {self._array}, "
            f"{self._word} {self._count * self._bytes}, i1 false)\n"
            "  ret void\n}\n"
        )


def _slot(
    view: plan.ViewOp, first: Sequence[tuple[str, RegionRange | None]], inputs: int
) -> tuple[int, int]:
    """The number of the pointer that `view` starts from, and its offset from there."""
    offset = get_int(view.properties, "offset")
    if view.index is not None:
        number = len(first) + get_int(view.properties, "index")
        return number + (inputs if view.space.data == "output" else 0), offset
    for number, (space, part) in enumerate(first):
        if space == view.space.data and (part is None or part.holds(offset)):
            return number, offset - (0 if part is None else part.start)
    raise AssertionError("a view outside the regions")


class _FunctionEmitter:
    """The body of one function."""

    def __init__(self, module: LlvmEmitter) -> None:
        self.module = module
        self.stack: list[str] = []
        """What the function begins with: elsewhere the stack would grow with each iteration."""
        self.lines: list[str] = []
        self._names: dict[SSAValue, str] = {}
        self._count = 0
        self._label = "entry"

    def define(self, value: SSAValue) -> str:
        """A fresh name for `value`."""
        self._count += 1
        self._names[value] = f"%v{self._count}"
        return self._names[value]

    def _fresh(self, prefix: str) -> str:
        self._count += 1
        return f"{prefix}{self._count}"

    def _line(self, text: str) -> None:
        self.lines.append(f"  {text}")

    def _start(self, label: str) -> None:
        self.lines.append(f"{label}:")
        self._label = label

    def block(self, block: Block) -> None:
        """Emits the operations of `block`; its terminator is the caller's matter."""
        for op in block.ops:
            if not isinstance(op, scf.YieldOp | func.ReturnOp):
                self._op(op)

    def _op(self, op: Operation) -> None:
        kind = type(op)
        if kind in _BINARY:
            self._simple(op, _BINARY[kind])
        elif kind in _INTRINSIC:
            self._intrinsic(op, _INTRINSIC[kind])
        elif kind in _CASTS:
            self._cast(op, _CASTS[kind])
        elif kind in _HANDLERS:
            _HANDLERS[kind](self, op)
        else:
            raise NotImplementedError(f"'{op.name}' is not part of the kernel level")

    def _use(self, value: SSAValue) -> str:
        return self._names[value]

    def _typed(self, value: SSAValue) -> str:
        return f"{self.module.type(value.type)} {self._use(value)}"

    def _simple(self, op: Operation, name: str) -> None:
        a, b = op.operands
        self._line(f"{self.define(op.results[0])} = {name} {self._typed(a)}, {self._use(b)}")

    def _intrinsic(self, op: Operation, name: str) -> None:
        kind = op.results[0].type
        text = self.module.type(kind)
        full = f"llvm.{name}.{_suffix(kind, self.module)}"
        callee = self.module.declare(full, text, [text] * len(op.operands))
        arguments = ", ".join(self._typed(o) for o in op.operands)
        self._line(f"{self.define(op.results[0])} = call {text} {callee}({arguments})")

    def _cast(self, op: Operation, name: str) -> None:
        result = op.results[0]
        source = self._typed(op.operands[0])
        self._line(f"{self.define(result)} = {name} {source} to {self.module.type(result.type)}")

    def _convert(self, op: Operation) -> None:
        source, result = (kernel.element_of(v.type) for v in (op.operands[0], op.results[0]))
        if isinstance(result, Float32Type):
            self._cast(op, "sitofp")
        elif isinstance(source, Float32Type):
            self._cast(op, "fptosi")
        else:
            assert isinstance(source, IntegerType)
            assert isinstance(result, IntegerType)
            self._cast(op, "zext" if source.width.data < result.width.data else "trunc")

    def _index_cast(self, op: Operation) -> None:
        source, result = op.operands[0], op.results[0]
        texts = self.module.type(source.type), self.module.type(result.type)
        bits = [int(t[1:]) for t in texts]
        if bits[0] == bits[1]:
            self._names[result] = self._use(source)
        else:
            self._cast(op, "sext" if bits[0] < bits[1] else "trunc")

    def _view(self, op: Operation) -> None:
        self._names[op.results[0]] = self._use(op.operands[0])

    def _constant(self, op: Operation) -> None:
        assert isinstance(op, arith.ConstantOp)
        value = op.value
        assert isinstance(value, FloatAttr | IntegerAttr)
        literal = (
            float_literal(value.value.data)
            if isinstance(value, FloatAttr)
            else str(value.value.data)
        )
        self._names[op.result] = literal

    def _broadcast(self, op: Operation) -> None:
        assert isinstance(op, vector.BroadcastOp)
        kind = self.module.type(op.vector.type)
        first = self._fresh("%b")
        self._line(f"{first} = insertelement {kind} poison, {self._typed(op.source)}, i32 0")
        lanes = op.vector.type.get_shape()[0]  # pyright: ignore[reportAttributeAccessIssue]
        self._line(
            f"{self.define(op.vector)} = shufflevector {kind} {first}, {kind} poison, "
            f"<{lanes} x i32> zeroinitializer"
        )

    def _compare(self, op: Operation) -> None:
        assert isinstance(op, kernel.CompareOp)
        predicate = op.predicate.data
        self._simple(op, f"{'fcmp' if kernel.PREDICATES[predicate] else 'icmp'} {predicate}")

    def _select(self, op: Operation) -> None:
        arguments = ", ".join(self._typed(o) for o in op.operands)
        self._line(f"{self.define(op.results[0])} = select {arguments}")

    def _negate(self, op: Operation) -> None:
        self._line(f"{self.define(op.results[0])} = fneg {self._typed(op.operands[0])}")

    def _erf(self, op: Operation) -> None:
        # LLVM has no intrinsic; the C library's erff, element by element.
        callee = self.module.declare("erff", "float", ["float"])
        source, result = op.operands[0], op.results[0]
        if not isinstance(source.type, VectorType):
            self._line(f"{self.define(result)} = call float {callee}({self._typed(source)})")
            return
        kind, done = self.module.type(source.type), "poison"
        for lane in range(source.type.get_shape()[0]):
            element, value, after = self._fresh("%e"), self._fresh("%e"), self._fresh("%e")
            self._line(f"{element} = extractelement {self._typed(source)}, i32 {lane}")
            self._line(f"{value} = call float {callee}(float {element})")
            self._line(f"{after} = insertelement {kind} {done}, float {value}, i32 {lane}")
            done = after
        self._names[result] = done

    def _extract(self, op: Operation) -> None:
        assert isinstance(op, vector.ExtractOp)
        lane = int(op.static_position.get_values()[0])
        self._line(
            f"{self.define(op.result)} = extractelement {self._typed(op.vector)}, i32 {lane}"
        )

    def _insert(self, op: Operation) -> None:
        assert isinstance(op, vector.InsertOp)
        lane = int(op.static_position.get_values()[0])
        self._line(
            f"{self.define(op.result)} = insertelement {self._typed(op.dest)}, "
            f"{self._typed(op.source)}, i32 {lane}"
        )

    def _shuffle(self, op: Operation) -> None:
        assert isinstance(op, vector.ShuffleOp)
        mask = ", ".join(f"i32 {lane}" for lane in op.mask.get_values())
        self._line(
            f"{self.define(op.result)} = shufflevector {self._typed(op.v1)}, {self._typed(op.v2)}, "
            f"<{len(op.mask)} x i32> <{mask}>"
        )

    def _reduction(self, op: Operation) -> None:
        assert isinstance(op, vector.ReductionOp)
        kind = self.module.type(op.vector.type)
        if isinstance(op.dest.type, IntegerType):
            self._integer_sum(op, kind)
            return
        name = _REDUCTIONS[op.kind.data.value]
        full = f"llvm.vector.reduce.{name}.{_suffix(op.vector.type, self.module)}"
        arguments = [kind] if name == "fmax" else ["float", kind]
        callee = self.module.declare(full, "float", arguments)
        start = "" if name == "fmax" else f"float {float_literal(-0.0)}, "
        # reassoc: sum in pairs; in sequence would be a chain as long as the vector.
        self._line(
            f"{self.define(op.dest)} = call reassoc float {callee}({start}{self._typed(op.vector)})"
        )

    def _integer_sum(self, op: vector.ReductionOp, kind: str) -> None:
        result = self.module.type(op.dest.type)
        full = f"llvm.vector.reduce.add.{_suffix(op.vector.type, self.module)}"
        callee = self.module.declare(full, result, [kind])
        text = f"{self.define(op.dest)} = call {result} {callee}({self._typed(op.vector)})"
        self._line(text)

    def _load_word(self, op: Operation) -> None:
        assert isinstance(op, kernel.LoadWordOp)
        address = self._address(op.ref, [op.index])
        self._line(f"{self.define(op.result)} = load i32, ptr {address}, align 1")

    def _store_word(self, op: Operation) -> None:
        assert isinstance(op, kernel.StoreWordOp)
        address = self._address(op.ref, [op.index])
        self._line(f"store {self._typed(op.value)}, ptr {address}, align 1")

    def _half(self, word: str, high: bool) -> str:
        """The signed low or high half of a word, as a word."""
        if not high:
            shifted = self._fresh("%h")
            self._line(f"{shifted} = shl i32 {word}, 16")
            word = shifted
        half = self._fresh("%h")
        self._line(f"{half} = ashr i32 {word}, 16")
        return half

    def _signed_byte(self, word: str, byte: int) -> str:
        """A byte of a word, as a word."""
        up, signed = self._fresh("%e"), self._fresh("%e")
        self._line(f"{up} = shl i32 {word}, {24 - 8 * byte}")
        self._line(f"{signed} = ashr i32 {up}, 24")
        return signed

    def _extend_pair(self, op: Operation) -> None:
        assert isinstance(op, kernel.ExtendPairOp)
        first = 1 if op.odd.value.data else 0
        halves: list[str] = []
        for byte, high in ((first, False), (first + 2, True)):
            total, signed = self._fresh("%e"), self._signed_byte(self._use(op.x), byte)
            offset = self._half(self._use(op.offset), high)
            self._line(f"{total} = add i32 {signed}, {offset}")
            halves.append(total)
        low, upper = self._fresh("%e"), self._fresh("%e")
        self._line(f"{low} = and i32 {halves[0]}, 65535")
        self._line(f"{upper} = shl i32 {halves[1]}, 16")
        self._line(f"{self.define(op.result)} = or i32 {low}, {upper}")

    def _product_of_halves(self, a: str, b: str, high: bool) -> str:
        product = self._fresh("%m")
        factors = self._half(a, high), self._half(b, high)
        self._line(f"{product} = mul i32 {factors[0]}, {factors[1]}")
        return product

    def _dots(self, op: Operation) -> None:
        """A loop over the words of `w`; their products are spelled out."""
        assert isinstance(op, kernel.DotsOp)
        index = self.module.type(IndexType())
        head, body, done = (self._fresh(p) for p in ("head", "body", "done"))
        number, following, condition = self._fresh("%i"), self._fresh("%i"), self._fresh("%c")
        first = self._address(op.w, [op.w_start])
        before = self._label
        self._line(f"br label %{head}")
        self._start(head)
        totals = [self.define(total) for total in op.totals]
        position = len(self.lines)
        words = get_int(op.properties, "words")
        self._line(f"{condition} = icmp slt {index} {number}, {words}")
        self._line(f"br i1 {condition}, label %{body}, label %{done}")
        self._start(body)
        word = self._load_at("i32", first, number, scale=4)
        sums = list(totals)
        assert isinstance(op.w.type, MemRefType)
        halves = op.w.type.element_type == i16
        pairs = 1 if halves else 2
        for pair, row in ((p, r) for p in range(pairs) for r in range(4)):
            offset = 16 * pair + 4 * row
            x = self._load_at("i32", self._use(op.x), number, 16 * pairs, offset)
            for high in (False, True):
                total, product = self._fresh("%m"), self._fresh("%m")
                w = self._half(word, high) if halves else self._signed_byte(word, pair + 2 * high)
                self._line(f"{product} = mul i32 {self._half(x, high)}, {w}")
                self._line(f"{total} = add i32 {sums[row]}, {product}")
                sums[row] = total
        self._line(f"{following} = add nsw {index} {number}, 1")
        self._line(f"br label %{head}")
        phis = [(number, index, "0", following)] + [
            (total, "i32", self._use(start), last)
            for total, start, last in zip(totals, op.sums, sums, strict=True)
        ]
        self.lines[position:position] = [
            f"  {name} = phi {kind} [ {start}, %{before} ], [ {last}, %{body} ]"
            for name, kind, start, last in phis
        ]
        self._start(done)

    def _row_dots(self, op: Operation) -> None:
        """A loop over the elements; lanes take theirs one by one."""
        assert isinstance(op, kernel.RowDotsOp)
        assert isinstance(op.x.type, MemRefType)
        assert isinstance(op.sums.type, VectorType)
        index, kind = self.module.type(IndexType()), self.module.type(op.sums.type)
        head, body, done = (self._fresh(p) for p in ("head", "body", "done"))
        number, following, condition = self._fresh("%i"), self._fresh("%i"), self._fresh("%c")
        names = ("length", "x_stride", "w_stride")
        length, x_stride, w_stride = (get_int(op.properties, name) for name in names)
        x_row, w_row = self._address(op.x, [op.x_start]), self._address(op.w, [op.w_start])
        before, total, sums = self._label, self._fresh("%m"), self.define(op.sums)
        self._line(f"br label %{head}")
        self._start(head)
        self._line(f"{number} = phi {index} [ 0, %{before} ], [ {following}, %{body} ]")
        start = "zeroinitializer"
        self._line(f"{sums} = phi {kind} [ {start}, %{before} ], [ {total}, %{body} ]")
        self._line(f"{condition} = icmp slt {index} {number}, {length}")
        self._line(f"br i1 {condition}, label %{body}, label %{done}")
        self._start(body)
        element = self.module.type(op.x.type.element_type)
        size = _bytes(op.x.type.element_type)
        products = "poison"
        for lane in range(op.sums.type.get_shape()[0]):
            x = self._widened(element, x_row, number, size, lane * x_stride * size)
            w = self._widened(element, w_row, number, size, lane * w_stride * size)
            product, collected = self._fresh("%m"), self._fresh("%m")
            self._line(f"{product} = mul i32 {x}, {w}")
            text = f"insertelement {kind} {products}, i32 {product}, i32 {lane}"
            self._line(f"{collected} = {text}")
            products = collected
        self._line(f"{total} = add {kind} {sums}, {products}")
        self._line(f"{following} = add nsw {index} {number}, 1")
        self._line(f"br label %{head}")
        self._start(done)

    def _load_apart(self, op: Operation) -> None:
        assert isinstance(op, kernel.LoadApartOp)
        assert isinstance(op.ref.type, MemRefType)
        assert isinstance(op.result.type, VectorType)
        element, align = op.ref.type.element_type, _bytes(op.ref.type.element_type)
        kind, first = self.module.type(element), self._address(op.ref, [op.index])
        stride, collected = get_int(op.properties, "stride"), "poison"
        whole, last = self.module.type(op.result.type), op.result.type.get_shape()[0] - 1
        for lane in range(last + 1):
            value, place = self._fresh("%e"), self._fresh("%p")
            self._line(f"{place} = getelementptr {kind}, ptr {first}, i32 {lane * stride}")
            self._line(f"{value} = load {kind}, ptr {place}, align {align}")
            name = self.define(op.result) if lane == last else self._fresh("%e")
            text = f"insertelement {whole} {collected}, {kind} {value}, i32 {lane}"
            self._line(f"{name} = {text}")
            collected = name

    def _store_apart(self, op: Operation) -> None:
        assert isinstance(op, kernel.StoreApartOp)
        assert isinstance(op.ref.type, MemRefType)
        assert isinstance(op.value.type, VectorType)
        element, align = op.ref.type.element_type, _bytes(op.ref.type.element_type)
        kind, first = self.module.type(element), self._address(op.ref, [op.index])
        stride = get_int(op.properties, "stride")
        for lane in range(op.value.type.get_shape()[0]):
            value, place = self._fresh("%e"), self._fresh("%p")
            self._line(f"{value} = extractelement {self._typed(op.value)}, i32 {lane}")
            self._line(f"{place} = getelementptr {kind}, ptr {first}, i32 {lane * stride}")
            self._line(f"store {kind} {value}, ptr {place}, align {align}")

    def _widened(self, kind: str, start: str, number: str, scale: int, offset: int) -> str:
        """What `_load_at` gives, signed, as an i32."""
        value, wide = self._load_at(kind, start, number, scale, offset), self._fresh("%d")
        self._line(f"{wide} = sext {kind} {value} to i32")
        return wide

    def _load_at(self, kind: str, start: str, number: str, scale: int, offset: int = 0) -> str:
        """What is `offset` bytes behind element `number`, of `scale` bytes, at any alignment."""
        index = self.module.type(IndexType())
        scaled, place, address, value = (self._fresh("%d") for _ in range(4))
        self._line(f"{scaled} = mul {index} {number}, {scale}")
        self._line(f"{place} = add {index} {scaled}, {offset}")
        self._line(f"{address} = getelementptr i8, ptr {start}, {index} {place}")
        self._line(f"{value} = load {kind}, ptr {address}, align 1")
        return value

    def _dual_multiply(self, op: Operation) -> None:
        assert isinstance(op, kernel.DualMultiplyOp)
        a, b = self._use(op.a), self._use(op.b)
        first = self._fresh("%m")
        low = self._product_of_halves(a, b, high=False)
        self._line(f"{first} = add i32 {self._use(op.sum)}, {low}")
        upper = self._product_of_halves(a, b, high=True)
        self._line(f"{self.define(op.result)} = add i32 {first}, {upper}")

    def _half_multiply(self, op: Operation) -> None:
        assert isinstance(op, kernel.HalfMultiplyOp)
        a = self._half(self._use(op.a), bool(op.a_high.value.data))
        b = self._half(self._use(op.b), bool(op.b_high.value.data))
        product = self._fresh("%m")
        self._line(f"{product} = mul i32 {a}, {b}")
        self._line(f"{self.define(op.result)} = add i32 {self._use(op.sum)}, {product}")

    def _saturate(self, op: Operation) -> None:
        assert isinstance(op, kernel.SaturateOp)
        x = self._fresh("%s")
        self._line(f"{x} = ashr {self._typed(op.x)}, {get_int(op.properties, 'shift')}")
        for name, limit in (("smin", 127), ("smax", -128)):
            callee = self.module.declare(f"llvm.{name}.i32", "i32", ["i32", "i32"])
            clamped = self._fresh("%s")
            self._line(f"{clamped} = call i32 {callee}(i32 {x}, i32 {limit})")
            x = clamped
        self._names[op.result] = x

    def _pack_halves(self, op: Operation) -> None:
        assert isinstance(op, kernel.PackHalvesOp)
        low, high = self._fresh("%h"), self._fresh("%h")
        self._line(f"{low} = and i32 {self._use(op.low)}, 65535")
        self._line(f"{high} = shl i32 {self._use(op.high)}, 16")
        self._line(f"{self.define(op.result)} = or i32 {low}, {high}")

    def _splat(self, number: int, like: Attribute) -> str:
        """`number` in each lane of an i64."""
        if not isinstance(like, VectorType):
            return str(number)
        return f"<{', '.join([f'i64 {number}'] * like.get_shape()[0])}>"

    def _multiply_high(self, op: Operation) -> None:
        assert isinstance(op, kernel.MultiplyHighOp)
        narrow = self.module.type(op.result.type)
        wide = self.module.type(kernel.with_element(op.result.type, i64))
        factors = self._fresh("%f"), self._fresh("%f")
        for name, value in zip(factors, (op.a, op.b), strict=True):
            self._line(f"{name} = sext {self._typed(value)} to {wide}")
        product, upper, high = (self._fresh("%f") for _ in range(3))
        self._line(f"{product} = mul {wide} {factors[0]}, {factors[1]}")
        self._line(f"{upper} = lshr {wide} {product}, {self._splat(32, op.result.type)}")
        self._line(f"{high} = trunc {wide} {upper} to {narrow}")
        self._line(f"{self.define(op.result)} = add {self._typed(op.sum)}, {high}")

    def _address(self, ref: SSAValue, indices: Sequence[SSAValue]) -> str:
        assert isinstance(ref.type, MemRefType)
        index = self.module.type(IndexType())
        element = self.module.type(ref.type.element_type)
        address, constant = self._use(ref), 0
        for value, stride in zip(indices, strides_of(ref.type), strict=True):
            name = self._use(value)
            if not name.startswith("%"):
                constant += int(name) * stride
                continue
            if stride != 1:
                scaled = self._fresh("%o")
                self._line(f"{scaled} = mul {index} {name}, {stride}")
                name = scaled
            step = self._fresh("%p")
            self._line(f"{step} = getelementptr {element}, ptr {address}, {index} {name}")
            address = step
        if constant:
            step = self._fresh("%p")
            self._line(f"{step} = getelementptr {element}, ptr {address}, {index} {constant}")
            address = step
        return address

    def _load(self, op: Operation) -> None:
        ref, *indices = op.operands
        assert isinstance(ref.type, MemRefType)
        address = self._address(ref, indices)
        result = op.results[0]
        align = _bytes(ref.type.element_type)
        self._line(
            f"{self.define(result)} = load {self.module.type(result.type)}, ptr {address}, "
            f"align {align}"
        )

    def _store(self, op: Operation) -> None:
        value, ref, *indices = op.operands
        assert isinstance(ref.type, MemRefType)
        address = self._address(ref, indices)
        align = _bytes(ref.type.element_type)
        self._line(f"store {self._typed(value)}, ptr {address}, align {align}")

    def _prefetch(self, op: Operation) -> None:
        assert isinstance(op, kernel.PrefetchOp)
        address = self._address(op.ref, op.indices)
        callee = self.module.declare("llvm.prefetch.p0", "void", ["ptr", "i32", "i32", "i32"])
        # To read, into the second cache, data.
        self._line(f"call void {callee}(ptr {address}, i32 0, i32 2, i32 1)")

    def _for(self, op: Operation) -> None:
        assert isinstance(op, scf.ForOp)
        block, index = op.body.block, self.module.type(IndexType())
        head, body, done = (self._fresh(f"{p}") for p in ("head", "body", "done"))
        before, start = self._label, self._use(op.lb)
        self._line(f"br label %{head}")
        induction, *carried = block.args
        # The phis need the values of the loop's end: patched in when they are known.
        self._start(head)
        position = len(self.lines)
        names = [self.define(a) for a in (induction, *carried)]
        condition = self._fresh("%c")
        self._line(f"{condition} = icmp slt {index} {names[0]}, {self._use(op.ub)}")
        self._line(f"br i1 {condition}, label %{body}, label %{done}")
        self._start(body)
        self.block(block)
        following = self._fresh("%n")
        self._line(f"{following} = add nsw {index} {names[0]}, {self._use(op.step)}")
        latch = self._label
        self._line(f"br label %{head}")
        terminator = block.last_op
        assert terminator is not None
        firsts = [start, *(self._use(v) for v in op.iter_args)]
        nexts = [following, *(self._use(v) for v in terminator.operands)]
        phis = [
            f"  {name} = phi {self.module.type(argument.type)} "
            f"[ {first}, %{before} ], [ {following_value}, %{latch} ]"
            for name, argument, first, following_value in zip(
                names, block.args, firsts, nexts, strict=True
            )
        ]
        self.lines[position:position] = phis
        for result, argument in zip(op.results, carried, strict=True):
            self._names[result] = self._use(argument)
        self._start(done)

    def _offset(self, op: Operation) -> None:
        assert isinstance(op, kernel.OffsetOp)
        scaled, size = self._fresh("%o"), get_int(op.properties, "bytes")
        self._line(f"{scaled} = mul {self._typed(op.index)}, {size}")
        address = f"{self._typed(op.ref)}, {self.module.type(IndexType())} {scaled}"
        self._line(f"{self.define(op.result)} = getelementptr i8, {address}")

    def _parallel(self, op: Operation) -> None:
        assert isinstance(op, kernel.ParallelOp)
        part = self.module.part(op.body.block)
        operands = self._fresh("%operands")
        self.stack.append(f"  {operands} = alloca [{len(op.shared)} x ptr]")
        for place, value in enumerate(op.shared):
            slot = self._fresh("%s")
            self._line(f"{slot} = getelementptr ptr, ptr {operands}, i32 {place}")
            self._line(f"store {self._typed(value)}, ptr {slot}")
        run = self.module.declare(RUN, "void", ["ptr", "ptr"])
        self._line(f"call void {run}(ptr {part}, ptr {operands})")

    def _if(self, op: Operation) -> None:
        assert isinstance(op, scf.IfOp)
        then, otherwise, done = (self._fresh(p) for p in ("then", "else", "done"))
        self._line(f"br {self._typed(op.cond)}, label %{then}, label %{otherwise}")
        for label, region in ((then, op.true_region), (otherwise, op.false_region)):
            self._start(label)
            self.block(region.block)
            self._line(f"br label %{done}")
        self._start(done)


_HANDLERS: dict[type[Operation], Callable[[_FunctionEmitter, Operation], None]] = {
    arith.ConstantOp: _FunctionEmitter._constant,  # pyright: ignore[reportPrivateUsage]
    UnrealizedConversionCastOp: _FunctionEmitter._view,  # pyright: ignore[reportPrivateUsage]
    arith.IndexCastOp: _FunctionEmitter._index_cast,  # pyright: ignore[reportPrivateUsage]
    kernel.CompareOp: _FunctionEmitter._compare,  # pyright: ignore[reportPrivateUsage]
    kernel.SelectOp: _FunctionEmitter._select,  # pyright: ignore[reportPrivateUsage]
    kernel.CastOp: _FunctionEmitter._convert,  # pyright: ignore[reportPrivateUsage]
    kernel.LoadWordOp: _FunctionEmitter._load_word,  # pyright: ignore[reportPrivateUsage]
    kernel.StoreWordOp: _FunctionEmitter._store_word,  # pyright: ignore[reportPrivateUsage]
    kernel.ExtendPairOp: _FunctionEmitter._extend_pair,  # pyright: ignore[reportPrivateUsage]
    kernel.DualMultiplyOp: _FunctionEmitter._dual_multiply,  # pyright: ignore[reportPrivateUsage]
    kernel.HalfMultiplyOp: _FunctionEmitter._half_multiply,  # pyright: ignore[reportPrivateUsage]
    kernel.DotsOp: _FunctionEmitter._dots,  # pyright: ignore[reportPrivateUsage]
    kernel.RowDotsOp: _FunctionEmitter._row_dots,  # pyright: ignore[reportPrivateUsage]
    kernel.LoadApartOp: _FunctionEmitter._load_apart,  # pyright: ignore[reportPrivateUsage]
    kernel.StoreApartOp: _FunctionEmitter._store_apart,  # pyright: ignore[reportPrivateUsage]
    kernel.SaturateOp: _FunctionEmitter._saturate,  # pyright: ignore[reportPrivateUsage]
    kernel.PackHalvesOp: _FunctionEmitter._pack_halves,  # pyright: ignore[reportPrivateUsage]
    kernel.MultiplyHighOp: _FunctionEmitter._multiply_high,  # pyright: ignore[reportPrivateUsage]
    arith.NegfOp: _FunctionEmitter._negate,  # pyright: ignore[reportPrivateUsage]
    math.ErfOp: _FunctionEmitter._erf,  # pyright: ignore[reportPrivateUsage]
    vector.BroadcastOp: _FunctionEmitter._broadcast,  # pyright: ignore[reportPrivateUsage]
    vector.ExtractOp: _FunctionEmitter._extract,  # pyright: ignore[reportPrivateUsage]
    vector.InsertOp: _FunctionEmitter._insert,  # pyright: ignore[reportPrivateUsage]
    vector.ShuffleOp: _FunctionEmitter._shuffle,  # pyright: ignore[reportPrivateUsage]
    vector.ReductionOp: _FunctionEmitter._reduction,  # pyright: ignore[reportPrivateUsage]
    memref.LoadOp: _FunctionEmitter._load,  # pyright: ignore[reportPrivateUsage]
    vector.LoadOp: _FunctionEmitter._load,  # pyright: ignore[reportPrivateUsage]
    memref.StoreOp: _FunctionEmitter._store,  # pyright: ignore[reportPrivateUsage]
    vector.StoreOp: _FunctionEmitter._store,  # pyright: ignore[reportPrivateUsage]
    kernel.PrefetchOp: _FunctionEmitter._prefetch,  # pyright: ignore[reportPrivateUsage]
    scf.ForOp: _FunctionEmitter._for,  # pyright: ignore[reportPrivateUsage]
    kernel.OffsetOp: _FunctionEmitter._offset,  # pyright: ignore[reportPrivateUsage]
    kernel.ParallelOp: _FunctionEmitter._parallel,  # pyright: ignore[reportPrivateUsage]
    scf.IfOp: _FunctionEmitter._if,  # pyright: ignore[reportPrivateUsage]
}


def _bytes(element: Attribute) -> int:
    return max(1, element.width.data // 8) if isinstance(element, IntegerType) else 4


def _suffix(kind: Attribute, module: LlvmEmitter) -> str:
    if isinstance(kind, VectorType):
        return f"v{kind.get_shape()[0]}{_suffix(kind.element_type, module)}"
    text = module.type(kind)
    return "f32" if text == "float" else text


def emit_module(
    kernels: Iterable[func.FuncOp],
    programs: Sequence[plan.ProgramOp],
    target: Target,
    symbols: Mapping[str, str] | None = None,
    timed: bool = False,
) -> str:
    """LLVM IR of `kernels` and the entry points `programs`.

    `symbols`: for modules that are linked with others, the symbols of all kernels by name.
    `timed`: entry points note when each call began and ended.
    """
    emitter = LlvmEmitter(target, symbols)
    for function in kernels:
        emitter.kernel(function)
    for program in programs:
        emitter.program(program, timed)
    if programs and target.threads > 1:
        emitter.pool()
    attributes = "attributes #0 = { nounwind }"
    return f"{emitter.text()}\n{attributes}\n"
