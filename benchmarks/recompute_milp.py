"""The least cost of recomputation by Checkmate's mixed integer program, as a reference.

Jain et al. 2020, "Checkmate: breaking the memory wall with optimal tensor rematerialization":
stage t runs node t for the first time, perhaps after running some earlier ones again.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

from niwaki.passes.recomputation.problem import RecomputeProblem


def without_sharing(problem: RecomputeProblem) -> RecomputeProblem:
    """`problem` as Checkmate sees it: without workspaces and memory shared in place."""
    nodes = tuple(replace(n, in_place=(), workspace=0) for n in problem.schedule.nodes)
    return replace(problem, schedule=replace(problem.schedule, nodes=nodes))


def optimum(
    problem: RecomputeProblem, order: Sequence[int], budget: int, cutoff: int, seconds: float
) -> float | None:
    """The least cost of runs within `budget` bytes whose first runs are in `order`.

    Infinite if none cost at most `cutoff`; None if the solver needs more than `seconds`. Some
    plans that make only one result of a node that has several need less than this model says.
    """
    return _Model(problem, order, budget, cutoff).solve(seconds)


_OPTIMAL, _INFEASIBLE = 0, 2
"""What `scipy.optimize.milp` says."""


class _Model:
    """Rows of coefficients, and their limits, over variables for what each stage does.

    Those are: which nodes it runs, which buffers it is given, which ones it frees behind which
    run, and the bytes live while each run works. Bytes count in parts of the budget, costs in
    parts of what one run of everything costs.
    """

    def __init__(
        self, problem: RecomputeProblem, order: Sequence[int], budget: int, cutoff: int
    ) -> None:
        self.problem, self.order, self.count = problem, order, len(order)
        position = {node: k for k, node in enumerate(order)}
        nodes = problem.schedule.nodes
        self.sizes = np.array(problem.schedule.sizes) / budget
        self.reads = [nodes[n].reads for n in order]
        self.writes = [nodes[n].writes for n in order]
        self.maker = {b: k for k, written in enumerate(self.writes) for b in written}
        self.users: dict[int, list[int]] = {b: [] for b in self.maker}
        for k, read in enumerate(self.reads):
            for b in read:
                self.users[b].append(k)
        self.deadline = [
            min((position[o] for o in problem.deadlines[n]), default=self.count) for n in order
        ]
        self.total = problem.cost(order)
        self.lower: list[float] = []
        self.upper: list[float] = []
        self.objective: list[float] = []
        self.integer: list[int] = []
        self.rows: list[tuple[dict[int, float], float, float]] = []
        self._variables()
        for stage in range(self.count):
            self._flow(stage)
            self._memory(stage)
        costs = {i: c for i, c in enumerate(self.objective) if c}
        self.rows.append((costs, -np.inf, cutoff / self.total + 1e-6))

    def solve(self, seconds: float) -> float | None:
        """See `optimum`."""
        entries = [(r, c, v) for r, row in enumerate(self.rows) for c, v in row[0].items()]
        rows, columns, values = zip(*entries, strict=True)
        matrix = csr_array((values, (rows, columns)), shape=(len(self.rows), len(self.upper)))
        low, high = np.array([row[1:] for row in self.rows]).T
        result = milp(
            np.array(self.objective),
            integrality=np.array(self.integer),
            bounds=Bounds(np.array(self.lower), np.array(self.upper)),  # pyright: ignore[reportArgumentType]
            constraints=LinearConstraint(matrix, low, high),
            options={"time_limit": seconds, "mip_rel_gap": 1e-4},
        )
        if result.status == _INFEASIBLE:
            return np.inf
        return float(result.fun) * self.total if result.status == _OPTIMAL else None

    def _variable(self, upper: float, integer: bool, cost: float = 0.0, lower: float = 0.0) -> int:
        self.lower.append(lower)
        self.upper.append(upper)
        self.objective.append(cost)
        self.integer.append(int(integer))
        return len(self.lower) - 1

    def _variables(self) -> None:
        count = self.count
        self.run: dict[tuple[int, int], int] = {}
        self.kept: dict[tuple[int, int], int] = {}
        for t in range(count):
            for k in range(t + 1):
                again = self.problem.repeatable[self.order[k]] and t <= self.deadline[k]
                cost = self.problem.costs[self.order[k]] / self.total
                allowed = float(k == t or again)
                self.run[t, k] = self._variable(allowed, True, cost, float(k == t))
            for b, maker in self.maker.items():
                if maker < t:
                    self.kept[t, b] = self._variable(1.0, True)

    def _flow(self, t: int) -> None:
        for k in range(t + 1):
            for b in self.reads[k]:
                row = {self.run[t, k]: 1.0, self.run[t, self.maker[b]]: -1.0}
                if (t, b) in self.kept:
                    row[self.kept[t, b]] = -1.0
                self.rows.append((row, -np.inf, 0.0))
        for b, maker in self.maker.items():
            if (t, b) in self.kept:
                both = {self.kept[t, b]: 1.0, self.run[t, maker]: 1.0}
                self.rows.append((both, -np.inf, 1.0))
            if (t + 1, b) in self.kept:
                row = {self.kept[t + 1, b]: 1.0, self.run[t, maker]: -1.0}
                if (t, b) in self.kept:
                    row[self.kept[t, b]] = -1.0
                self.rows.append((row, -np.inf, 0.0))

    def _memory(self, t: int) -> None:
        """Bytes live while each run of stage `t` works are those before, less what it frees."""
        live = self._variable(1.0, False)
        row = {live: 1.0}
        for b in self.maker:
            if (t, b) in self.kept:
                row[self.kept[t, b]] = -self.sizes[b]
        self._add_results(row, t, 0)
        self.rows.append((row, 0.0, 0.0))
        for k in range(t):
            after = self._variable(1.0, False)
            row = {after: 1.0, live: -1.0}
            for b in dict.fromkeys((*self.reads[k], *self.writes[k])):
                row[self._free(t, k, b)] = self.sizes[b]
            self._add_results(row, t, k + 1)
            self.rows.append((row, 0.0, 0.0))
            live = after

    def _add_results(self, row: dict[int, float], t: int, k: int) -> None:
        size = sum(self.sizes[b] for b in self.writes[k])
        if size:
            row[self.run[t, k]] = row.get(self.run[t, k], 0.0) - size

    def _free(self, t: int, k: int, b: int) -> int:
        """Whether buffer `b` is freed behind run `k` of stage `t`: nothing needs it any more."""
        free = self._variable(1.0, True)
        hazards = {self.run[t, j]: 1.0 for j in self.users[b] if k < j <= t}
        if (t + 1, b) in self.kept:
            hazards[self.kept[t + 1, b]] = 1.0
        most = len(hazards) + 1.0
        hazards[self.run[t, k]] = -1.0
        self.rows.append(({**hazards, free: 1.0}, 0.0, np.inf))
        self.rows.append(({**hazards, free: most}, -np.inf, most - 1.0))
        return free
