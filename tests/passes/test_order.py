"""Live bytes, the bound on them and the greedy order, against exhaustive search on small graphs."""

from itertools import permutations
from typing import TypeAlias

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from niwaki.passes.orders.bound import lower_bound
from niwaki.passes.orders.greedy import best_greedy_order, greedy_order
from niwaki.passes.orders.problem import (
    Node,
    ScheduleProblem,
    check_order,
    live_bytes,
)

Spec: TypeAlias = list[tuple[list[int], int, int, bool, int]]

NODE = st.tuples(
    st.lists(st.integers(0, 20), max_size=3),  # buffers read, modulo those that exist
    st.integers(0, 2),  # buffers written
    st.integers(1, 4),  # their size, shared so that in-place pairs occur
    st.booleans(),  # whether it works in place
    st.integers(0, 3),  # workspace
)


def problem_of(spec: Spec) -> ScheduleProblem:
    """A random DAG; one extra edge per node that reads nothing keeps some orders out."""
    nodes: list[Node] = []
    sizes: list[int] = []
    writer: list[int] = []
    for number, (reads, writes, size, in_place, workspace) in enumerate(spec):
        read = tuple(sorted({r % len(sizes) for r in reads})) if sizes else ()
        written = tuple(range(len(sizes), len(sizes) + writes))
        predecessors = {writer[r] for r in read}
        if not read and number % 3 == 2:
            predecessors.add(number - 1)
        pairs = tuple((r, w) for r in read for w in written if in_place and sizes[r] == size)
        nodes.append(Node(tuple(sorted(predecessors)), read, written, pairs, workspace))
        sizes += [size] * writes
        writer += [number] * writes
    return ScheduleProblem(tuple(nodes), tuple(sizes))


def slow_peak(problem: ScheduleProblem, order: tuple[int, ...]) -> int:
    """The peak from the definition: each buffer's first and last node, one column per node."""
    position = {v: i for i, v in enumerate(order)}
    load = np.array([problem.nodes[v].workspace for v in order])
    last: dict[int, int] = {}
    for v, node in enumerate(problem.nodes):
        for b in (*node.reads, *node.writes):
            last[b] = max(last.get(b, 0), position[v])
    for v, node in enumerate(problem.nodes):
        for b in node.writes:
            load[position[v] : last[b] + 1] += problem.sizes[b]
    for v, node in enumerate(problem.nodes):
        used: set[int] = set()
        for a, b in node.in_place:
            if last[a] == position[v] and not {a, ~b} & used:
                used |= {a, ~b}
                load[position[v]] -= problem.sizes[a]
    return int(load.max(initial=0))


def orders(problem: ScheduleProblem) -> list[tuple[int, ...]]:
    """All topological orders."""

    def valid(order: tuple[int, ...]) -> bool:
        position = {v: i for i, v in enumerate(order)}
        return all(
            position[p] < position[v]
            for v, node in enumerate(problem.nodes)
            for p in node.predecessors
        )

    return [o for o in permutations(range(len(problem.nodes))) if valid(o)]


@given(st.lists(NODE, max_size=6))
def test_live_bytes_and_bounds_against_all_orders(spec: Spec) -> None:
    problem = problem_of(spec)
    peaks = {order: slow_peak(problem, order) for order in orders(problem)}
    for order, peak in peaks.items():
        assert live_bytes(problem, order).peak == peak
    optimum = min(peaks.values())
    assert lower_bound(problem, greedy_order(problem)) <= optimum


@settings(max_examples=300)
@given(st.lists(NODE, max_size=40))
def test_greedy_is_a_valid_order_and_never_worse_than_the_source(spec: Spec) -> None:
    problem = problem_of(spec)
    for order in (greedy_order(problem), best_greedy_order(problem)):
        check_order(problem, order)
    source = live_bytes(problem, range(len(problem.nodes))).peak
    best = live_bytes(problem, best_greedy_order(problem)).peak
    assert lower_bound(problem, greedy_order(problem)) <= best <= source


def test_greedy_is_near_the_optimum_on_small_graphs() -> None:
    random = np.random.default_rng(7)
    ratios: list[float] = []
    for _ in range(60):
        spec: Spec = [
            (random.integers(0, 20, 2).tolist(), 1, int(random.integers(1, 5)), True, 0)
            for _ in range(7)
        ]
        problem = problem_of(spec)
        optimum = min(live_bytes(problem, order).peak for order in orders(problem))
        ratios.append(live_bytes(problem, best_greedy_order(problem)).peak / optimum)
    assert max(ratios) <= 1.6
    assert np.mean(ratios) <= 1.05


def training_chain(layers: int) -> ScheduleProblem:
    """Forward, backward and updates of a chain, the updates last as autodiff leaves them."""
    nodes: list[Node] = []
    sizes: list[int] = []

    def add(predecessors: list[int], reads: list[int], size: int) -> int:
        nodes.append(Node(tuple(predecessors), tuple(reads), (len(sizes),) if size else ()))
        if size:
            sizes.append(size)
        return len(nodes) - 1

    forward = [add([], [], 100)]
    for i in range(1, layers):
        forward.append(add([i - 1], [i - 1], 100))
    dy, gradients = add([layers - 1], [layers - 1], 100), list[int]()
    for i in reversed(range(layers - 1)):
        gradients.append(add([dy, forward[i]], [dy, forward[i]], 130))
        dy = add([dy], [dy], 100) if i else dy
    for gradient in gradients:
        add([gradient], [gradient], 0)
    return ScheduleProblem(tuple(nodes), tuple(sizes))


def test_updates_run_the_moment_their_gradient_is_complete() -> None:
    problem = training_chain(10)
    order = greedy_order(problem)
    position = {v: i for i, v in enumerate(order)}
    for number, node in enumerate(problem.nodes):
        if not node.writes:
            assert position[number] == position[node.predecessors[0]] + 1
    greedy, source = (live_bytes(problem, o).peak for o in (order, range(len(order))))
    assert greedy < source
    assert greedy <= 1.03 * lower_bound(problem, order)


def test_bound_of_large_buffers() -> None:
    nodes = (Node(writes=(0,)), Node((0,), (0,), (1,)), Node((1,), (1,)))
    assert lower_bound(ScheduleProblem(nodes, (1 << 40, 300)), range(3)) == (1 << 40) + 300


def test_thousands_of_nodes() -> None:
    problem = training_chain(3000)
    order = greedy_order(problem)
    check_order(problem, order)
    activations_and_one_gradient = 3000 * 100 + 130
    assert live_bytes(problem, order).peak == activations_and_one_gradient


def test_an_incomplete_or_invalid_order_is_refused() -> None:
    problem = training_chain(3)
    with pytest.raises(ValueError, match="every node once"):
        check_order(problem, [0, 1])
    with pytest.raises(ValueError, match="before its predecessor"):
        check_order(problem, [1, 0, *range(2, len(problem.nodes))])
