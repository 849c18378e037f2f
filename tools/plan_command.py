"""Places buffers with known lifetimes in one arena: problems of google/minimalloc's form."""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

from niwaki.files import write_atomically
from niwaki.ir.errors import DoesNotFitError, UsageError
from niwaki.passes.arenas.cpsat import cpsat_arena
from niwaki.passes.arenas.plan_arena import Solver, plan_greedily, shrink
from niwaki.passes.arenas.problem import ArenaPlan, ArenaProblem, PlanError, plan_at
from niwaki.passes.arenas.search import search_arena
from niwaki.passes.arenas.verify import verify_arena
from niwaki.tools.plan_problem import read_plan_file
from niwaki.tools.progress import Progress
from niwaki.tools.result import Result

_MOST_SEARCHED = 3_000
"""Buffers: the search may take a gigabyte for so many that are live at once."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The problem, the capacity, the effort."""
    parser.add_argument(
        "problem",
        metavar="PROBLEM.csv",
        type=Path,
        help="columns id, lower, upper, size (live during [lower, upper)), "
        "and if wanted alignment and offset (pinned)",
    )
    parser.add_argument(
        "--capacity", metavar="N", type=int, required=True, help="bytes of the arena"
    )
    parser.add_argument(
        "-o", "--output", metavar="FILE", type=Path, help="the same rows with a column offset"
    )
    parser.add_argument(
        "--solver",
        choices=("search", "cpsat", "greedy"),
        default="search",
        help="where greedy plans are too large: an exact search, or CP-SAT of OR-Tools "
        "(%(default)s)",
    )
    parser.add_argument(
        "--nodes",
        metavar="N",
        type=int,
        default=2_000_000,
        help="effort of the search; some ten thousand take a second (%(default)s)",
    )


def run(args: argparse.Namespace) -> Result:
    """Writes the plan if it fits.

    Raises UsageError for a bad file or without OR-Tools, and DoesNotFitError with the smallest
    plan that was found.
    """
    for flag in ("capacity", "nodes"):
        if getattr(args, flag) < 0:
            raise UsageError(f"--{flag} must not be negative")
    file = read_plan_file(args.problem)
    _check_pinned(args.problem, file.problem)
    with Progress() as progress:
        plan = _plan(file.problem, args, progress.show)
    bound = file.problem.bound
    if plan.size > args.capacity:
        raise DoesNotFitError(
            f"{args.problem} does not fit into {args.capacity:,} bytes: the smallest plan found "
            f"takes {plan.size:,}, and {bound:,} are live at one time. Give more capacity"
            + ("." if bound > args.capacity else ", or more --nodes.")
        )
    if args.output is not None:
        write_atomically(args.output, file.with_offsets(plan))
    figures = {
        "buffers": len(file.problem.buffers),
        "capacity": args.capacity,
        "arena_bytes": plan.size,
        "lower_bound_bytes": bound,
        "offsets": plan.offsets,
        "output": None if args.output is None else str(args.output),
    }
    text = (
        f"{len(file.problem.buffers)} buffers fit: arena {plan.size:,} bytes, "
        f"lower bound {bound:,}, capacity {args.capacity:,}"
    )
    return Result(text if args.output is None else f"{text}\nwritten: {args.output}", figures)


def _plan(
    problem: ArenaProblem, args: argparse.Namespace, show: Callable[[str], None]
) -> ArenaPlan:
    """A verified plan."""

    def watch(nodes: int) -> None:
        show(f"searching: {nodes:,} of at most {args.nodes:,} nodes")

    solvers: dict[str, Solver] = {
        "search": partial(search_arena, watch=watch),
        "cpsat": partial(cpsat_arena, watch=watch),
    }
    show("planning greedily")
    plan = plan_greedily(problem)
    if args.solver in solvers and len(problem.buffers) <= _MOST_SEARCHED:
        target = max(args.capacity, problem.bound)
        plan = shrink(problem, plan, target, args.nodes, solvers[args.solver])
    verify_arena(problem, plan)
    return plan


def _check_pinned(path: Path, problem: ArenaProblem) -> None:
    pinned = ArenaProblem(tuple(b for b in problem.buffers if b.pinned is not None))
    try:
        verify_arena(pinned, plan_at(pinned, [b.pinned or 0 for b in pinned.buffers]))
    except PlanError:
        raise UsageError(
            f"{path}: offsets in the column 'offset' overlap; leave it empty where the planner "
            "may choose"
        ) from None
