"""What a training step is told: the optimizer, and which parameters are updated."""

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self, TypeAlias

from niwaki.ir.errors import UsageError


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise UsageError(message)


@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent; `lr` stays a run-time value, this is its initial one."""

    lr: float
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    clip_norm: float | None = None
    """Clip the norm over all gradients together to this (None: no clipping)."""

    def __post_init__(self) -> None:
        _check(self.lr >= 0, f"lr must be >= 0, got {self.lr}")
        _check(0 <= self.momentum < 1, f"momentum must be in [0, 1), got {self.momentum}")
        _check(not self.nesterov or self.momentum > 0, "nesterov needs a momentum > 0")
        _check(self.weight_decay >= 0, f"weight_decay must be >= 0, got {self.weight_decay}")
        _check(self.clip_norm is None or self.clip_norm > 0, "clip_norm must be positive")


@dataclass(frozen=True)
class Adam:
    """Adam (Kingma & Ba 2015); weight decay is added to the gradient, as in torch.optim.Adam."""

    lr: float
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8
    weight_decay: float = 0.0
    clip_norm: float | None = None
    """Clip the norm over all gradients together to this (None: no clipping)."""

    def __post_init__(self) -> None:
        _check(self.lr >= 0, f"lr must be >= 0, got {self.lr}")
        _check(all(0 <= b < 1 for b in self.betas), f"betas must be in [0, 1), got {self.betas}")
        _check(self.epsilon > 0, "epsilon must be positive")
        _check(self.weight_decay >= 0, f"weight_decay must be >= 0, got {self.weight_decay}")
        _check(self.clip_norm is None or self.clip_norm > 0, "clip_norm must be positive")


@dataclass(frozen=True)
class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019), as torch.optim.AdamW."""

    weight_decay: float = 0.01


Optimizer: TypeAlias = SGD | Adam

ORDERS = ("leading", "magnitude")
"""How `Scheme.order` chooses channels."""


def _toml_key(name: str) -> str:
    return name if name.isdecimal() else json.dumps(name, ensure_ascii=False)


@dataclass(frozen=True)
class Scheme:
    """Which parameters a step updates (sparse update: layers, channels, biases).

    A layer is a convolution or dense operation, with its bias and the batch norm behind it.
    Layers are numbered from 0 in execution order; the last one is the head.
    """

    weights: Mapping[str, float] | None = None
    """Layer number (as text) or parameter name -> ratio of input channels (depthwise: channels)
    whose weights are updated, in (0, 1]; round(ratio * channels), at least 1. None: all weights."""
    biases: int | None = None
    """The biases (and batch-norm shifts and scales) of the last this many layers are updated,
    the head counted; None: all."""
    head: bool = True
    """Whether the head's weight is updated in full, whatever `weights` says."""
    layers: int | None = None
    """Only the last this many layers are touched at all; None: all."""
    order: str = "leading"
    """Which channels a ratio chooses: the "leading" ones of the model, or those of largest
    "magnitude" (Lin et al. 2022), which then come first in memory."""

    def __post_init__(self) -> None:
        for layer, ratio in (self.weights or {}).items():
            _check(0 <= ratio <= 1, f"ratio of layer {layer} must be in [0, 1], got {ratio}")
        _check(self.order in ORDERS, f"order must be one of {', '.join(ORDERS)}, got {self.order}")
        for name in ("biases", "layers"):
            value = getattr(self, name)
            _check(value is None or value >= 0, f"{name} must be >= 0, got {value}")

    @classmethod
    def full(cls) -> Self:
        """Every parameter."""
        return cls()

    @classmethod
    def bias(cls) -> Self:
        """Every bias (and shift of a norm), and the head's weight."""
        return cls(weights={})

    @classmethod
    def head_only(cls) -> Self:
        """The last layer's weight and bias."""
        return cls(layers=1)

    @classmethod
    def last_layers(cls, n: int) -> Self:
        """Weights and biases of the last `n` layers."""
        _check(n >= 1, f"last_layers needs n >= 1, got {n}")
        return cls(layers=n)

    @classmethod
    def channels(cls, ratios: Mapping[int | str, float], biases: int) -> Self:
        """Per-layer input-channel ratios, the last `biases` layers' biases, and the head.

        As the schemes of "On-Device Training Under 256KB Memory", section 3.2.
        """
        return cls(weights={str(k): v for k, v in ratios.items()}, biases=biases)

    @classmethod
    def parse(cls, text: str) -> Self:
        """From "full", "bias", "head", "last_layers(N)" or the path of a .toml file.

        Raises UsageError with the possible values if `text` is none of them.
        """
        named = {"full": cls.full, "bias": cls.bias, "head": cls.head_only}
        if text in named:
            return named[text]()
        if text.startswith("last_layers(") and text.endswith(")") and text[12:-1].isdigit():
            return cls.last_layers(int(text[12:-1]))
        if text.endswith(".toml"):
            return cls.from_toml(Path(text))
        raise UsageError(
            f"unknown update '{text}': use full, bias, head, last_layers(N) or a .toml file"
        )

    @classmethod
    def from_toml(cls, path: Path) -> Self:
        """From a file: keys `biases`, `head`, `layers`, `order`, and a table `[weights]`."""
        try:
            table = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise UsageError(f"cannot read the scheme {path}: {error}") from None
        known = {"weights", "biases", "head", "layers", "order"}
        _check(
            set(table) <= known,
            f"{path}: unknown key(s) {', '.join(sorted(set(table) - known))}; "
            f"known are {', '.join(sorted(known))}",
        )
        weights = table.get("weights")
        _check(
            weights is None
            or (
                isinstance(weights, dict)
                and all(
                    isinstance(v, int | float) and not isinstance(v, bool) for v in weights.values()
                )
            ),
            f"{path}: [weights] must map layers to ratios",
        )
        kinds = (("biases", int), ("layers", int), ("head", bool), ("order", str))
        for key, kind in kinds:
            value = table.get(key)
            _check(value is None or type(value) is kind, f"{path}: '{key}' must be {kind.__name__}")
        return cls(weights, **{key: table[key] for key, _ in kinds if key in table})

    def to_toml(self) -> str:
        """The text of a file that `from_toml` reads."""
        keys = {"biases": self.biases, "head": self.head, "layers": self.layers}
        lines = [f"{key} = {json.dumps(value)}" for key, value in keys.items() if value is not None]
        lines.append(f"order = {json.dumps(self.order)}")
        if self.weights is not None:
            lines += ["", "[weights]"]
            lines += [f"{_toml_key(name)} = {float(v)!r}" for name, v in self.weights.items()]
        return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class TrainingOptions:
    """What `build-training` and `autodiff` make of a forward program."""

    loss: str = "cross_entropy"
    """cross_entropy, cross_entropy_soft (probabilities as target), mse, bce."""
    optimizer: Optimizer = field(default_factory=lambda: SGD(lr=0.01))
    scheme: Scheme = field(default_factory=Scheme)
    rounding: str = "stochastic"
    """How updates of quantised parameters become whole: stochastic, error_feedback, nearest."""
    scaling: bool = True
    """Quantization-aware scaling of those updates."""
    seed: int = 0
    """Of stochastic rounding."""
    backward: str = "integer"
    """How the gradients of quantised layers are summed up: integer (exactly, alike on every
    machine) or float."""
