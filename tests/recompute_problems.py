"""Small recomputation problems, and their exact optimum by exhaustive search."""

import heapq
from collections.abc import Sequence

import numpy as np

from niwaki.passes.orders.problem import Node, ScheduleProblem
from niwaki.passes.recomputation.problem import RecomputeProblem


def training_chain(sizes: Sequence[int], costs: Sequence[int]) -> RecomputeProblem:
    """Forward, backward and updates of a chain: value i has `sizes[i]` bytes, takes `costs[i]`."""
    skips: list[tuple[int, ...]] = [(i - 1,) if i else () for i in range(len(sizes))]
    return training_graph(sizes, costs, skips)


def training_graph(
    sizes: Sequence[int], costs: Sequence[int], reads: Sequence[tuple[int, ...]]
) -> RecomputeProblem:
    """As `training_chain`; forward node i reads the values `reads[i]`, all earlier ones.

    The backward node of i reads the gradient of value i + 1, which has the size of that value,
    and what i read; the update reads the same and writes nothing.
    """
    count = len(sizes)
    nodes = [Node(tuple(r), tuple(r), (i,)) for i, r in enumerate(reads)]
    all_costs = list(costs)
    buffers = list(sizes)

    def add(node: Node, cost: int) -> int:
        nodes.append(node)
        all_costs.append(cost)
        return len(nodes) - 1

    gradient = add(Node((count - 1,), (count - 1,), (count,)), 1)
    buffers.append(sizes[-1])
    for i in range(count - 1, 0, -1):
        needed = (*reads[i], len(buffers) - 1)
        add(Node((*reads[i], gradient), needed), costs[i])
        if i > 1:
            gradient = add(Node((*reads[i], gradient), needed, (len(buffers),)), costs[i])
            buffers.append(sizes[i - 1])
    problem = ScheduleProblem(tuple(nodes), tuple(buffers))
    repeatable = tuple(bool(node.writes) for node in nodes)
    return RecomputeProblem(problem, tuple(all_costs), repeatable, tuple(() for _ in nodes))


def random_chain(random: np.random.Generator, layers: int) -> RecomputeProblem:
    """A chain with random sizes and costs."""
    sizes, costs = random.integers(1, 20, layers), random.integers(1, 20, layers)
    return training_chain(sizes.tolist(), costs.tolist())


def random_graph(random: np.random.Generator, layers: int) -> RecomputeProblem:
    """A random forward graph; each node reads its predecessor and perhaps another value."""
    sizes, costs = random.integers(1, 20, layers), random.integers(1, 20, layers)
    reads: list[tuple[int, ...]] = [()]
    for i in range(1, layers):
        other = int(random.integers(0, 2 * i))
        reads.append((other, i - 1) if other < i - 1 else (i - 1,))
    return training_graph(sizes.tolist(), costs.tolist(), reads)


def source_order(problem: RecomputeProblem) -> list[int]:
    """Every node once."""
    return list(range(len(problem.costs)))


def least_cost(problem: RecomputeProblem, budget: int) -> int | None:
    """The least cost of any runs within `budget` bytes; None if there are none.

    Uniform-cost search over the sets of values in memory and of effects done.
    """
    nodes, sizes = problem.schedule.nodes, problem.schedule.sizes
    effects = [n for n in range(len(nodes)) if not problem.repeatable[n]]
    goal = sum(1 << n for n in effects)
    reads = [sum(1 << b for b in node.reads) for node in nodes]
    writes = [sum(1 << b for b in node.writes) for node in nodes]

    def size(held: int) -> int:
        return sum(s for b, s in enumerate(sizes) if held >> b & 1)

    best: dict[tuple[int, int], int] = {(0, 0): 0}
    queue = [(0, 0, 0)]
    while queue:
        cost, held, done = heapq.heappop(queue)
        if done == goal:
            return cost
        if best[held, done] < cost:
            continue
        ready = next((n for n in effects if not (done >> n & 1 or reads[n] & ~held)), None)
        if ready is not None and not writes[ready]:
            # It costs the same whenever it runs, and takes no memory.
            runnable, dropped = [ready], []
        else:
            runnable, dropped = range(len(nodes)), [b for b in range(len(sizes)) if held >> b & 1]
        successors = [(cost, held & ~(1 << b), done) for b in dropped]
        for n in runnable:
            if reads[n] & ~held or (done >> n & 1) or (writes[n] and not writes[n] & ~held):
                continue
            after = held | writes[n]
            if size(after) <= budget:
                effect = 0 if problem.repeatable[n] else 1 << n
                successors.append((cost + problem.costs[n], after, done | effect))
        for successor in successors:
            state = successor[1:]
            if successor[0] < best.get(state, successor[0] + 1):
                best[state] = successor[0]
                heapq.heappush(queue, successor)
    return None


def least_budget(problem: RecomputeProblem) -> int:
    """The fewest bytes within which any runs exist."""
    low, high = 0, sum(problem.schedule.sizes)
    while low < high:
        middle = (low + high) // 2
        if least_cost(problem, middle) is None:
            low = middle + 1
        else:
            high = middle
    return low
