"""Inputs and attributes of ONNX nodes."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
from xdsl.utils.exceptions import VerifyException

from niwaki.frontends.conversion import Unsupported
from niwaki.frontends.nchw import Array, Imported, NchwBuilder, narrowed, small
from niwaki.ir.dialects.tensor_op import require

Known: TypeAlias = Imported | Array
"""A tensor of the program, or integers that only describe shapes."""
Result: TypeAlias = Known | Sequence[Imported]

FLOAT, UINT8, INT8, INT32, INT64, BOOL = 1, 2, 3, 6, 7, 9
"""TensorProto.DataType of what Niwaki reads."""


class Attribute(Protocol):
    """onnx.AttributeProto."""

    type: int
    i: int
    f: float
    s: bytes
    ints: Sequence[int]
    floats: Sequence[float]
    t: Any


class Operands:
    """Inputs and attributes of one node.

    Accessors raise VerifyException where something required is missing or of another type,
    Unsupported where a value is not known when it must be.
    """

    def __init__(
        self,
        inputs: Sequence[Known | None],
        attributes: Mapping[str, Attribute],
        names: Sequence[str],
        outputs: Sequence[str],
        opset: int,
        decode: Callable[[Any], Array],
    ) -> None:
        """`names`: of the inputs. `decode`: reads a TensorProto."""
        self._inputs = inputs
        self.names = names
        self._attributes = attributes
        self._decode = decode
        self.outputs = outputs
        self.opset = opset

    # --- inputs

    def has(self, index: int) -> bool:
        """Whether input `index` is given."""
        return index < len(self._inputs) and self._inputs[index] is not None

    def known(self, index: int) -> Known:
        """Input `index`."""
        value = self._inputs[index] if index < len(self._inputs) else None
        require(value is not None, f"input {index} is missing")
        assert value is not None
        return value

    def tensor(self, n: NchwBuilder, index: int) -> Imported:
        """Input `index` as a tensor."""
        value = self.known(index)
        if isinstance(value, Imported):
            return value
        return n.weight(f"{self.outputs[0]}.input{index}", narrowed(value), fixed=True)

    def optional(self, n: NchwBuilder, index: int) -> Imported | None:
        """Input `index`, None where it is absent."""
        return self.tensor(n, index) if self.has(index) else None

    def tensors(self, n: NchwBuilder) -> list[Imported]:
        """All inputs."""
        return [self.tensor(n, i) for i in range(len(self._inputs))]

    def constant(self, index: int) -> Array:
        """The content of input `index`; Unsupported if it is computed."""
        value = self.known(index)
        array = value.array if isinstance(value, Imported) else value
        if array is None:
            raise Unsupported(f"input {index} is computed; it must be a constant")
        return array

    def input_integers(self, index: int) -> list[int]:
        """The integers of input `index`."""
        array = self.constant(index)
        require(array.dtype.kind == "i" and array.ndim <= 1, f"input {index} must be integers")
        return [int(v) for v in array.reshape(-1)]

    def input_number(self, index: int, default: float) -> float:
        """The only number of input `index`."""
        if not self.has(index):
            return default
        array = self.constant(index)
        require(array.size == 1, f"input {index} must be one number")
        return float(array.item())

    # --- attributes

    def _attribute(self, name: str, kind: int) -> Attribute | None:
        attribute = self._attributes.get(name)
        if attribute is not None and attribute.type != kind:
            raise VerifyException(f"attribute '{name}' has type {attribute.type}, not {kind}")
        return attribute

    def integer(self, name: str, default: int) -> int:
        """An integer attribute."""
        attribute = self._attribute(name, 2)
        return default if attribute is None else small([attribute.i], name)[0]

    def number(self, name: str, default: float) -> float:
        """A float attribute."""
        attribute = self._attribute(name, 1)
        return default if attribute is None else attribute.f

    def text(self, name: str, default: str) -> str:
        """A string attribute."""
        attribute = self._attribute(name, 3)
        return default if attribute is None else attribute.s.decode("utf-8", "replace")

    def integers(self, name: str, default: Sequence[int] | None = None) -> list[int] | None:
        """An attribute of several integers."""
        attribute = self._attribute(name, 7)
        if attribute is not None:
            return [int(v) for v in attribute.ints]
        return None if default is None else list(default)

    def integers_at(self, name: str, index: int) -> list[int] | None:
        """Attribute `name` of old operator sets, input `index` of new ones."""
        return self.input_integers(index) if self.has(index) else self.integers(name)

    def only(self, name: str, value: int) -> None:
        """Raises Unsupported unless the integer attribute is absent or `value`."""
        if self.integer(name, value) != value:
            raise Unsupported(f"{name}={self.integer(name, value)}")

    def content(self) -> Array:
        """The array that a Constant states in one of its attributes."""
        for name, kind in (("value", 4), ("value_float", 1), ("value_floats", 6)):
            attribute = self._attribute(name, kind)
            if attribute is not None and kind == 4:
                return self._decode(attribute.t)
            if attribute is not None:
                numbers = attribute.f if kind == 1 else list(attribute.floats)
                return np.array(numbers, np.float32)
        if "value_int" in self._attributes:
            return np.array(self.integer("value_int", 0), np.int64)
        integers = self.integers("value_ints")
        if integers is None:
            raise Unsupported("neither a tensor nor numbers")
        return np.array(integers, np.int64)

    # --- windows

    def pair(self, name: str, default: int) -> list[int]:
        """Two integers."""
        values = small(self.integers(name, [default] * 2) or [], name)
        if len(values) != 2:
            raise Unsupported(f"{name}={values}; only two dimensions")
        return values

    def padding(
        self, n: NchwBuilder, x: Imported, kernel: Sequence[int], dilation: Sequence[int]
    ) -> list[int]:
        """[top, left, bottom, right] from `pads` or `auto_pad`."""
        kind = self.text("auto_pad", "NOTSET")
        if kind in ("SAME_UPPER", "SAME_LOWER"):
            strides, upper = self.pair("strides", 1), kind == "SAME_UPPER"
            return n.same_padding(x.shape[2:], kernel, strides, dilation, upper)
        if kind not in ("NOTSET", "VALID"):
            raise Unsupported(f"auto_pad={kind}"[:40])
        pads = self.integers("pads", [0] * 4) or []
        padding = small(pads if kind == "NOTSET" else [0] * 4, "pads")
        if len(padding) != 4:
            raise Unsupported(f"pads={padding}; only two dimensions")
        return padding
