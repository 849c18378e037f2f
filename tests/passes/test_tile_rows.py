"""tile-rows keeps results, forward and backward, and the limit where it can be kept."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xdsl.ir import SSAValue

from niwaki.backends.targets import get_target
from niwaki.ir.builder import ProgramBuilder
from niwaki.ir.context import NiwakiContext
from niwaki.ir.dialects.tensor_op import shape_of, tensor_bytes, type_of
from niwaki.ir.effects import verify
from niwaki.ir.interpreter import run
from niwaki.ir.program import Program
from niwaki.ir.training import SGD, Adam, Optimizer, Scheme, TrainingOptions
from niwaki.passes.pipelines import Techniques, compile_program, training_pipeline
from niwaki.passes.strips.find_region import BlockFacts
from niwaki.passes.strips.plain_step import PlainStep
from niwaki.passes.strips.row_reaches import Windows
from niwaki.passes.tile_rows import TileRowsPass
from tests.compiled import Compiled
from tests.conv_chains import conv_chain
from tests.networks import mobilenet_v2, resnet18
from tests.random_networks import SPECS, Spec, build, inputs

Layer = tuple[str, int, int, int, int, bool]
"""Kind, kernel, stride, padding, channels, residual."""

LAYERS = st.lists(
    st.tuples(
        st.sampled_from(["conv", "depthwise", "max", "average"]),
        st.integers(1, 3),
        st.integers(1, 2),
        st.integers(0, 1),
        st.integers(1, 4),
        st.booleans(),
    ),
    min_size=1,
    max_size=6,
)
LIMITS = st.sampled_from([0, 300, 1500, 4000])
CLASSES = 3


def network(layers: list[Layer], batch: int = 1) -> Program:
    """A chain of layers on [batch, 11, 7, 3]; a layer whose shape stays may add its input."""
    rng = np.random.default_rng(0)
    b = ProgramBuilder()

    def weight(*shape: int) -> SSAValue:
        array = rng.standard_normal(shape).astype(np.float32)
        return b.weight(f"w{len(b.store)}", array / np.sqrt(np.prod(shape[1:]), dtype=np.float32))

    y: SSAValue = b.input([batch, 11, 7, 3])
    for kind, kernel, stride, padding, channels, residual in layers:
        _, height, width, depth = shape_of(y)
        if min(height, width) + 2 * padding < kernel or padding >= kernel:
            continue
        x = y
        if kind in ("conv", "depthwise"):
            groups = depth if kind == "depthwise" else 1
            channels = depth if kind == "depthwise" else channels
            y = b.conv2d(
                x, weight(channels, kernel, kernel, depth // groups), stride, padding, groups=groups
            )
            y = b.relu6(b.add(y, weight(channels)))
        elif kind == "max":
            y = b.max_pool2d(x, kernel, stride, padding)
        else:
            y = b.avg_pool2d(x, kernel, stride, padding, count_include_pad=channels > 2)
        if residual and shape_of(x) == shape_of(y):
            y = b.add(x, y)
    return b.finish(b.dense(b.global_avg_pool(y), weight(CLASSES, shape_of(y)[3])))


def mlp(batch: int, width: int) -> Program:
    """d -> 4 d -> d and logits, on [batch, width]."""
    rng = np.random.default_rng(0)
    b = ProgramBuilder()

    def weight(*shape: int) -> SSAValue:
        return b.weight(f"w{len(b.store)}", rng.standard_normal(shape).astype(np.float32) / 4)

    x = b.input([batch, width])
    y = b.gelu(b.dense(x, weight(4 * width, width), weight(4 * width)))
    y = b.add(x, b.dense(y, weight(width, 4 * width), weight(width)))
    return b.finish(b.dense(y, weight(8 * width, width)))


def prepared(
    program: Program, scheme: Scheme | None = None, optimizer: Optimizer | None = None
) -> Program:
    """A training step as `tile-rows` gets it."""
    program = program.clone()
    options = TrainingOptions(optimizer=optimizer or SGD(0.1), scheme=scheme or Scheme.full())
    for step in training_pipeline(options, get_target("host")):
        if step.name == "fuse":
            break
        step.apply(NiwakiContext(program.weights), program.module)
    return program


def tiled(program: Program, limit: int) -> Program:
    """`program` in strips, verified."""
    program = program.clone()
    TileRowsPass(limit).apply(NiwakiContext(program.weights), program.module)
    verify(program.module)
    return program


def peak_of(program: Program) -> int:
    """Bytes live in @train_step as the pass sees them."""
    step = PlainStep(program.function("train_step").body.block)
    return step.while_running(0, len(step.ops))


def largest(program: Program) -> int:
    """Bytes of the largest tensor that @train_step computes, but for new parameters."""
    block = program.function("train_step").body.block
    facts = BlockFacts.of(block)
    return max(
        tensor_bytes(type_of(result))
        for op in block.ops
        for result in op.results
        if op not in facts.updates and result not in facts.static
    )


def batch_of(program: Program) -> list[np.ndarray]:
    """An input, labels and a learning rate for the program's @train_step."""
    rng = np.random.default_rng(1)
    x, labels, _ = program.function("train_step").body.block.args
    return [
        rng.standard_normal(shape_of(x)).astype(np.float32),
        rng.integers(0, CLASSES, shape_of(labels)).astype(np.int32),
        np.float32(0.1),
    ]


