"""Every pass of Niwaki by name, loaded when first asked for; and the plug-in for `xdsl-opt`."""

from collections.abc import Callable
from importlib import import_module

from xdsl.ir import Dialect
from xdsl.passes import ModulePass
from xdsl.universe import XDSL_UNIVERSE, Universe


def _lazy(name: str, class_name: str) -> Callable[[], type[ModulePass]]:
    """The class `class_name` of the file that is named after the pass `name`."""
    module = f"niwaki.passes.{name.replace('-', '_')}"
    return lambda: getattr(import_module(module), class_name)


def _dialect(name: str) -> Callable[[], Dialect]:
    """The dialect `name`; its variable is the name in capitals."""
    return lambda: getattr(import_module(f"niwaki.ir.dialects.{name}"), name.upper())


_CLASSES = {
    "autodiff": "AutodiffPass",
    "build-training": "BuildTrainingPass",
    "canonicalize": "CanonicalizePass",
    "constant-fold": "ConstantFoldPass",
    "cse": "CsePass",
    "dce": "DcePass",
    "decompose": "DecomposePass",
    "expand-updates": "ExpandUpdatesPass",
    "fold-batch-norm": "FoldBatchNormPass",
    "fold-quantization": "FoldQuantizationPass",
    "fuse": "FusePass",
    "integer-backward": "IntegerBackwardPass",
    "lower-quantized": "LowerQuantizedPass",
    "lower-to-plan": "LowerToPlanPass",
    "micro-batch": "MicroBatchPass",
    "narrow-stash": "NarrowStashPass",
    "order-channels": "OrderChannelsPass",
    "recompute": "RecomputePass",
    "recompute-elementwise": "RecomputeElementwisePass",
    "schedule": "SchedulePass",
    "select-updates": "SelectUpdatesPass",
    "set-batch": "SetBatchPass",
    "split-batch": "SplitBatchPass",
    "split-parameters": "SplitParametersPass",
    "tile-rows": "TileRowsPass",
}

PASSES = {name: _lazy(name, class_name) for name, class_name in _CLASSES.items()}
"""Factories of all passes, as `niwaki-opt` offers them."""

UNIVERSE = Universe(
    all_dialects={name: _dialect(name) for name in ("nn", "train", "plan")},
    # xDSL refuses two passes of one name: those that it has itself stay its own there.
    all_passes={n: p for n, p in PASSES.items() if n not in XDSL_UNIVERSE.all_passes},
)
"""What `xdsl-opt` sees of Niwaki (entry point `xdsl.universe`)."""
