"""What else would make a step fit, each planned: a smaller batch, fewer layers to update."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from niwaki.ir.errors import NiwakiError
from niwaki.passes.layers import layers_of
from niwaki.passes.planner import Planner
from niwaki.passes.split_batch import batch_of
from niwaki.printable import printable


def advice(planner: Planner, limit: int) -> list[str]:
    """A line about the batch and one about the layers: the most that fits, else the least."""
    changes = (_smaller_batches(planner), _fewer_layers(planner))
    return [line for change in changes for line in _most_that_fits(change, limit)]


def _smaller_batches(planner: Planner) -> Iterator[tuple[str, Planner]]:
    batch = planner.batch or batch_of(planner.program.function("forward"))
    while batch > 1:
        batch //= 2
        yield f"a batch of {batch}", planner.other(batch=batch)


def _fewer_layers(planner: Planner) -> Iterator[tuple[str, Planner]]:
    layers = layers_of(planner.program.function("forward").body.block)
    scheme = planner.options.scheme
    count = min(len(layers), scheme.layers or len(layers))
    while count > 1:
        count //= 2
        options = replace(planner.options, scheme=replace(scheme, layers=count))
        name = printable(layers[-count].weight.key)
        text = f"everything before {name} frozen (the last {count} of {len(layers)} layers updated)"
        yield text, planner.other(options)


def _most_that_fits(changes: Iterable[tuple[str, Planner]], limit: int) -> list[str]:
    line = ""
    for text, planner in changes:
        try:
            need = planner.plan(planner.techniques).bytes
        except NiwakiError:
            continue
        line = f"With {text} it needs {need:,} bytes."
        if need <= limit:
            break
    return [line] if line else []
