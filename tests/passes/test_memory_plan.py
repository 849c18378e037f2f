"""Memory by class: the same arena as compiling finds, and bytes that follow from the types."""

from dataclasses import replace

import pytest
from xdsl.dialects.builtin import bf16, f16

from niwaki.frontends.decoder_config import DecoderConfig, LowRank, decoder
from niwaki.ir.program import Program
from niwaki.ir.training import SGD, Adam, Optimizer, Scheme, TrainingOptions
from niwaki.passes.memory_plan import CLASSES, MemoryPlan, plan_memory
from niwaki.passes.pipelines import Techniques, compile_program
from tests.compiled import HOST
from tests.decoders import CONFIG, Decoder
from tests.networks import lenet

BF16 = replace(CONFIG, element=bf16)
WEIGHTS = 2 * 50 * 32 + 32 + 2 * (2 * 32 + 2 * 32 * 32 + 2 * 16 * 32 + 3 * 48 * 32)
"""Elements of the weights of CONFIG."""
FIXED = 2 * 16 * 4 + 2 * 16 * 16
"""Elements of the tables of cosines, sines and the mask, at 16 tokens."""


def _plan(
    config: DecoderConfig = BF16,
    optimizer: Optimizer | None = None,
    adapters: LowRank | None = None,
    sequence: int = 16,
) -> MemoryPlan:
    options = TrainingOptions(optimizer=SGD(lr=0.1) if optimizer is None else optimizer)
    return plan_memory(decoder(config, 1, sequence, adapters=adapters), options, HOST)


@pytest.mark.parametrize(
    "program",
    [lenet(2), decoder(CONFIG, 1, 16, Decoder(CONFIG).arrays())],
    ids=["lenet", "decoder"],
)
@pytest.mark.parametrize("update", ["full", "head"])
def test_the_arena_is_that_of_compiling(program: Program, update: str) -> None:
    options = TrainingOptions(optimizer=SGD(0.1, momentum=0.9), scheme=Scheme.parse(update))
    plan = plan_memory(program, options, HOST)
    entry = compile_program(program, options, HOST).entries["train_step"]
    assert plan.arena_bytes == entry.arena_bytes
    assert plan.calls == len(entry.calls)
    live = sum(plan.bytes[kind] for kind in ("activations", "gradients", "workspace"))
    assert live == sum(holder.bytes for holder in plan.holders)
    padding = HOST.alignment * len(plan.holders)
    assert entry.bound_bytes - padding < live <= entry.bound_bytes


def test_half_precision_of_either_kind_takes_the_same() -> None:
    assert _plan(replace(CONFIG, element=f16)).bytes == _plan().bytes


def test_weights_take_what_their_type_takes() -> None:
    narrow, wide = _plan(), _plan(CONFIG)
    assert narrow.trained_bytes == 2 * WEIGHTS
    assert wide.trained_bytes == 4 * WEIGHTS
    assert 0 < narrow.bytes["weights"] - 2 * (WEIGHTS + FIXED) < 64  # scalar constants
    assert set(narrow.bytes) == set(CLASSES)


def test_activations_in_bf16_take_half() -> None:
    narrow, wide = _plan(), _plan(CONFIG)
    assert 0.4 < narrow.bytes["activations"] / wide.bytes["activations"] < 0.55


@pytest.mark.parametrize(
    ("optimizer", "states"), [(SGD(0.1), 0), (SGD(0.1, momentum=0.9), 1), (Adam(0.1), 2)]
)
def test_the_optimizer_keeps_its_states(optimizer: Optimizer, states: int) -> None:
    plan = _plan(optimizer=optimizer)
    counters = 4 if states == 2 else 0
    assert plan.bytes["optimizer"] == states * plan.trained_bytes + counters
    kinds = ("weights", "optimizer")
    assert plan.total_bytes == plan.arena_bytes + sum(plan.bytes[k] for k in kinds)


def test_whole_gradients_exist_only_for_the_norm_over_all_of_them() -> None:
    largest = 2 * 50 * 32
    """Of the embedding: its gradient is a table, whatever the optimizer."""
    assert _plan(sequence=2).bytes["gradients"] < 2 * largest
    clipped = _plan(optimizer=SGD(0.1, clip_norm=1.0), sequence=2)
    assert clipped.bytes["gradients"] >= 2 * WEIGHTS


def test_adapters_train_little_and_keep_less() -> None:
    full, adapted = _plan(), _plan(adapters=LowRank(2))
    assert adapted.trained_bytes == 2 * 2 * ((32 + 32) + (32 + 16)) * 2
    assert adapted.bytes["weights"] == full.bytes["weights"] + adapted.trained_bytes
    assert adapted.bytes["activations"] < full.bytes["activations"]


def test_activations_of_fewer_bits_are_activations() -> None:
    program = decoder(CONFIG, 1, 16)
    exact, rounded = (
        plan_memory(program, TrainingOptions(), HOST, techniques=Techniques(stash=stash))
        for stash in (None, "bf16")
    )
    assert rounded.bytes["activations"] < 0.9 * exact.bytes["activations"]
    assert rounded.bytes["gradients"] < 0.1 * rounded.bytes["activations"]


def test_the_program_stays() -> None:
    program = decoder(BF16, 1, 16)
    before = str(program.module)
    plan_memory(program, TrainingOptions(), HOST)
    assert str(program.module) == before
    assert len(program.weights) == 0
