"""What compilation costs as a network grows: counted in kernels and calls, not in seconds."""

from functools import cache

import numpy as np
import pytest

from niwaki.ir.builder import ProgramBuilder, Value
from niwaki.ir.lowered import Lowered
from niwaki.ir.program import Program
from niwaki.ir.training import SGD, TrainingOptions
from niwaki.passes.pipelines import compile_program
from tests.compiled import HOST
from tests.networks import mobilenet_v2

OPTIONS = TrainingOptions(optimizer=SGD(0.1, momentum=0.9))


def residual_chain(blocks: int) -> Program:
    """A convolution, `blocks` equal residual blocks and a dense head."""
    b = ProgramBuilder()
    random = np.random.default_rng(0)

    def weight(*shape: int) -> Value:
        return b.weight(f"w{len(b.store)}", random.standard_normal(shape).astype(np.float32))

    x = b.add(b.conv2d(b.input([1, 8, 8, 3]), weight(8, 3, 3, 3), 1, 1), weight(8))
    for _ in range(blocks):
        y = b.relu6(b.add(b.conv2d(x, weight(8, 3, 3, 8), 1, 1), weight(8)))
        x = b.add(x, b.add(b.conv2d(y, weight(8, 1, 1, 8)), weight(8)))
    return b.finish(b.dense(b.global_avg_pool(x), weight(10, 8), weight(10)))


@cache
def chain(blocks: int) -> Lowered:
    return compile_program(residual_chain(blocks), OPTIONS, HOST)


@cache
def mobilenet(depth: int) -> Lowered:
    return compile_program(mobilenet_v2(1, 32, depth=depth), OPTIONS, HOST)


def calls(lowered: Lowered, entry: str) -> int:
    return len(lowered.entries[entry].calls)


def kernels(lowered: Lowered) -> int:
    return len({c.kernel for entry in lowered.entries.values() for c in entry.calls})


@pytest.mark.parametrize("entry", ["train_step", "infer", "evaluate"])
def test_calls_grow_linearly_with_equal_blocks(entry: str) -> None:
    four, eight, twelve = (calls(chain(n), entry) for n in (4, 8, 12))
    assert twelve - eight == eight - four > 0


def test_equal_blocks_share_their_kernels() -> None:
    assert kernels(chain(4)) == kernels(chain(8)) == kernels(chain(12))


def test_the_arena_of_a_deeper_network_grows_by_its_activations_only() -> None:
    four, eight, twelve = (chain(n).arena_bytes for n in (4, 8, 12))
    assert twelve - eight == eight - four


def test_a_deeper_mobilenet_has_more_calls_of_nearly_the_same_kernels() -> None:
    """Twice as many blocks; stages that had one block only get their first with stride 1."""
    for entry in ("train_step", "infer", "evaluate"):
        assert (
            calls(mobilenet(1), entry) < calls(mobilenet(2), entry) < 2 * calls(mobilenet(1), entry)
        )
    assert kernels(mobilenet(2)) < 1.2 * kernels(mobilenet(1))
