"""Puts every gradient product that ends in an update behind the other readers of its parameter.

Then the update can be part of the product's kernel and write the parameter in place: the whole
gradient never exists.
"""

import heapq

from xdsl.ir import Block, Operation

from niwaki.passes.dependences import Dependences, Update, find_updates


def order_updates(block: Block) -> None:
    """Reorders `block`: each update in one piece, its assigns at the end; the rest stays."""
    updates = find_updates(block)
    dependences = Dependences.of(block, updates)
    keys = _keys(dependences, updates)
    order = _topological_order(dependences, keys)
    for op in order:
        op.detach()
    block.add_ops(order)


def _keys(dependences: Dependences, updates: list[Update]) -> list[tuple[int, int, int]]:
    keys = [(i, 0, i) for i in range(len(dependences.ops))]
    for update in updates:
        start = dependences.position[update.anchor]
        for op in update.members:
            keys[dependences.position[op]] = (start, 1, dependences.position[op])
        for op in update.assigns:
            keys[dependences.position[op]] = (start, 2, dependences.position[op])
    return keys


def _topological_order(
    dependences: Dependences, keys: list[tuple[int, int, int]]
) -> list[Operation]:
    *body, terminator = range(len(dependences.ops))
    waiting = [len(p) for p in dependences.predecessors]
    ready = [keys[i] for i in body if waiting[i] == 0]
    heapq.heapify(ready)
    order: list[Operation] = []
    while ready:
        position = heapq.heappop(ready)[2]
        order.append(dependences.ops[position])
        for successor in dependences.successors[position]:
            waiting[successor] -= 1
            if waiting[successor] == 0 and successor != terminator:
                heapq.heappush(ready, keys[successor])
    order.append(dependences.ops[terminator])
    return order
