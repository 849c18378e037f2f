"""The update scheme that `niwaki search` finds for MCUNet-5FPS, in the memory of a published one.

    python -m benchmarks.scheme_search [--quick] [--state PATH] [--scheme PATH] [--picture PATH]

Measures what each part of a scheme gains on CIFAR-10 pictures at 128x128, from block B9 on (the
blocks before it run once per picture), and chooses the best parts within the bytes that the
published scheme of 49kb adds to inference. `benchmarks.learning` trains with the scheme found.
A search goes on with what its state file has.
"""

import argparse
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

import niwaki
from benchmarks.common import Row, print_rows, write_rows
from benchmarks.learning_problem import NETWORK, Inputs, Pictures, load_pictures, program, scheme_of
from niwaki.contributions import search
from niwaki.files import write_atomically
from niwaki.fine_tuning import Dataset, FineTuning
from niwaki.measurements import Measurements
from niwaki.passes.scheme_search import FoundScheme, SchemeSpace
from niwaki.passes.update_memory import update_bytes
from niwaki.tools.progress import Progress
from tests import quantized_networks

FIRST = "B9"
PUBLISHED = "49kb"
OPTIMIZER = niwaki.SGD(lr=0.003, momentum=0.9)
SEED = 0


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one step each, from block B14 on")
    parser.add_argument("--state", type=Path, metavar="PATH", help="keep measurements here")
    parser.add_argument("--scheme", type=Path, metavar="PATH", help="write the scheme here (.toml)")
    parser.add_argument("--picture", type=Path, metavar="PATH", help="draw contributions to a .png")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the rows here")
    arguments = parser.parse_args()
    first = "B14" if arguments.quick else FIRST
    tuning = _tuning(first, 1 if arguments.quick else 100, 64 if arguments.quick else 4000)
    published = update_bytes(program(False, batch=1).function("forward"), scheme_of(PUBLISHED))
    space = SchemeSpace.of(tuning.forward(), published)
    with tempfile.TemporaryDirectory() as folder, Progress() as progress:
        measurements = Measurements(arguments.state or Path(folder) / "state.jsonl", tuning)
        gains, found = search(
            tuning, space, measurements, show=lambda n, of: progress.show(f"{n} of {of} schemes")
        )
    head, score = measurements[space.head], measurements[found.scheme]
    case = f"{NETWORK}/{first}"
    rows = [
        Row(case, "budget.bytes", published, "bytes"),
        Row(case, "update.bytes", found.bytes, "bytes"),
        Row(case, "loss.head", head.loss, "nats"),
        Row(case, "loss.predicted", head.loss - found.gain, "nats"),
        Row(case, "loss.found", score.loss, "nats"),
    ]
    if arguments.scheme is not None:
        text = _counted_from_stem(found, first).to_toml()
        write_atomically(arguments.scheme, f"{_comment(found)}{text}".encode())
    if arguments.picture is not None:
        # matplotlib is an extra.
        from niwaki.tools.contribution_picture import contribution_picture

        picture = contribution_picture(space, gains, found, f"{NETWORK} from {first} on")
        write_atomically(arguments.picture, picture)
    if arguments.json is not None:
        write_rows(arguments.json, rows)
    print_rows(rows)


def _tuning(first: str, steps: int, samples: int) -> FineTuning:
    train, _ = load_pictures()
    held_out = samples // 4
    parts = (train.some(slice(held_out, samples)), train.some(slice(held_out)))
    seen, tested = (_seen(part, first) for part in parts)
    options: Mapping[str, object] = {"optimizer": OPTIMIZER}
    return FineTuning(program(False, first), seen, tested, steps, 1, SEED, options)


def _seen(pictures: Pictures, first: str) -> Dataset:
    return Inputs(pictures, False, first).batch(np.arange(len(pictures.y)))


def _counted_from_stem(found: FoundScheme, first: str) -> niwaki.Scheme:
    """The scheme, for the whole network."""
    blocks = [layer.split(".")[0] for layer in quantized_networks.layers(NETWORK)]
    before = blocks.index(first)
    weights = {str(int(n) + before): ratio for n, ratio in (found.scheme.weights or {}).items()}
    return replace(found.scheme, weights=weights)


def _comment(found: FoundScheme) -> str:
    return (
        f"# {NETWORK}: found by python -m benchmarks.scheme_search, {found.bytes:,.0f} bytes.\n"
        "# Layers are counted from the stem, 0; the head is always updated.\n"
    )


if __name__ == "__main__":
    main()
