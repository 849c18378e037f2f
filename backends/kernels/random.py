"""The random numbers of `nn.random_mask` and `nn.random_uniform`: a hash of where and when."""

from xdsl.dialects.builtin import f32, i32

from niwaki.backends.kernels.builder import KernelBuilder, Value
from niwaki.ir.dialects import nn
from niwaki.ir.dialects.tensor_op import get_int

_MULTIPLIERS = (0x7FEB352D, 0x846CA68B)
_SHIFTS = (16, 15, 16)


def signed(value: int) -> int:
    """The i32 with the low 32 bits of `value`."""
    return (value + 2**31) % 2**32 - 2**31


def count_from(k: KernelBuilder, first: Value, lanes: int) -> Value:
    """first, first + 1, ... as i32."""
    if lanes == 1:
        return first
    steps = k.from_elements([k.constant(i, i32) for i in range(lanes)])
    return k.add(k.broadcast(first, lanes), steps)


def step_base(k: KernelBuilder, counter: Value, seed: int) -> Value:
    """What all hashes of one operation and step start from."""
    return _lowbias32(k, k.bit_xor(k.constant(signed(seed), i32), _lowbias32(k, counter)))


def hashes(k: KernelBuilder, base: Value, first: Value, lanes: int) -> Value:
    """32 random bits for each of the elements number `first` and following."""
    return _lowbias32(k, count_from(k, k.add(base, first), lanes))


def uniform(
    k: KernelBuilder, op: nn.RandomUniformOp, counter: Value, first: Value, lanes: int
) -> Value:
    """Elements of `nn.random_uniform` from number `first` on."""
    base = step_base(k, counter, get_int(op.properties, "seed"))
    bits = k.shift_right(hashes(k, base, first, lanes), k.constant(8, i32, lanes))
    return k.mul(k.cast(bits, f32), k.constant(2.0**-24, f32, lanes))


def _lowbias32(k: KernelBuilder, x: Value) -> Value:
    """The 32-bit mixer of `nn.random_mask`."""
    lanes = k.lanes(x)
    for shift, multiplier in zip(_SHIFTS, (*_MULTIPLIERS, None), strict=True):
        x = k.bit_xor(x, k.shift_right(x, k.constant(shift, i32, lanes)))
        if multiplier is not None:
            x = k.mul(x, k.constant(signed(multiplier), i32, lanes))
    return x
