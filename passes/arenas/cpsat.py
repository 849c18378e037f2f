"""The search for a plan of a given size with CP-SAT, the solver of OR-Tools: the extra `solver`."""

from functools import partial
from importlib import import_module
from itertools import count
from typing import TYPE_CHECKING

import numpy as np

from niwaki.ir.errors import UsageError
from niwaki.passes.arenas.component import Component
from niwaki.passes.arenas.problem import ArenaProblem
from niwaki.passes.arenas.search import SearchResult, Watch, search_components

if TYPE_CHECKING:
    from ortools.sat.python import cp_model

_CONFLICTS, _LONGER = 150, 1.02
"""Of the first run, and how many times more each further one may take."""
_NODES_PER_CONFLICT = 100
"""A conflict of CP-SAT takes about as long as so many nodes of a dive."""


def cpsat_arena(
    problem: ArenaProblem, capacity: int, nodes: int, watch: Watch | None = None
) -> SearchResult:
    """Looks for a plan of at most `capacity` bytes with the effort of about `nodes` nodes.

    CP-SAT alone, without the dives of `search_arena`. Deterministic. Raises UsageError without
    OR-Tools.
    """
    try:
        import_module("ortools.sat.python.cp_model")  # Late: it takes a second to load.
    except ModuleNotFoundError:
        raise UsageError(
            "the solver cpsat needs OR-Tools: install it with pip install 'niwaki[solver]'"
        ) from None
    return search_components(problem, capacity, nodes, partial(_solve, watch=watch))


def _solve(component: Component, nodes: int, watch: Watch | None) -> SearchResult:
    """Short runs in one order of the buffers after another, lowest offset first."""
    from ortools.sat.python import cp_model

    model, places = _model(component)
    used, conflicts = 0, float(_CONFLICTS)
    for number in count():
        ordered = model.clone()
        ordered.add_decision_strategy(
            [places[i] for i in component.order(number).tolist()],
            cp_model.CHOOSE_LOWEST_MIN,
            cp_model.SELECT_MIN_VALUE,
        )
        solver = cp_model.CpSolver()
        solver.parameters.num_workers = 1
        solver.parameters.random_seed = 1
        solver.parameters.search_branching = cp_model.FIXED_SEARCH
        solver.parameters.cp_model_presolve = False
        solver.parameters.linearization_level = 0
        solver.parameters.max_number_of_conflicts = int(conflicts)
        status = solver.solve(ordered)
        used += max(solver.num_conflicts, 1) * _NODES_PER_CONFLICT
        if watch is not None:
            watch(used)
        if status in (cp_model.OPTIMAL, cp_model.FEASIBLE):
            found = np.array([solver.value(place) for place in places])
            return SearchResult(tuple((found * component.alignments).tolist()), used)
        if status == cp_model.INFEASIBLE or used >= nodes:
            return SearchResult(None, used, status == cp_model.INFEASIBLE)
        conflicts *= _LONGER
    raise AssertionError


def _model(component: Component) -> "tuple[cp_model.CpModel, list[cp_model.IntVar]]":
    """One NoOverlap per section; the variables are offsets in units of the alignment."""
    from ortools.sat.python import cp_model

    model = cp_model.CpModel()
    highest = np.where(component.pinned, component.lowest, component.capacity - component.sizes)
    places = [
        model.new_int_var(low, high, "")
        for low, high in zip(
            (component.lowest // component.alignments).tolist(),
            (highest // component.alignments).tolist(),
            strict=True,
        )
    ]
    intervals = [
        model.new_fixed_size_interval_var(alignment * place, size, "")
        for alignment, place, size in zip(
            component.alignments.tolist(), places, component.sizes.tolist(), strict=True
        )
    ]
    for live in component.live:
        model.add_no_overlap([intervals[i] for i in np.flatnonzero(live).tolist()])
    return model, places
