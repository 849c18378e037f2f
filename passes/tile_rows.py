"""Computes parts of a step a strip at a time, forward and backward: no wide tensor ever exists.

Depth-first execution: a strip passes through a whole run of operations before the next one
begins; what two strips need is computed twice. The general form of patch execution (Lin et al.
2021, MCUNetV2), of fused inverted residual blocks and of gradient accumulation.
"""

from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp
from xdsl.passes import ModulePass

from niwaki.passes.dce import eliminate_dead_code
from niwaki.passes.functions import functions
from niwaki.passes.strips.compute_in_strips import compute_in_strips
from niwaki.passes.strips.find_region import BlockFacts
from niwaki.passes.strips.search import choose_strips


@dataclass(frozen=True)
class TileRowsPass(ModulePass):
    """Tiles regions of each function so that no more than `limit` bytes are live at once there.

    Strips are cut along the samples or, within a sample, along the rows. What the backward pass
    needs from inside a region it computes again, strip by strip; gradients of parameters add up
    over the strips. Of all choices that keep the limit the one with the least extra arithmetic;
    what cannot keep it comes as close as it can.
    """

    name = "tile-rows"

    limit: int = 0

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for function in functions(op):
            tile_rows(function, self.limit)


def tile_rows(function: FuncOp, limit: int) -> None:
    """Tiles `function`; see TileRowsPass."""
    block = function.body.block
    facts = BlockFacts.of(block)
    chosen = choose_strips(block, limit)
    # Backward parts first: they repeat operations that the forward parts replace.
    parts = [(o.backward for o in chosen), (o.forward for o in chosen)]
    tilings = [[(t, t.region(facts)) for t in part if t is not None] for part in parts]
    for part in tilings:
        for tiling, region in part:
            compute_in_strips(region, tiling.count, tiling.run)
        eliminate_dead_code(block)
