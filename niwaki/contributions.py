"""Measures what the parts of an update scheme contribute ("contribution analysis").

"On-Device Training Under 256KB Memory" (Lin et al. 2022), section 3.2. A gain is a decrease of the
loss on held-out data, which every model has and which does not jump from answer to answer as the
accuracy does: of biases in comparison with the head alone, of weights with all biases.
"""

from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from typing import TypeVar

from niwaki.concurrent_scores import scores
from niwaki.fine_tuning import FineTuning, Score
from niwaki.ir.errors import UsageError
from niwaki.ir.training import Scheme
from niwaki.measurements import Measurements
from niwaki.passes.scheme_search import Contributions, FoundScheme, SchemeSpace, best_scheme

_Key = TypeVar("_Key")


def search(
    tuning: FineTuning,
    space: SchemeSpace,
    measurements: Measurements,
    jobs: int = 1,
    show: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Contributions, FoundScheme]:
    """Measures every part, finds the best scheme of all, and measures it too; see `measure`.

    Raises UsageError if the training of that scheme, of the head alone or of all biases diverges.
    """
    # First, alone and here: what is wrong with model or data shows soon, and in full.
    measure(tuning, [space.head], measurements, show=show)
    measure(tuning, schemes_to_measure(space), measurements, jobs, show)
    gains = contributions(space, measurements)
    found = best_scheme(space, gains)
    measure(tuning, [found.scheme], measurements, show=show)
    _check_converged(measurements[found.scheme])
    return gains, found


def measure(
    tuning: FineTuning,
    schemes: Sequence[Scheme],
    measurements: Measurements,
    jobs: int = 1,
    show: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Adds the scores of `schemes` to `measurements`, but for those that it has, in any order.

    `jobs`: processes at once. `show`: told how many are done, of how many. Raises what
    `concurrent_scores.scores` raises.
    """
    missing = [scheme for scheme in schemes if scheme not in measurements]
    done = len(schemes) - len(missing)
    show(done, len(schemes))
    for scheme, score in scores(tuning, missing, jobs):
        measurements.add(scheme, score)
        done += 1
        show(done, len(schemes))


def schemes_to_measure(space: SchemeSpace) -> list[Scheme]:
    """What `contributions` needs scores of."""
    return [
        space.head,
        space.all_biases,
        *(space.with_biases(k) for k in space.bias_bytes if k not in (1, len(space.layers))),
        *map(space.with_weights, space.weight_bytes),
    ]


def contributions(space: SchemeSpace, measurements: Measurements) -> Contributions:
    """The gains of all parts of `space`, without those whose training diverged.

    Raises UsageError if that is so of the head alone or all biases.
    """
    _check_converged(measurements[space.head], measurements[space.all_biases])
    head, all_biases = measurements[space.head].loss, measurements[space.all_biases].loss
    biases = {k: head - measurements[space.with_biases(k)].loss for k in space.bias_bytes}
    weights = {
        part: all_biases - measurements[space.with_weights(part)].loss
        for part in space.weight_bytes
    }
    return Contributions(_finite(biases), _finite(weights))


def _check_converged(*scores: Score) -> None:
    if not all(isfinite(score.loss) for score in scores):
        raise UsageError("the loss is no number any more: use a lower learning rate")


def _finite(gains: Mapping[_Key, float]) -> dict[_Key, float]:
    return {key: gain for key, gain in gains.items() if isfinite(gain)}
