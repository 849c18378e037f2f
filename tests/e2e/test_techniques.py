"""What saves memory changes no result: training steps with and without each technique.

Orders, arenas and recomputation leave every operation as it is: bit for bit the same. Strips of
rows and micro-batches sum the same terms in another order.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from niwaki.backends.c.example import TestVectors
from niwaki.backends.c.package import write_c
from niwaki.backends.c.toolchain import build_linux, run_program
from niwaki.backends.targets import portable_c
from niwaki.ir.context import NiwakiContext
from niwaki.ir.lowered import Lowered
from niwaki.ir.program import Program
from niwaki.ir.training import SGD, Scheme, TrainingOptions
from niwaki.passes import lower_to_plan
from niwaki.passes.arenas.plan_arena import plan_greedily
from niwaki.passes.arenas.problem import ArenaPlan, ArenaProblem, align, plan_at
from niwaki.passes.instrument import PassRunner
from niwaki.passes.lower_to_plan import lower
from niwaki.passes.pipelines import Techniques, compile_program, training_pipeline
from niwaki.passes.schedule import schedule
from tests.c_programs import TIMEOUT, need_tools
from tests.compiled import HOST, Compiled
from tests.networks import Net, program_of

STEPS = 3
TOLERANCE = 1e-5
"""Of an array's largest element: sums of up to thousands of float32 terms, each rounded to 6e-8 of
itself, in another order, over three steps. Single small elements may be sums that cancel."""

LR = 0.05
SCHEMES = {"full": Scheme.full(), "bias": Scheme.bias(), "head": Scheme.head_only()}


@dataclass(frozen=True)
class Case:
    """A small network, and what is trained of it."""

    kind: str
    batch: int
    size: int
    channels: int
    layers: int
    stride: int
    scheme: str

    def program(self) -> Program:
        """[batch, size, size, 3] in, 4 classes out."""

        def network(net: Net, x: Any) -> Any:
            x = net.relu6(net.conv("stem", x, self.channels, 3, self.stride, 1))
            for i in range(self.layers):
                x = BLOCKS[self.kind](net, f"blocks.{i}", x)
            return net.dense("head", net.global_avg_pool(x), 4)

        return program_of(network, (self.batch, self.size, self.size, 3))

    def options(self) -> TrainingOptions:
        return TrainingOptions("cross_entropy", SGD(LR, momentum=0.9), SCHEMES[self.scheme])

    def inputs(self) -> list[NDArray[np.generic]]:
        random = np.random.default_rng(1)
        x = random.standard_normal((self.batch, self.size, self.size, 3)).astype(np.float32)
        return [x, random.integers(0, 4, self.batch).astype(np.int32)]


def _chain(net: Net, name: str, x: Any) -> Any:
    return net.relu(net.conv(name, x, net.channels(x), 3, 1, 1))


def _residual(net: Net, name: str, x: Any) -> Any:
    y = _chain(net, f"{name}.0", x)
    return net.add(x, net.conv(f"{name}.1", y, net.channels(x), 3, 1, 1, gain=0.5))


def _inverted(net: Net, name: str, x: Any) -> Any:
    """An inverted residual block: widened, depthwise, narrowed."""
    channels = net.channels(x)
    y = net.relu6(net.conv(f"{name}.wide", x, 2 * channels, 1))
    y = net.relu6(net.conv(f"{name}.dw", y, 2 * channels, 3, 1, 1, groups=2 * channels))
    return net.add(x, net.conv(f"{name}.narrow", y, channels, 1, gain=0.5))


def _pixels(net: Net, name: str, x: Any) -> Any:
    """A perceptron on each pixel: nothing but matrix products."""
    y = net.relu(net.conv(f"{name}.0", x, 4 * net.channels(x), 1))
    return net.conv(f"{name}.1", y, net.channels(x), 1)


BLOCKS: Mapping[str, Callable[[Net, str, Any], Any]] = {
    "chain": _chain,
    "residual": _residual,
    "depthwise": _inverted,
    "mlp": _pixels,
}
CASES = st.builds(
    Case,
    kind=st.sampled_from(sorted(BLOCKS)),
    batch=st.sampled_from((1, 2, 4)),
    size=st.integers(5, 12),
    channels=st.integers(3, 9),
    layers=st.integers(1, 2),
    stride=st.integers(1, 2),
    scheme=st.sampled_from(sorted(SCHEMES)),
)


def some(count: int) -> settings:
    """So many examples; each compiles twice, so a failing one is not made smaller."""
    return settings(max_examples=count, phases=(Phase.generate,))


WIDE = {"size": 12, "channels": 6, "layers": 3, "stride": 1}


@dataclass(frozen=True)
class Trained:
    """What some steps leave behind."""

    losses: NDArray[np.float64]
    state: Mapping[str, NDArray[np.generic]]


def train(case: Case, lowered: Lowered) -> Trained:
    """Steps on one batch, each on a poisoned arena."""
    compiled = Compiled(lowered)
    inputs = [*case.inputs(), np.float32(LR)]
    losses = [float(compiled.run("train_step", inputs)[0]) for _ in range(STEPS)]
    return Trained(np.array(losses), compiled.state())


@cache
def plain(case: Case) -> Trained:
    """Without any technique."""
    return train(case, compile_program(case.program(), case.options(), HOST))


def lowered_with(case: Case, techniques: Techniques) -> Lowered:
    return compile_program(case.program(), case.options(), HOST, techniques=techniques)


def check_close(case: Case, trained: Trained) -> None:
    """Losses and all parameters are those of the plain step, to TOLERANCE."""
    wanted = plain(case)
    np.testing.assert_allclose(trained.losses, wanted.losses, rtol=TOLERANCE)
    assert trained.state.keys() == wanted.state.keys()
    for name, array in wanted.state.items():
        scale = float(np.abs(array).max())
        np.testing.assert_allclose(
            trained.state[name], array, rtol=0, atol=TOLERANCE * scale, err_msg=name
        )


def check_equal(case: Case, trained: Trained) -> None:
    """Losses and all parameters are those of the plain step, bit for bit."""
    wanted = plain(case)
    np.testing.assert_array_equal(trained.losses, wanted.losses)
    assert trained.state.keys() == wanted.state.keys()
    for name, array in wanted.state.items():
        np.testing.assert_array_equal(trained.state[name], array, err_msg=name)


def side_by_side(problem: ArenaProblem) -> ArenaPlan:
    """Nothing shares memory."""
    offsets: list[int] = []
    end = 0
    for buffer in problem.buffers:
        offsets.append(align(end, buffer.alignment))
        end = offsets[-1] + buffer.occupied
    return plan_at(problem, offsets)


# --- bit for bit


def lowered_in_order(case: Case, order: str) -> Lowered:
    program = case.program()
    passes = training_pipeline(case.options(), HOST)[:-1]
    PassRunner().run(NiwakiContext(program.weights), program.module, passes)
    schedule(program.module, HOST, order)
    return lower(program, HOST)


@some(4)
@given(CASES, st.sampled_from(("greedy", "source")))
def test_orders(case: Case, order: str) -> None:
    check_equal(case, train(case, lowered_in_order(case, order)))


@some(4)
@given(CASES, st.sampled_from((plan_greedily, side_by_side)))
def test_arenas(case: Case, planner: Callable[[ArenaProblem], ArenaPlan]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lower_to_plan, "plan_arena", planner)
        lowered = lowered_with(case, Techniques())
    check_equal(case, train(case, lowered))


@some(4)
@given(CASES, st.sampled_from((0.0, 0.8)))
def test_recomputation(case: Case, part: float) -> None:
    whole = lowered_with(case, Techniques()).entries["train_step"].arena_bytes
    techniques = Techniques(recompute_bytes=int(part * whole))
    check_equal(case, train(case, lowered_with(case, techniques)))


# --- within rounding


@some(5)
@given(CASES, st.sampled_from((0, 2_000)))
def test_strips_of_rows(case: Case, limit: int) -> None:
    check_close(case, train(case, lowered_with(case, Techniques(row_bytes=limit))))


@some(4)
@given(CASES.filter(lambda case: case.batch > 1))
def test_micro_batches(case: Case) -> None:
    check_close(case, train(case, lowered_with(case, Techniques(case.batch))))


@some(8)
@given(CASES, st.booleans(), st.sampled_from((None, 0)), st.sampled_from((None, 0)))
def test_combinations(case: Case, split: bool, recompute: int | None, rows: int | None) -> None:
    techniques = Techniques(case.batch if split else 1, recompute, rows)
    check_close(case, train(case, lowered_with(case, techniques)))


COMBINED = Techniques(2, recompute_bytes=0, row_bytes=0)


@pytest.mark.parametrize("kind", ["residual", "depthwise"])
def test_as_c(kind: str, tmp_path: Path) -> None:
    """The C of this machine with all techniques has the losses of the plain JIT."""
    need_tools(HOST)
    case = Case(kind, batch=2, scheme="full", **WIDE)
    lowered = compile_program(case.program(), case.options(), portable_c(HOST), techniques=COMBINED)
    vectors = TestVectors(case.inputs(), list(plain(case).losses), TOLERANCE)
    folder = write_c(lowered, tmp_path / "net", learning_rate=LR, vectors=vectors)
    sources = [folder / name for name in ("model.c", "model_data.c", "main.c")]
    done = run_program(build_linux(sources, folder / "model", HOST, sanitize=True), TIMEOUT)
    assert done.code == 0, done.output
    np.testing.assert_allclose(done.floats["loss"], plain(case).losses, rtol=TOLERANCE)


# --- the techniques are there at all


def calls(lowered: Lowered) -> int:
    return len(lowered.entries["train_step"].calls)


@pytest.mark.parametrize("kind", ["chain", "depthwise"])
@pytest.mark.parametrize(
    ("techniques", "batch", "scheme"),
    [
        (Techniques(2), 2, "full"),
        (Techniques(recompute_bytes=0), 1, "full"),
        (Techniques(row_bytes=0), 1, "head"),
    ],
    ids=["micro-batches", "recomputation", "rows"],
)
def test_the_step_changes_and_needs_less(
    kind: str, techniques: Techniques, batch: int, scheme: str
) -> None:
    case = Case(kind, batch=batch, scheme=scheme, **WIDE)
    before, after = lowered_with(case, Techniques()), lowered_with(case, techniques)
    assert calls(after) > calls(before)
    assert after.entries["train_step"].arena_bytes < before.entries["train_step"].arena_bytes
