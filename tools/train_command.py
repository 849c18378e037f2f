"""Trains a model on this machine with the step that it would train with on the device."""

import argparse
import sys
from itertools import islice
from pathlib import Path

import numpy as np

from niwaki.fine_tuning import batch_of, evaluate, shuffled_batches
from niwaki.ir.errors import UsageError
from niwaki.ir.weights import Array
from niwaki.step import TrainingStep
from niwaki.tools.datasets import load_dataset
from niwaki.tools.model_flags import (
    add_model_flags,
    add_threads_flag,
    add_tuning_flag,
    compile_model,
)
from niwaki.tools.progress import Progress
from niwaki.tools.result import Result


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The model, the data, how long, and where the result goes."""
    add_model_flags(parser, target=False)
    add_threads_flag(parser)
    add_tuning_flag(parser)
    parser.add_argument(
        "--data", metavar="FILE", type=Path, required=True, help=".npz with the arrays x and y"
    )
    parser.add_argument(
        "--test-data", metavar="FILE", type=Path, help="evaluated before and after training"
    )
    parser.add_argument("--epochs", type=int, default=1, help="%(default)s")
    parser.add_argument(
        "--resume", metavar="FILE", type=Path, help="start from a saved .safetensors file"
    )
    parser.add_argument(
        "-o", "--output", metavar="FILE", type=Path, required=True, help="a .safetensors file"
    )


def run(args: argparse.Namespace) -> Result:
    """Trains in whole batches, reshuffled each epoch; saves what the training changed."""
    if args.epochs < 1:
        raise UsageError(f"--epochs must be >= 1, got {args.epochs}")
    if args.output.suffix != ".safetensors":
        raise UsageError(f"the output must be a .safetensors file, got '{args.output}'")
    x, y = load_dataset(args.data)
    test = None if args.test_data is None else load_dataset(args.test_data)
    step = compile_model(args)
    if args.resume is not None:
        step.load(args.resume)
        step.lr = args.lr
    before = None if test is None else vars(evaluate(step, *test))
    losses = _train(step, x, y, args)
    after = None if test is None else vars(evaluate(step, *test))
    step.save(args.output)
    data = {"losses": losses, "before": before, "after": after, "output": str(args.output)}
    return Result(_text(losses, before, after, args.output), data)


def _train(step: TrainingStep, x: Array, y: Array, args: argparse.Namespace) -> list[float]:
    """The mean loss of each epoch."""
    count = len(x) // batch_of(step)
    batches = shuffled_batches(len(x), batch_of(step), args.seed)
    means: list[float] = []
    with Progress() as progress:
        for epoch in range(args.epochs):
            total = 0.0
            for i, chosen in enumerate(islice(batches, count)):
                total += step(x[chosen], y[chosen])
                progress.show(
                    f"epoch {epoch + 1}/{args.epochs}, step {i + 1}/{count}, "
                    f"loss {total / (i + 1):.4f}"
                )
            means.append(total / count)
            if not np.isfinite(means[-1]):
                raise UsageError(
                    f"the loss is no number any more in epoch {epoch + 1}: "
                    "lower --lr, or clip the gradients with --clip-norm; nothing was saved"
                )
            print(f"epoch {epoch + 1}: loss {means[-1]:.4f}", file=sys.stderr)
    return means


def _text(
    losses: list[float],
    before: dict[str, float | None] | None,
    after: dict[str, float | None] | None,
    output: Path,
) -> str:
    lines = [f"loss: {losses[0]:.4f} in the first epoch, {losses[-1]:.4f} in the last"]
    for name, figures in (("before", before), ("after", after)):
        if figures is not None:
            shown = ", ".join(f"{k} {v:.4f}" for k, v in figures.items() if v is not None)
            lines.append(f"test data {name}: {shown}")
    return "\n".join([*lines, f"saved: {output}"])
