"""Accuracy of sparse int8 training: CIFAR-10 pictures at 128x128, against float32 and the head.

    python -m benchmarks.learning [--quick] [--json PATH] [--finished] [--picture PATH]

MCUNet-5FPS from its published int8 weights, batch 8, SGD on 5,000 pictures, the rate falling along
half a cosine, momentum 0.9; accuracy on 1,000 others after the last epoch. The rate is chosen for
each recipe from the same number of candidates, on pictures held out from training. Every finished
run is in the JSON file at once, and is not run again.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from benchmarks.common import Row, print_rows, read_rows, write_rows
from benchmarks.learning_problem import (
    NETWORK,
    Inputs,
    Pictures,
    Recipe,
    Trainer,
    first_block,
    load_pictures,
    program,
    scheme_of,
)
from niwaki.passes.update_memory import update_bytes

RATES = {
    "fp32": (0.0001, 0.0003, 0.001, 0.003, 0.01),
    "int8+qas": (0.0001, 0.0003, 0.001, 0.003, 0.01),
    "int8": (0.003, 100.0, 300.0, 1000.0, 3000.0),
}
"""Candidates. Codes have gradients smaller by the square of a scale, so that one of the others'
rates is tried with them only to show what it does."""
LAST_TWO_BLOCKS = "last_layers(7)"
"""What the publication compares arithmetics with: every layer of the last two blocks."""
RECIPES = (
    Recipe("fp32", "none", "head"),
    Recipe("int8+qas", "stochastic", "head"),
    Recipe("fp32", "none", "49kb"),
    Recipe("int8+qas", "stochastic", "49kb"),
    Recipe("int8", "stochastic", "49kb"),
    Recipe("int8+qas", "nearest", "49kb"),
    Recipe("int8+qas", "error_feedback", "49kb"),
    Recipe("int8+qas", "stochastic", "99kb"),
    Recipe("fp32", "none", "99kb"),
    Recipe("int8+qas", "stochastic", "found49kb"),
    Recipe("int8+qas", "stochastic", "74kb"),
    Recipe("int8+qas", "stochastic", "148kb"),
    Recipe("fp32", "none", "full"),
    Recipe("int8+qas", "stochastic", LAST_TWO_BLOCKS),
    Recipe("int8", "stochastic", LAST_TWO_BLOCKS),
    Recipe("int8+qas", "stochastic", "full"),
    Recipe("fp32", "none", LAST_TWO_BLOCKS),
    Recipe("fp32", "none", "74kb"),
    Recipe("fp32", "none", "148kb"),
    Recipe("int8", "nearest", "49kb"),
    Recipe("int8", "error_feedback", "49kb"),
)
"""In the order of running."""


@dataclass(frozen=True)
class Effort:
    """How much is run."""

    recipes: Sequence[Recipe] = RECIPES
    epochs: int = 8
    search_epochs: int = 2
    seeds: int = 3
    train: int = 5000
    test: int = 1000


QUICK = Effort(RECIPES[:2], epochs=1, search_epochs=1, seeds=2, train=240, test=80)


class Journal:
    """The finished runs; a file keeps them."""

    def __init__(self, path: Path | None) -> None:
        self.rows: list[Row] = []
        self._path = path
        if path is not None and path.exists():
            self.rows = [row for row in read_rows(path) if "/seed" in row.case]

    def value(self, case: str, metric: str) -> float | None:
        """Of a finished run."""
        found = (row.value for row in self.rows if (row.case, row.metric) == (case, metric))
        return next(found, None)

    def add(self, rows: Sequence[Row]) -> None:
        """A run that has just finished."""
        self.rows += rows
        self.write(self.rows)

    def write(self, rows: Sequence[Row]) -> None:
        """The whole file."""
        if self._path is not None:
            write_rows(self._path, rows)


class Experiment:
    """Runs what the journal does not have yet."""

    def __init__(self, effort: Effort, journal: Journal) -> None:
        train, test = load_pictures()
        self._effort = effort
        self._journal = journal
        held_out = effort.train // 10
        self._train = train.some(slice(effort.train))
        self._test = test.some(slice(effort.test))
        self._validation = train.some(slice(held_out))
        self._others = train.some(slice(held_out, effort.train))
        self._start = time.perf_counter()
        self._trainer = lru_cache(maxsize=2)(Trainer)
        self._inputs = lru_cache(maxsize=8)(Inputs)

    def run(self) -> None:
        """All recipes with all seeds."""
        for recipe in self._effort.recipes:
            rate = self._choose(recipe)
            for seed in range(self._effort.seeds):
                self._final(recipe, rate, seed)

    def _choose(self, recipe: Recipe) -> float:
        """The rate of the best accuracy on held-out pictures; ties go to the first.

        All roundings share the choice for the stochastic one.
        """
        if not recipe.is_float:
            recipe = replace(recipe, rounding="stochastic")
        rates = RATES[recipe.arithmetic]
        return max(rates, key=lambda rate: self._validated(recipe, rate))

    def _validated(self, recipe: Recipe, rate: float) -> float:
        epochs, name = self._effort.search_epochs, "accuracy.validation"
        return self._accuracy(recipe, rate, epochs, 0, self._others, self._validation, name)

    def _final(self, recipe: Recipe, rate: float, seed: int) -> None:
        epochs = self._effort.epochs
        self._accuracy(recipe, rate, epochs, seed, self._train, self._test, "accuracy")

    def _accuracy(
        self,
        recipe: Recipe,
        rate: float,
        epochs: int,
        seed: int,
        train: Pictures,
        test: Pictures,
        metric: str,
    ) -> float:
        case = f"{_label(recipe)}/momentum{recipe.momentum:g}/lr{rate:g}/epochs{epochs}/seed{seed}"
        known = self._journal.value(case, metric)
        if known is not None:
            return known
        first = first_block(scheme_of(recipe.scheme))
        trainer = self._trainer(recipe)
        loss = trainer.train(self._inputs(train, recipe.is_float, first), rate, epochs, seed)
        value = trainer.accuracy(self._inputs(test, recipe.is_float, first))
        seconds = time.perf_counter() - self._start
        print(f"{seconds:6.0f} s  {case}: {metric} {value:.1f} %", file=sys.stderr, flush=True)
        self._journal.add([Row(case, metric, value, "%"), Row(case, "loss", loss, "nats")])
        return value


def _label(recipe: Recipe) -> str:
    return f"{NETWORK}/{recipe.arithmetic}/{recipe.rounding}/{recipe.scheme}"


def summary(rows: Sequence[Row]) -> list[Row]:
    """Over the seeds of each recipe: mean accuracy, its standard deviation, and their number.

    With the memory that the scheme adds to inference, by the analytic model.
    """
    values: dict[str, list[float]] = {}
    for row in rows:
        if row.metric == "accuracy":
            values.setdefault(row.case.rsplit("/seed", 1)[0], []).append(row.value)
    result: list[Row] = []
    for case, accuracies in values.items():
        spread = statistics.stdev(accuracies) if len(accuracies) > 1 else 0.0
        result += [
            Row(case, "accuracy.mean", statistics.mean(accuracies), "%"),
            Row(case, "accuracy.spread", spread, "points"),
            Row(case, "accuracy.seeds", len(accuracies), "runs"),
            Row(case, "update.bytes", _update_bytes(case), "bytes"),
        ]
    return result


def _update_bytes(case: str) -> float:
    _, arithmetic, _, scheme, *_ = case.split("/")
    function = program(arithmetic == "fp32", batch=1).function("forward")
    return update_bytes(function, scheme_of(scheme))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the head alone, at most two minutes")
    parser.add_argument("--json", type=Path, metavar="PATH", help="keep the rows here")
    parser.add_argument("--finished", action="store_true", help="run nothing: what the file has")
    parser.add_argument("--picture", type=Path, metavar="PATH", help="also draw a .png file")
    arguments = parser.parse_args()
    journal = Journal(arguments.json)
    if not arguments.finished:
        Experiment(QUICK if arguments.quick else Effort(), journal).run()
    rows = [*summary(journal.rows), *journal.rows]
    journal.write(rows)
    print_rows(rows)
    if arguments.picture is not None:
        # matplotlib is an extra.
        from benchmarks.learning_picture import draw, points_of

        draw(points_of(rows), arguments.picture)


if __name__ == "__main__":
    main()
