"""Builds decoders of the LLaMA family from their configuration file, config.json.

Touvron et al. 2023, "LLaMA"; the file, the layout and the names of the weights are those of
Hugging Face Transformers. Without weights the program can be planned, not run.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from xdsl.dialects.builtin import LocationAttr, NameLoc, NoneAttr, StringAttr, bf16, f16, f32, i32
from xdsl.ir import Attribute

from niwaki.frontends.checked_json import Json
from niwaki.ir.builder import ProgramBuilder, Value
from niwaki.ir.dialects.tensor_op import shape_of, tensor
from niwaki.ir.errors import ModelFileError, UsageError
from niwaki.ir.program import Program

Weights: TypeAlias = Mapping[str, NDArray[np.float32]]

ELEMENTS: Mapping[str, Attribute] = {"float32": f32, "bfloat16": bf16, "float16": f16}
PROJECTIONS = ("q", "k", "v", "o", "gate", "up", "down")
"""The matrices of a block, as LoRA names them (without "_proj")."""

_MOST_BLOCKS = 1024
_MOST = 2**24
"""Of any other size: what keeps a damaged file from building an absurd program."""
_MASKED = -1e9
"""Added to the scores of tokens that come later."""


@dataclass(frozen=True)
class LowRank:
    """Low-rank adapters beside frozen weights (Hu et al. 2022, "LoRA")."""

    rank: int = 8
    targets: tuple[str, ...] = ("q", "v")
    """Which of PROJECTIONS have one."""
    alpha: float = 16.0
    """What an adapter adds is scaled by alpha / rank."""

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise UsageError(f"the rank of LoRA must be at least 1, got {self.rank}")
        unknown = [t for t in self.targets if t not in PROJECTIONS]
        if unknown or not self.targets:
            raise UsageError(
                f"LoRA can adapt {', '.join(PROJECTIONS)}, got '{','.join(self.targets)}'"
            )


@dataclass(frozen=True)
class DecoderConfig:
    """The sizes of a decoder."""

    hidden: int
    intermediate: int
    blocks: int
    heads: int
    key_value_heads: int
    vocabulary: int
    positions: int
    epsilon: float
    rope_theta: float
    element: Attribute
    """Of weights and activations: one of ELEMENTS."""
    tied: bool
    """Whether the embedding is the output matrix too."""

    @property
    def head(self) -> int:
        """Elements of a head."""
        return self.hidden // self.heads

    @classmethod
    def read(cls, path: Path) -> "DecoderConfig":
        """Reads a config.json.

        Raises UsageError if it cannot be read or describes another architecture, ModelFileError
        if it contradicts itself.
        """
        try:
            data = path.read_bytes()
        except OSError as error:
            raise UsageError(f"cannot read {path}: {error.strerror or error}") from None
        file = Json.parse(data, path.name)
        _check_architecture(file, path)
        heads = _size(file, "num_attention_heads")
        given = file.get("torch_dtype") or file.get("dtype")
        name = "float32" if given is None else given.text()
        if name not in ELEMENTS:
            raise UsageError(f"{path}: weights of {name}; known are {', '.join(ELEMENTS)}")
        config = cls(
            hidden=_size(file, "hidden_size"),
            intermediate=_size(file, "intermediate_size"),
            blocks=_size(file, "num_hidden_layers", _MOST_BLOCKS),
            heads=heads,
            key_value_heads=_size(file, "num_key_value_heads", default=heads),
            vocabulary=_size(file, "vocab_size"),
            positions=_size(file, "max_position_embeddings"),
            epsilon=_number(file, "rms_norm_eps", 1e-6),
            rope_theta=_number(file, "rope_theta", 10_000.0),
            element=ELEMENTS[name],
            tied=_flag(file, "tie_word_embeddings"),
        )
        if config.hidden % heads or heads % config.key_value_heads or config.head % 2:
            raise ModelFileError(
                f"{path}: {config.hidden} elements, {heads} heads and {config.key_value_heads} "
                "key and value heads do not go into each other (heads have an even size)"
            )
        return config


def _check_architecture(file: Json, path: Path) -> None:
    """Raises UsageError for what the decoder below does not compute."""
    kind, activation = file.get("model_type"), file.get("hidden_act")
    if kind is not None and kind.text() != "llama":
        raise UsageError(f"{path}: model_type is '{kind.text()}'; known is llama")
    if activation is not None and activation.text() != "silu":
        raise UsageError(f"{path}: hidden_act is '{activation.text()}'; known is silu")
    for key in ("attention_bias", "mlp_bias"):
        if _flag(file, key):
            raise UsageError(f"{path}: {key} is not known")
    if file.get("rope_scaling") is not None:
        raise UsageError(f"{path}: rope_scaling is not known")
    size = file.get("head_dim")
    heads, hidden = _size(file, "num_attention_heads"), _size(file, "hidden_size")
    if size is not None and size.integer() * heads != hidden:
        raise UsageError(f"{path}: head_dim is not hidden_size / num_attention_heads")


def _size(file: Json, key: str, most: int = _MOST, default: int | None = None) -> int:
    entry = file[key] if default is None else file.get(key)
    value = default if entry is None else entry.integer()
    if value is None or not 1 <= value <= most:
        raise (entry or file).fail(f"'{key}' must be between 1 and {most}")
    return value


def _number(file: Json, key: str, default: float) -> float:
    entry = file.get(key)
    value = default if entry is None else entry.number()
    if entry is not None and not 0 < value < float("inf"):
        raise entry.fail("must be a positive number")
    return value


def _flag(file: Json, key: str) -> bool:
    entry = file.get(key)
    return entry is not None and entry.flag()


def load(
    path: Path, batch: int = 1, sequence: int | None = None, adapters: LowRank | None = None
) -> Program:
    """`decoder` of the config.json at `path`, without weights; `sequence`: default the longest.

    Raises UsageError or ModelFileError as `DecoderConfig.read` and `decoder` do.
    """
    config = DecoderConfig.read(path)
    length = config.positions if sequence is None else sequence
    return decoder(config, batch, length, adapters=adapters, source=path.name)


def decoder(
    config: DecoderConfig,
    batch: int,
    sequence: int,
    weights: Weights | None = None,
    adapters: LowRank | None = None,
    source: str = "decoder",
) -> Program:
    """@forward(tokens [batch, sequence] i32) -> logits [batch, sequence, vocabulary].

    `weights`: the arrays by their names, f32 (those of adapters too); None: all parameters are
    declared only. With `adapters` every weight of the model itself is frozen.

    Raises UsageError if a size or an array does not fit.
    """
    if batch < 1 or not 1 <= sequence <= config.positions:
        raise UsageError(
            f"batch {batch} and sequence {sequence} must be at least 1, and the sequence at most "
            f"{config.positions}"
        )
    if weights is not None and config.element != f32:
        raise UsageError("a decoder with weights computes in float32: convert them")
    return _Decoder(config, batch, sequence, weights, adapters).program(source)


class _Decoder:
    """Rows are tokens: activations are [batch * sequence, size] outside of attention."""

    def __init__(
        self,
        config: DecoderConfig,
        batch: int,
        sequence: int,
        weights: Weights | None,
        adapters: LowRank | None,
    ) -> None:
        self.config = config
        self.batch = batch
        self.sequence = sequence
        self.weights = weights
        self.adapters = adapters
        self.b = ProgramBuilder()

    def program(self, source: str) -> Program:
        """The whole model."""
        c, b = self.config, self.b
        tokens = b.input([self.batch, self.sequence], i32, "tokens")
        b.location = _place("model.embed_tokens")
        table = self._weight("model.embed_tokens.weight", [c.vocabulary, c.hidden])
        x = b.reshape(b.gather(table, tokens), [self.batch * self.sequence, c.hidden])
        cosine, sine, mask = self._tables()
        for number in range(c.blocks):
            name = f"model.layers.{number}"
            normal = self._norm(x, f"{name}.input_layernorm")
            x = b.add(x, self._attention(normal, f"{name}.self_attn", cosine, sine, mask))
            normal = self._norm(x, f"{name}.post_attention_layernorm")
            x = b.add(x, self._feed_forward(normal, f"{name}.mlp"))
        x = self._norm(x, "model.norm")
        b.location = _place("lm_head")
        if not c.tied:
            table = self._weight("lm_head.weight", [c.vocabulary, c.hidden])
        logits = b.reshape(b.dense(x, table), [self.batch, self.sequence, c.vocabulary])
        return b.finish(logits, source=source)

    def _attention(self, x: Value, name: str, cosine: Value, sine: Value, mask: Value) -> Value:
        """Heads that share keys and values stand one below another, as rows of one matrix."""
        c, b = self.config, self.b
        shared = c.heads // c.key_value_heads
        grouped = [self.batch, self.sequence, c.key_value_heads, shared, c.head]
        stack = self.batch * c.key_value_heads
        q = self._project(x, name, "q", c.hidden)
        k = self._project(x, name, "k", c.key_value_heads * c.head)
        v = self._project(x, name, "v", c.key_value_heads * c.head)
        b.location = _place(name)
        q = self._rotated(b.transpose(b.reshape(q, grouped), [0, 2, 3, 1, 4]), cosine, sine)
        k = self._rotated(self._keys(k), cosine, sine)
        q = b.reshape(q, [stack, shared * self.sequence, c.head])
        k, v = (b.reshape(t, [stack, self.sequence, c.head]) for t in (k, self._keys(v)))
        scores = b.add(b.scale(b.matmul(q, k, transpose_b=True), 1 / sqrt(c.head)), mask)
        y = b.matmul(b.softmax(scores), v)
        y = b.reshape(y, [self.batch, c.key_value_heads, shared, self.sequence, c.head])
        y = b.reshape(b.transpose(y, [0, 3, 1, 2, 4]), [self.batch * self.sequence, c.hidden])
        return self._project(y, name, "o", c.hidden)

    def _keys(self, x: Value) -> Value:
        """Rows of tokens as [batch, heads, sequence, size of a head]."""
        c, b = self.config, self.b
        x = b.reshape(x, [self.batch, self.sequence, c.key_value_heads, c.head])
        return b.transpose(x, [0, 2, 1, 3])

    def _rotated(self, x: Value, cosine: Value, sine: Value) -> Value:
        """Rotary position embedding (Su et al. 2021) of [..., sequence, size of a head]."""
        b, (*outer, size) = self.b, shape_of(x)
        half, origin = [*outer, size // 2], [0] * len(outer)
        first = b.slice(x, [*origin, 0], half)
        second = b.slice(x, [*origin, size // 2], half)
        return b.concat(
            [
                b.sub(b.mul(first, cosine), b.mul(second, sine)),
                b.add(b.mul(second, cosine), b.mul(first, sine)),
            ],
            len(outer),
        )

    def _feed_forward(self, x: Value, name: str) -> Value:
        b, size = self.b, self.config.intermediate
        gate = b.silu(self._project(x, name, "gate", size))
        up = self._project(x, name, "up", size)
        return self._project(b.mul(gate, up), name, "down", self.config.hidden)

    def _norm(self, x: Value, name: str) -> Value:
        self.b.location = _place(name)
        gamma = self._weight(f"{name}.weight", [self.config.hidden])
        return self.b.rms_norm(x, gamma, self.config.epsilon)

    def _project(self, x: Value, block: str, projection: str, outputs: int) -> Value:
        """x times the transposed matrix [outputs, inputs], and what its adapter adds."""
        b, name = self.b, f"{block}.{projection}_proj"
        b.location = _place(name)
        inputs = shape_of(x)[1]
        y = b.dense(x, self._weight(f"{name}.weight", [outputs, inputs]))
        adapters = self.adapters
        if adapters is None or projection not in adapters.targets:
            return y
        down = self._parameter(f"{name}.lora_A.weight", [adapters.rank, inputs], fixed=False)
        up = self._parameter(f"{name}.lora_B.weight", [outputs, adapters.rank], fixed=False)
        low = b.scale(b.dense(x, down), adapters.alpha / adapters.rank)
        return b.add(y, b.dense(low, up))

    def _weight(self, name: str, shape: Sequence[int]) -> Value:
        return self._parameter(name, shape, fixed=self.adapters is not None)

    def _parameter(self, name: str, shape: Sequence[int], fixed: bool) -> Value:
        if self.weights is None:
            return self.b.declare(name, tensor(shape, self.config.element), fixed)
        array = self.weights.get(name)
        if array is None or array.shape != tuple(shape) or array.dtype != np.float32:
            raise UsageError(f"'{name}' must be a float32 array of the shape {list(shape)}")
        return self.b.weight(name, array, fixed=fixed)

    def _tables(self) -> tuple[Value, Value, Value]:
        """Cosines and sines [sequence, half a head], and the causal mask for the scores."""
        c, b = self.config, self.b
        rows = c.heads // c.key_value_heads * self.sequence
        half = [self.sequence, c.head // 2]
        names = "model.rotary.cos", "model.rotary.sin", "model.causal_mask"
        if self.weights is None:
            kinds = [tensor(shape, c.element) for shape in (half, half, [rows, self.sequence])]
            cosine, sine, mask = (
                b.declare(name, kind, fixed=True) for name, kind in zip(names, kinds, strict=True)
            )
            return cosine, sine, mask
        frequencies = c.rope_theta ** (-np.arange(0, c.head, 2) / c.head)
        angles = np.outer(np.arange(self.sequence), frequencies)
        later = np.triu(np.full((self.sequence, self.sequence), _MASKED), 1)
        arrays = np.cos(angles), np.sin(angles), np.tile(later, (rows // self.sequence, 1))
        cosine, sine, mask = (
            b.weight(name, array.astype(np.float32), fixed=True)
            for name, array in zip(names, arrays, strict=True)
        )
        return cosine, sine, mask


def _place(name: str) -> LocationAttr:
    return NameLoc(StringAttr(name), NoneAttr())
