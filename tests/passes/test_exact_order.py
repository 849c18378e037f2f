"""The exact order search against dynamic programming over all sets of nodes that can have run."""

import numpy as np
import pytest

from niwaki.passes.orders.bound import lower_bound
from niwaki.passes.orders.exact import exact_order
from niwaki.passes.orders.greedy import best_greedy_order
from niwaki.passes.orders.problem import (
    Node,
    ScheduleProblem,
    check_order,
    live_bytes,
    readers_of,
)


def random_problem(random: np.random.Generator, count: int) -> ScheduleProblem:
    """A DAG with shared operands, several results, in-place pairs, workspace, bare edges."""
    nodes: list[Node] = []
    sizes: list[int] = []
    writer: list[int] = []
    for number in range(count):
        read = sorted(set(random.integers(0, len(sizes), random.integers(0, 4)))) if sizes else []
        writes = range(len(sizes), len(sizes) + int(random.integers(0, 3)))
        size = int(random.integers(1, 6))
        predecessors = {writer[r] for r in read}
        if number and random.random() < 0.2:
            # Reads what the other one overwrites: no buffer goes along this edge.
            predecessors.add(int(random.integers(0, number)))
        pairs = [(int(r), w) for r in read for w in writes if sizes[r] == size]
        nodes.append(
            Node(
                tuple(sorted(predecessors)),
                tuple(int(r) for r in read),
                tuple(writes),
                tuple(pairs) if random.random() < 0.5 else (),
                int(random.integers(0, 5)) if random.random() < 0.3 else 0,
            )
        )
        sizes += [size] * len(writes)
        writer += [number] * len(writes)
    return ScheduleProblem(tuple(nodes), tuple(sizes))


def optimal_peak(problem: ScheduleProblem) -> int:
    """The least peak, by the definition: what a step needs depends on the set of nodes before."""
    readers = readers_of(problem)
    writer = {b: number for number, node in enumerate(problem.nodes) for b in node.writes}

    def need(number: int, done: int) -> int:
        node = problem.nodes[number]
        live = [
            b
            for b, w in writer.items()
            if done >> w & 1 and not all(done >> r & 1 for r in readers[b])
        ]
        need = sum(problem.sizes[b] for b in (*live, *node.writes)) + node.workspace
        shared: set[tuple[str, int]] = set()
        for read, written in node.in_place:
            pair = {("read", read), ("written", written)}
            dies = all((done | 1 << number) >> r & 1 for r in readers[read])
            if dies and not pair & shared:
                shared |= pair
                need -= problem.sizes[read]
        return need

    peaks = {0: 0}
    for _ in problem.nodes:
        longer: dict[int, int] = {}
        for done, peak in peaks.items():
            for number, node in enumerate(problem.nodes):
                ready = all(done >> p & 1 for p in node.predecessors)
                if ready and not done >> number & 1:
                    key, worst = done | 1 << number, max(peak, need(number, done))
                    longer[key] = min(worst, longer.get(key, worst))
        peaks = longer
    (peak,) = peaks.values()
    return peak


@pytest.mark.parametrize("seed", range(8))
def test_agrees_with_dynamic_programming(seed: int) -> None:
    random = np.random.default_rng(seed)
    for _ in range(300):
        problem = random_problem(random, int(random.integers(1, 9)))
        optimum = optimal_peak(problem)
        source = range(len(problem.nodes))
        greedy = best_greedy_order(problem)
        for start, bound in ((greedy, lower_bound(problem, greedy)), (source, 0)):
            assert bound <= optimum
            best = exact_order(problem, start, bound, 1_000_000)
            check_order(problem, best.order)
            assert live_bytes(problem, best.order).peak == best.peak == best.bound == optimum
            assert best.proven


def test_more_search_nodes_are_never_worse_and_none_keeps_the_start() -> None:
    random = np.random.default_rng(3)
    gained = 0
    for _ in range(10):
        problem = random_problem(random, 40)
        start = range(40)
        peak = live_bytes(problem, start).peak
        previous = exact_order(problem, start, 0, 0)
        assert previous.order == tuple(start)
        assert (previous.peak, previous.bound, previous.nodes) == (peak, 0, 0)
        for budget in (10, 50, 100, 300, 1000, 3000, 10_000):
            best = exact_order(problem, start, 0, budget)
            check_order(problem, best.order)
            assert live_bytes(problem, best.order).peak == best.peak
            assert best.nodes <= budget
            assert previous.bound <= best.bound <= best.peak <= previous.peak
            previous = best
        gained += previous.peak < peak
    assert gained > 5


def test_the_same_problem_gives_the_same_order() -> None:
    problem = random_problem(np.random.default_rng(5), 60)
    first, second = (exact_order(problem, range(60), 0, 2000) for _ in range(2))
    assert first == second


def test_write_after_read_edges_bind() -> None:
    # Node 3 frees what node 0 makes; where it overwrites what node 2 reads, it has to wait.
    nodes = [Node((), (), (0,)), Node((0,), (), (1,)), Node((1,), (1,)), Node((0,), (0,))]
    waiting = [*nodes[:3], Node((0, 2), (0,))]
    for update, peak, order in ((nodes, 100, (0, 3, 1, 2)), (waiting, 110, (0, 1, 2, 3))):
        problem = ScheduleProblem(tuple(update), (10, 100))
        best = exact_order(problem, range(4), 0, 100)
        assert (best.peak, best.order, best.proven) == (peak, order, True)


def test_ten_thousand_nodes_in_a_chain_need_no_recursion() -> None:
    count = 10_000
    nodes = [Node((), (), (0,))]
    nodes += [Node((i - 1,), (i - 1,), (i,)) for i in range(1, count)]
    problem = ScheduleProblem(tuple(nodes), (1,) * count)
    best = exact_order(problem, range(count), 0, 200_000)
    assert (best.peak, best.proven) == (2, True)
