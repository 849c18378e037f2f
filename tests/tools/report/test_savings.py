"""What techniques save, on a plan small enough to count by hand."""

from dataclasses import replace

import pytest
from xdsl.parser import Parser

from niwaki.backends.targets import get_target
from niwaki.ir.context import NiwakiContext
from niwaki.ir.dialects import plan
from niwaki.ir.lowered import Buffer, CallInfo, EntryPoint, Lowered, StorageEntry
from niwaki.ir.training import SGD, Scheme, TrainingOptions
from niwaki.passes.pipelines import Techniques, compile_program
from niwaki.passes.planner import Planner
from niwaki.tools.report.ablations import ablations
from niwaki.tools.report.contents import report_on
from niwaki.tools.report.savings import Ablation, savings
from tests import networks
from tests.conv_chains import conv_chain

#  call      0    1    2
#  a   64    x    x         then b in its place: x    x
#  mask 8         x    x    64 elements
PLAN = """
plan.program "train_step" arena 72 : i64 bound 72 : i64 {
  %x = plan.view "input" {offset = 0 : i64, index = 0 : i64} : memref<16xf32>
  %w = plan.view "state" {offset = 0 : i64, label = "w"} : memref<16xf32>
  %a = plan.view "arena" {offset = 0 : i64, label = "a"} : memref<16xf32>
  plan.call @conv2d_0(%x, %w, %x, %a) {reads = 3 : i64, writes = 1 : i64}
    : memref<16xf32>, memref<16xf32>, memref<16xf32>, memref<16xf32>
  %b = plan.view "arena" {offset = 0 : i64, label = "b"} : memref<16xf32>
  %m = plan.view "arena" {offset = 64 : i64, label = "m"} : memref<8xi8>
  plan.call @elementwise_0(%a, %b, %m)
    {reads = 1 : i64, writes = 2 : i64, in_place = array<i64: 0, 1>}
    : memref<16xf32>, memref<16xf32>, memref<8xi8>
  %n = plan.view "state" {offset = 0 : i64, label = "w"} : memref<16xf32>
  plan.call @conv2d_dw_0(%b, %m, %w, %n)
    {reads = 3 : i64, writes = 1 : i64, in_place = array<i64: 2, 3>}
    : memref<16xf32>, memref<8xi8>, memref<16xf32>, memref<16xf32>
}
"""
ENTRY = EntryPoint(
    "train_step",
    (),
    (),
    72,
    72,
    (Buffer("a", 0, 64, 0, 2), Buffer("m", 64, 8, 1, 2, mask_bits=64)),
    tuple(CallInfo(k, "", 5) for k in ("conv2d_0", "elementwise_0", "conv2d_dw_0")),
)
WEIGHT = StorageEntry("w", 0, (16,), "float32", (12,), "parameter")


def lowered(entry: EntryPoint = ENTRY) -> Lowered:
    module = Parser(NiwakiContext(), f"builtin.module {{ {PLAN} }}").parse_module()
    (step,) = module.body.block.ops
    assert isinstance(step, plan.ProgramOp)
    return Lowered((), (step,), (WEIGHT,), (), bytes(64), b"", {entry.name: entry}, "cortex-m7")


def program(of: Lowered) -> plan.ProgramOp:
    (op,) = of.programs
    assert isinstance(op, plan.ProgramOp)
    return op


def saved(of: Lowered, *ablated: Ablation) -> dict[str, tuple[int, int]]:
    found = savings(of, program(of), 8, ablated)
    assert {s.with_bytes for s in found} == {72}
    return {s.technique: (s.without_bytes, s.bytes) for s in found}


def test_each_technique() -> None:
    assert saved(lowered()) == {
        # 12 floats more during the last call, which computes and applies the gradient.
        "updates inside gradient kernels": (120, 48),
        "masks as bits": (64 + 256, 248),
        # During call 1 both a and b, and the mask.
        "results in place of operands": (136, 64),
        "reuse of addresses": (72, 0),
    }


def test_a_technique_without_use_is_left_out() -> None:
    calls = tuple(CallInfo(k, "", 5) for k in ("conv2d_0", "elementwise_0", "elementwise_1"))
    plain = replace(ENTRY, calls=calls, buffers=(Buffer("a", 0, 64, 0, 2),))
    assert set(saved(lowered(plain))) == {"results in place of operands", "reuse of addresses"}


def test_an_ablation_counts_where_it_changes_something() -> None:
    larger = replace(ENTRY, arena_bytes=100, buffers=(Buffer("a", 0, 100, 0, 2),))
    assert saved(lowered(), Ablation("fusion", "", lowered(larger).entries))["fusion"] == (100, 28)
    assert "fusion" not in saved(lowered(), Ablation("fusion", "", lowered().entries))


def test_bytes_of_a_call() -> None:
    report = report_on(lowered(), get_target("cortex-m7"), "t", [])
    (entry,) = report.entries
    # The first call reads one operand twice.
    assert [(c.bytes_read, c.bytes_written) for c in entry.calls] == [
        (128, 64),
        (64, 72),
        (136, 64),
    ]
    assert [c.op for c in entry.calls] == ["conv2d", "elementwise", "conv2d_dw"]
    assert (entry.peak, entry.flops) == (1, 15)
    assert report.state_bytes == 64


@pytest.mark.parametrize("scheme", [Scheme.full(), Scheme.last_layers(2)])
def test_ablations_compile(scheme: Scheme) -> None:
    target = get_target("cortex-m7")
    options = TrainingOptions("cross_entropy", SGD(lr=0.1), scheme)
    sparse = compile_program(networks.lenet(2), options, target)
    planner = Planner(networks.lenet(2), options, target)
    found = {a.technique: a.entries for a in ablations(planner, planner.techniques)}
    assert ("sparse update" in found) == (scheme != Scheme.full())
    arena = sparse.entries["train_step"].arena_bytes
    if scheme != Scheme.full():
        assert found["sparse update"]["train_step"].arena_bytes > arena
    unfused = found["fusion"]["train_step"]
    assert len(unfused.calls) > len(sparse.entries["train_step"].calls)
    assert {e.calls for e in found["order of least peak"].values()}


def test_every_technique_in_use_is_left_out_once() -> None:
    planner = Planner(conv_chain(2, 4), TrainingOptions(), get_target("x86-64"))
    arena = planner.plan(Techniques()).program.arena_bytes
    used = planner.plan(Techniques(2, recompute_bytes=arena // 3))
    without = {a.technique: a.entries["train_step"] for a in ablations(planner, used.techniques)}
    assert "strips of rows" not in without
    for technique in ("2 micro-batches", "recomputation"):
        assert without[technique].arena_bytes > used.program.arena_bytes
    alone = planner.plan(Techniques(2)).program.entries["train_step"]
    assert without["recomputation"] == alone


def test_an_empty_module_has_an_empty_report() -> None:
    empty = Lowered((), (), (), (), b"", b"", {}, "cortex-m7")
    assert report_on(empty, get_target("cortex-m7"), "t", []).entries == ()
