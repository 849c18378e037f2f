"""Niwaki: a compiler for training neural networks on small devices.

>>> program = niwaki.load("mobilenet.pt2")
>>> step = niwaki.compile(program, optimizer=niwaki.SGD(lr=0.01), update="head", batch=8)
>>> loss = step(x, y)
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from niwaki.compilation import compile as compile
    from niwaki.frontends.load import load as load
    from niwaki.ir.errors import DoesNotFitError as DoesNotFitError
    from niwaki.ir.errors import MismatchError as MismatchError
    from niwaki.ir.errors import ModelFileError as ModelFileError
    from niwaki.ir.errors import NiwakiError as NiwakiError
    from niwaki.ir.errors import UnsupportedOpsError as UnsupportedOpsError
    from niwaki.ir.errors import UsageError as UsageError
    from niwaki.ir.program import Program as Program
    from niwaki.ir.training import SGD as SGD
    from niwaki.ir.training import Adam as Adam
    from niwaki.ir.training import AdamW as AdamW
    from niwaki.ir.training import Scheme as Scheme
    from niwaki.quantization import quantize as quantize
    from niwaki.step import TrainingStep as TrainingStep
    from niwaki.tuning import Tuning as Tuning

# Loaded when first asked for: importing niwaki costs neither xDSL nor LLVM.
_HOMES = {
    "niwaki.compilation": ("compile",),
    "niwaki.frontends.load": ("load",),
    "niwaki.ir.errors": (
        "DoesNotFitError",
        "MismatchError",
        "ModelFileError",
        "NiwakiError",
        "UnsupportedOpsError",
        "UsageError",
    ),
    "niwaki.ir.program": ("Program",),
    "niwaki.ir.training": ("SGD", "Adam", "AdamW", "Scheme"),
    "niwaki.quantization": ("quantize",),
    "niwaki.step": ("TrainingStep",),
    "niwaki.tuning": ("Tuning",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME_OF)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> object:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'niwaki' has no attribute '{name}'")
    return getattr(import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return __all__
