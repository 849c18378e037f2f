"""The backward pass holds what the updates need, and nothing else: proofs by reachability."""

import networkx as nx
import pytest
from xdsl.dialects.func import ReturnOp
from xdsl.ir import Block, Operation, OpResult, SSAValue

from niwaki.ir.dialects import nn, train
from niwaki.ir.dialects.tensor_op import i1, shape_of, type_of
from niwaki.ir.program import Program
from niwaki.ir.training import SGD, Adam, Optimizer, Scheme
from niwaki.passes.dce import DcePass
from tests import networks
from tests.training_programs import apply, training_program

SCHEMES: dict[str, Scheme] = {
    "full": Scheme.full(),
    "bias": Scheme.bias(),
    "head": Scheme.head_only(),
    "last_layers": Scheme.last_layers(4),
    "channels": Scheme.channels({30: 1, 39: 0.5, 40: 0.25, 48: 0.125}, biases=12),
    "weights-only": Scheme.channels({12: 0.5, 31: 1}, biases=0),
}

NETWORKS = {
    "lenet": lambda: networks.lenet(1),
    "mobilenet_v2": lambda: networks.mobilenet_v2(1, 64),
    "resnet18": lambda: networks.resnet18(2, 64, batch_norm="training", width=8),
    "resnet18-frozen": lambda: networks.resnet18(1, 64, batch_norm="frozen", width=8),
}

CASES = [
    (network, scheme)
    for network in NETWORKS
    for scheme in SCHEMES
    if network == "mobilenet_v2" or scheme in ("full", "bias", "head", "last_layers")
]


def _graph(block: Block) -> nx.DiGraph:
    """Edges from what computes a value to what reads it."""
    graph = nx.DiGraph()
    for op in block.ops:
        graph.add_node(op)
        for operand in op.operands:
            graph.add_edge(operand.owner, op)
    return graph


def _training(network: str, scheme: str, optimizer: Optimizer | None = None) -> Program:
    return training_program(NETWORKS[network](), optimizer or SGD(0.1, 0.9), SCHEMES[scheme])


def _step(program: Program) -> tuple[list[Operation], Operation]:
    """The operations of @train_step, and the one that computes the loss."""
    ops = list(program.function("train_step").body.block.ops)
    loss = ops[-1].operands[0].owner
    assert isinstance(loss, Operation)
    return ops, loss


@pytest.mark.parametrize(("network", "scheme"), CASES)
def test_every_gradient_op_reaches_an_update(network: str, scheme: str) -> None:
    program = _training(network, scheme, Adam(0.1, clip_norm=1.0) if network == "lenet" else None)
    ops, loss = _step(program)
    graph = _graph(program.function("train_step").body.block)
    needed: set[object] = set()
    for write in (op for op in ops if isinstance(op, train.WRITES)):
        needed |= {write, *nx.ancestors(graph, write)}
    for_loss = {loss, *nx.ancestors(graph, loss)}
    useless = [op for op in ops if op not in needed | for_loss and not isinstance(op, ReturnOp)]
    assert useless == []


@pytest.mark.parametrize(("network", "scheme"), CASES)
def test_after_dce_every_op_reaches_an_effect(network: str, scheme: str) -> None:
    program = apply(_training(network, scheme), DcePass())
    for name in ("train_step", "infer", "evaluate"):
        block = program.function(name).body.block
        graph = _graph(block)
        reached: set[object] = set()
        for sink in (op for op in block.ops if isinstance(op, (*train.WRITES, ReturnOp))):
            reached |= {sink, *nx.ancestors(graph, sink)}
        assert [op.name for op in block.ops if op not in reached] == []


@pytest.mark.parametrize(("network", "scheme"), CASES)
def test_contractions_have_the_products_that_updates_need(network: str, scheme: str) -> None:
    """A weight gradient where the weight is updated; an input gradient where an update is above."""
    program = _training(network, scheme)
    ops, loss = _step(program)
    graph = _graph(program.function("train_step").body.block)
    updated = [op for op in ops if isinstance(op, train.ParameterOp) and op.update_box is not None]
    above = set(updated).union(*(nx.descendants(graph, op) for op in updated))
    forward = ops[: ops.index(loss)]

    expected = {"nn.conv2d_dw": 0, "nn.conv2d_dx": 0, "nn.matmul": 0}
    for op in forward:
        if isinstance(op, nn.Conv2dOp):
            expected["nn.conv2d_dw"] += op.w.owner in updated
            expected["nn.conv2d_dx"] += op.x.owner in above
        elif isinstance(op, nn.MatmulOp):
            expected["nn.matmul"] += (op.b.owner in updated) + (op.a.owner in above)
    backward = [op.name for op in ops[ops.index(loss) :]]
    assert {name: backward.count(name) for name in expected} == expected


def _kept(program: Program) -> list[SSAValue]:
    """The computed forward values that the backward pass reads."""
    ops, loss = _step(program)
    forward = set(ops[: ops.index(loss)])
    kept: dict[SSAValue, None] = {}
    for op in ops[ops.index(loss) + 1 :]:
        for operand in op.operands:
            if (
                isinstance(operand, OpResult)
                and operand.op in forward
                and not isinstance(operand.op, train.Storage | nn.ConstantOp)
            ):
                kept[operand] = None
    return list(kept)


def test_bias_update_keeps_masks_only() -> None:
    kept = _kept(_training("mobilenet_v2", "bias"))
    logits_and_head_input = {(1, 10), (1, 112)}
    assert {shape_of(v) for v in kept if type_of(v).element_type != i1} == logits_and_head_input
    assert sum(type_of(v).element_type == i1 for v in kept) == 34  # every relu6


def test_no_mask_is_kept_beside_its_activation() -> None:
    """Every relu6 of the network feeds a convolution whose weight gradient reads it anyway."""
    kept = _kept(_training("mobilenet_v2", "full"))
    assert not [v for v in kept if type_of(v).element_type == i1]


def test_head_update_keeps_the_head_input_only() -> None:
    assert [shape_of(v) for v in _kept(_training("mobilenet_v2", "head"))] == [(1, 10), (1, 112)]


def test_channel_update_keeps_the_leading_channels_only() -> None:
    program = training_program(
        networks.mobilenet_v2(1, 64), SGD(0.1), Scheme.channels({48: 0.5, 49: 0.25}, biases=0)
    )
    kept = [v for v in _kept(program) if len(shape_of(v)) == 4]
    # The later layer's comes first.
    slices = [shape_of(v) for v in kept if isinstance(v.owner, nn.SliceOp)]
    assert slices == [(1, 2, 2, 84), (1, 2, 2, 28)]
    assert all(type_of(v).element_type == i1 for v in kept if not isinstance(v.owner, nn.SliceOp))


def test_updates_come_right_after_their_gradients() -> None:
    program = _training("lenet", "full")
    ops, _ = _step(program)
    for index, op in enumerate(ops):
        if isinstance(op, train.SgdOp):
            reads = [use.operation for use in op.parameter.uses if use.operation is not op]
            latest = max(ops.index(o) for o in (*reads, op.gradient.owner))
            between = ops[latest + 1 : index]
            assert all(isinstance(o, train.StateOp | train.SgdOp) for o in between)