def check_same(program: Program, other: Program, arguments: list[np.ndarray] | None = None) -> None:
    """Two steps of training give the same losses and parameters."""
    arguments = batch_of(program) if arguments is None else arguments
    states: list[dict[str, np.ndarray]] = [{}, {}]
    for _ in range(2):
        losses = [
            run(p, "train_step", arguments, state)
            for p, state in zip((program, other), states, strict=True)
        ]
        np.testing.assert_allclose(losses[1][0], losses[0][0], rtol=1e-5, atol=1e-5)
    assert states[0].keys() == states[1].keys()
    for name, value in states[0].items():
        np.testing.assert_allclose(states[1][name], value, rtol=1e-4, atol=1e-5, err_msg=name)


@settings(max_examples=20)
@given(LAYERS, LIMITS)
def test_inference_stays(layers: list[Layer], limit: int) -> None:
    program = network(layers)
    x = np.random.default_rng(1).standard_normal((1, 11, 7, 3)).astype(np.float32)
    (expected,) = run(program, "forward", [x])
    (actual,) = run(tiled(program, limit), "forward", [x])
    # NumPy's matrix products may sum in another order for another number of rows.
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


@settings(max_examples=20)
@given(LAYERS, LIMITS, st.sampled_from([1, 3]), st.sampled_from(["full", "last_layers(2)"]))
def test_training_stays(layers: list[Layer], limit: int, batch: int, scheme: str) -> None:
    program = network(layers, batch)
    step = prepared(program, Scheme.parse(scheme))
    check_same(step, tiled(step, limit))


@settings(max_examples=20)
@given(SPECS, st.sampled_from([0, 1000]), st.booleans())
def test_training_of_any_operations_stays(spec: Spec, limit: int, adam: bool) -> None:
    """The networks have every operation that a frontend makes."""
    step = prepared(build(spec), optimizer=Adam(0.1, epsilon=1e-2) if adam else None)
    x, labels = inputs("cross_entropy")
    check_same(step, tiled(step, limit), [x.astype(np.float32), labels, np.float32(0.1)])


