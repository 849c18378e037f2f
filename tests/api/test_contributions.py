"""Contributions are measured with compiled steps, in any number of processes, and kept."""

from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

import niwaki
from niwaki.contributions import contributions, measure, schemes_to_measure, search
from niwaki.fine_tuning import FineTuning, Score, evaluate, shuffled_batches
from niwaki.ir.builder import ProgramBuilder
from niwaki.ir.errors import UsageError
from niwaki.ir.program import Program
from niwaki.ir.training import SGD
from niwaki.measurements import Measurements
from niwaki.passes.scheme_search import Contributions, SchemeSpace, best_scheme

BUDGET = 140


def program(seed: int = 0) -> Program:
    """Two dense layers."""
    random = np.random.default_rng(seed)
    b = ProgramBuilder()
    x = b.input([4, 8])
    first = b.weight("first.weight", random.normal(size=(8, 8)).astype(np.float32))
    x = b.relu(b.add(b.matmul(x, first), b.weight("first.bias", np.zeros(8, np.float32))))
    second = b.weight("second.weight", random.normal(size=(8, 2)).astype(np.float32))
    return b.finish(b.add(b.matmul(x, second), b.weight("second.bias", np.zeros(2, np.float32))))


def tuning(steps: int = 10, lr: float = 0.05) -> FineTuning:
    random = np.random.default_rng(1)
    x = random.normal(size=(64, 8)).astype(np.float32)
    y = (x[:, 0] * x[:, 1] > 0).astype(np.int32)
    train, held_out = (x[:48], y[:48]), (x[48:], y[48:])
    return FineTuning(program(), train, held_out, steps, 2, 0, {"optimizer": SGD(lr)})


@pytest.fixture(scope="module")
def space() -> SchemeSpace:
    return SchemeSpace.of(tuning().forward(), BUDGET)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory, space: SchemeSpace) -> Path:
    """Everything measured, one after the other."""
    path = tmp_path_factory.mktemp("measurements") / "all.jsonl"
    measure(tuning(), schemes_to_measure(space), Measurements(path, tuning()))
    return path


def test_gains_are_decreases_of_the_loss(space: SchemeSpace, file: Path) -> None:
    measured = Measurements(file, tuning())
    gains = contributions(space, measured)
    assert set(gains.biases) == {1, 2}
    assert list(gains.weights) == [(0, 0.125), (0, 0.25)]
    assert gains.biases[1] == 0.0
    assert gains.biases[2] == measured[space.head].loss - measured[space.all_biases].loss != 0.0
    one = measured[space.with_weights((0, 0.25))]
    assert gains.weights[0, 0.25] == measured[space.all_biases].loss - one.loss != 0.0


def test_scores_are_means_over_trainings(space: SchemeSpace, file: Path) -> None:
    scores: list[Score] = []
    step = niwaki.compile(program(), update=space.all_biases, optimizer=SGD(0.05))
    x, y = tuning().train
    for seed in (0, 1):
        step.reset()
        for chosen in islice(shuffled_batches(len(x), 4, seed), 10):
            step(x[chosen], y[chosen])
        scores.append(evaluate(step, *tuning().held_out))
    one, two = scores
    assert one.loss != two.loss
    mean = Measurements(file, tuning())[space.all_biases]
    assert mean.loss == pytest.approx((one.loss + two.loss) / 2)
    assert mean.accuracy is not None
    assert one.accuracy is not None
    assert two.accuracy is not None
    assert mean.accuracy == pytest.approx((one.accuracy + two.accuracy) / 2)


def test_processes_measure_the_same(space: SchemeSpace, file: Path, tmp_path: Path) -> None:
    other = Measurements(tmp_path / "m.jsonl", tuning())
    measure(tuning(), schemes_to_measure(space), other, jobs=2)
    lines = (tmp_path / "m.jsonl").read_text().splitlines()
    assert sorted(lines) == sorted(file.read_text().splitlines())


def test_goes_on_after_an_interruption(space: SchemeSpace, file: Path, tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        assert total == 4
        if done == 2:
            raise KeyboardInterrupt

    path = tmp_path / "m.jsonl"
    with pytest.raises(KeyboardInterrupt):
        measure(tuning(), schemes_to_measure(space), Measurements(path, tuning()), show=interrupt)
    whole = file.read_text().splitlines()
    assert path.read_text().splitlines() == whole[:3]

    shown: list[int] = []
    again = Measurements(path, tuning())
    measure(tuning(), schemes_to_measure(space), again, show=lambda done, _: shown.append(done))
    assert shown == [2, 3, 4]
    assert path.read_text().splitlines() == whole


def test_another_budget_uses_the_same_file(file: Path) -> None:
    larger = SchemeSpace.of(tuning().forward(), 2 * BUDGET)
    measured = Measurements(file, tuning())
    missing = [scheme for scheme in schemes_to_measure(larger) if scheme not in measured]
    assert missing == [larger.with_weights((0, 0.5))]


def test_another_search_is_refused(file: Path) -> None:
    with pytest.raises(UsageError, match="another steps"):
        Measurements(file, tuning(steps=3))
    with pytest.raises(UsageError, match="another options"):
        Measurements(file, tuning(lr=0.1))
    other = tuning()
    other.train[0][0] = 7
    with pytest.raises(UsageError, match="another data"):
        Measurements(file, other)
    with pytest.raises(UsageError, match="another model"):
        Measurements(file, replace(tuning(), program=program(seed=1)))


@pytest.mark.parametrize("content", ["", "{", "[]\n", '{"schema": 1}\n', "\xff"])
def test_damaged_files(content: str, tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(UsageError, match=r"m\.jsonl"):
        Measurements(path, tuning())


def test_trainings_that_diverge(space: SchemeSpace, file: Path, tmp_path: Path) -> None:
    measured = Measurements(tmp_path / "m.jsonl", tuning())
    for scheme in schemes_to_measure(space):
        measured.add(scheme, Score(1.0, None))
    measured.add(space.with_weights((0, 0.25)), Score(float("nan"), None))
    reread = Measurements(tmp_path / "m.jsonl", tuning())
    assert contributions(space, reread) == Contributions({1: 0.0, 2: 0.0}, {(0, 0.125): 0.0})

    measured.add(space.head, Score(float("inf"), None))
    with pytest.raises(UsageError, match="lower learning rate"):
        contributions(space, measured)


def test_the_best_scheme_is_measured(space: SchemeSpace, file: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_bytes(file.read_bytes())
    measured = Measurements(path, tuning())

    gains, found = search(tuning(), space, measured)

    assert gains == contributions(space, measured)
    assert found == best_scheme(space, gains)
    assert found.scheme in measured


@pytest.mark.parametrize("jobs", [1, 2])
def test_data_that_does_not_fit(jobs: int, space: SchemeSpace, tmp_path: Path) -> None:
    x, y = tuning().train
    few = replace(tuning(), train=(x[:3], y[:3]))
    measured = Measurements(tmp_path / "m.jsonl", few)
    with pytest.raises(UsageError, match="fewer than a batch of 4"):
        measure(few, schemes_to_measure(space), measured, jobs)
