"""The context of passes: registered dialects, and the weight store that parameters name."""

from xdsl.context import Context
from xdsl.dialects.arith import Arith
from xdsl.dialects.builtin import Builtin
from xdsl.dialects.func import Func
from xdsl.dialects.math import Math
from xdsl.dialects.memref import MemRef
from xdsl.dialects.scf import Scf
from xdsl.dialects.vector import Vector

from niwaki.ir.dialects.kernel import KERNEL
from niwaki.ir.dialects.nn import NN
from niwaki.ir.dialects.plan import PLAN
from niwaki.ir.dialects.train import TRAIN
from niwaki.ir.weights import WeightStore

DIALECTS = (Builtin, Func, Arith, Math, Scf, MemRef, Vector, NN, TRAIN, PLAN, KERNEL)
"""Every dialect that Niwaki's levels use."""


class NiwakiContext(Context):
    """An xDSL context with Niwaki's dialects and the arrays of the program at hand.

    Passes that read or add arrays (constant folding, batch-norm folding) use `weights`; without
    arrays, as in `niwaki-opt` on a bare text file, they leave the operations alone.
    """

    def __init__(self, weights: WeightStore | None = None) -> None:
        super().__init__()
        self.weights = WeightStore() if weights is None else weights
        for dialect in DIALECTS:
            self.load_dialect(dialect)


def weights_of(context: Context) -> WeightStore:
    """The weight store of `context`; an empty one if it is a plain xDSL context."""
    return context.weights if isinstance(context, NiwakiContext) else WeightStore()