@pytest.mark.parametrize("batch", [1, 4])
def test_a_block_is_never_whole(batch: int) -> None:
    """Inverted residual blocks: no expanded tensor exists, forward or backward."""
    b = ProgramBuilder()
    rng = np.random.default_rng(0)

    def conv(x: SSAValue, channels: int, kernel: int, groups: int = 1) -> SSAValue:
        shape = (channels, kernel, kernel, shape_of(x)[3] // groups)
        w = b.weight(f"w{len(b.store)}", rng.standard_normal(shape).astype(np.float32) / 4)
        return b.conv2d(x, w, padding=kernel // 2, groups=groups)

    y: SSAValue = b.input([batch, 24, 24, 4])
    for _ in range(2):
        hidden = b.relu6(conv(y, 24, 1))
        hidden = b.relu6(conv(hidden, 24, 3, groups=24))
        y = b.add(y, conv(hidden, 4, 1))
    step = prepared(b.finish(b.global_avg_pool(y)))
    whole = batch * 24 * 24 * 24 * 4
    assert largest(step) == whole
    peak = peak_of(step)
    strips = tiled(step, peak // 3)
    assert largest(strips) <= 0.6 * whole
    assert peak_of(strips) <= peak // 2
    check_same(step, strips)


def test_residual_network() -> None:
    # A target whose kernels need no scratch.
    program, target = resnet18(2, 64, width=4), get_target("cortex-m7")
    step = prepared(program)
    plain = compile_program(program, TrainingOptions(), target)
    limit = int(0.4 * plain.arena_bytes)
    strips = compile_program(
        program, TrainingOptions(), target, techniques=Techniques(row_bytes=limit)
    )
    assert strips.arena_bytes < 0.7 * plain.arena_bytes
    check_same(step, tiled(step, limit))


def test_rows_of_matrices() -> None:
    """Hidden layer, logits and loss by rows; every row is computed once."""
    step = prepared(mlp(64, 8))
    strips = tiled(step, peak_of(step) // 4)
    assert largest(strips) <= largest(step) // 2
    check_same(step, strips)


def test_compiled_step() -> None:
    """Strips of rows and samples, in place where they can be, on a poisoned arena."""
    program = conv_chain(2, 4)
    plain = compile_program(program, TrainingOptions(), get_target("host"))
    limit = plain.arena_bytes // 3
    strips = compile_program(
        program, TrainingOptions(), get_target("host"), techniques=Techniques(row_bytes=limit)
    )
    assert strips.arena_bytes < 0.5 * plain.arena_bytes
    steps = [Compiled(plain), Compiled(strips)]
    rng = np.random.default_rng(1)
    x = rng.standard_normal((2, 16, 16, 4)).astype(np.float32)
    labels = np.array([1, 3], np.int32)
    for _ in range(3):
        a, e = (c.run("train_step", [x, labels, np.float32(0.1)])[0] for c in steps)
        np.testing.assert_allclose(a, e, rtol=1e-5)
    for name, value in steps[0].state().items():
        np.testing.assert_allclose(steps[1].state()[name], value, rtol=1e-4, atol=1e-5)


def test_with_the_other_techniques() -> None:
    program = conv_chain(4, 4)
    target = get_target("host")
    plain = compile_program(program, TrainingOptions(), target)
    aim = plain.arena_bytes // 4
    both = compile_program(program, TrainingOptions(), target, techniques=Techniques(2, aim, aim))
    assert both.arena_bytes < plain.arena_bytes // 2
    rng = np.random.default_rng(1)
    arguments = [
        rng.standard_normal((4, 16, 16, 4)).astype(np.float32),
        np.array([0, 1, 2, 3], np.int32),
        np.float32(0.1),
    ]
    steps = [Compiled(plain), Compiled(both)]
    for _ in range(2):
        a, e = (c.run("train_step", arguments)[0] for c in steps)
        np.testing.assert_allclose(a, e, rtol=1e-5)


def test_a_limit_that_is_kept_anyway_changes_nothing() -> None:
    program = network([("conv", 3, 1, 1, 4, False)] * 3)
    assert str(tiled(program, 1_000_000).module) == str(program.module)


@given(st.integers(1, 5), st.integers(1, 3), st.integers(0, 2), st.integers(1, 3), st.data())
def test_transposed_windows(
    kernel: int, stride: int, padding: int, dilation: int, data: st.DataObject
) -> None:
    """Exactly the windows that see one of the rows, if there are any."""
    span = dilation * (kernel - 1) + 1
    size = data.draw(st.integers(max(span - 2 * padding, 1), 20))
    windows = (size + 2 * padding - span) // stride + 1
    first = data.draw(st.integers(0, size - 1))
    rows = first, data.draw(st.integers(first + 1, size))
    low, end = Windows(stride, padding, span, windows).needed(rows)
    assert 0 <= low < end <= windows
    seeing = [
        window
        for window in range(windows)
        if window * stride - padding < rows[1] and window * stride - padding + span > rows[0]
    ]
    assert set(seeing) <= set(range(low, end))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scheme", "aim", "part", "extra"),
    [("full", 0.28, 0.3, 0.2), ("last_layers(4)", 0.35, 0.3, 0.025)],
)
def test_mobilenet_keeps_the_limit(scheme: str, aim: float, part: float, extra: float) -> None:
    """MobileNetV2 at 128x128: less than a third of the memory for a little arithmetic."""
    arenas: list[int] = []
    flops: list[int] = []
    for share in (None, aim):
        rows = None if share is None else int(share * arenas[0])
        options = TrainingOptions(scheme=Scheme.parse(scheme))
        lowered = compile_program(
            mobilenet_v2(1), options, get_target("host"), techniques=Techniques(row_bytes=rows)
        )
        entry = lowered.entries["train_step"]
        arenas.append(entry.arena_bytes)
        flops.append(sum(call.flops for call in entry.calls))
    assert arenas[1] <= part * arenas[0]
    assert flops[1] <= (1 + extra) * flops[0]
