"""The command-line flags that say what to compile, for every command that compiles."""

import argparse
import sys
from pathlib import Path
from typing import Any

import niwaki
from niwaki.backends.targets import TARGETS
from niwaki.ir.errors import UsageError
from niwaki.ir.training import Optimizer, Scheme, TrainingOptions
from niwaki.passes.calibration import METHODS
from niwaki.passes.instrument import PassRunner
from niwaki.passes.losses import LOSSES
from niwaki.passes.narrow_stash import STASHES
from niwaki.passes.pipelines import BATCH_NORMS, Techniques
from niwaki.passes.quantized_updates import ROUNDINGS
from niwaki.printable import printable
from niwaki.step import TrainingStep
from niwaki.tools.datasets import load_dataset

OPTIMIZERS = ("sgd", "adam", "adamw")
UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


def add_model_flags(
    parser: argparse.ArgumentParser, target: bool = True, update: bool = True
) -> None:
    """Adds the flags that `compile_model` reads.

    `target`, `update`: whether the user chooses these; without `update`, nor a memory limit.
    """
    parser.add_argument("model", metavar="MODEL", type=Path, help="a .pt2 or .onnx file")
    parser.add_argument("--loss", choices=LOSSES, default="cross_entropy", help="%(default)s")
    parser.add_argument("--optimizer", choices=OPTIMIZERS, default="sgd", help="%(default)s")
    parser.add_argument("--lr", type=float, default=0.01, help="learning rate (%(default)s)")
    parser.add_argument("--momentum", type=float, default=0.0, help="of sgd (%(default)s)")
    parser.add_argument("--nesterov", action="store_true", help="Nesterov's momentum, for sgd")
    parser.add_argument("--weight-decay", type=float, help="default: 0, adamw 0.01")
    parser.add_argument("--clip-norm", type=float, help="clip the norm over all gradients")
    parser.add_argument("--batch", type=int, help="samples per step (default: the model's)")
    parser.add_argument(
        "--batch-norm",
        choices=BATCH_NORMS,
        default="as_is",
        help="what becomes of batch normalisation (%(default)s)",
    )
    parser.add_argument(
        "--stash",
        choices=STASHES,
        help="keep activations for the backward pass in fewer bits (default: exactly)",
    )
    parser.add_argument(
        "--rounding",
        choices=ROUNDINGS,
        default="stochastic",
        help="how updates of quantised parameters become whole (%(default)s)",
    )
    parser.add_argument(
        "--quantization-aware-scaling",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="quantised parameters move as the real numbers that they stand for would",
    )
    parser.add_argument(
        "--quantize",
        metavar="FILE",
        type=Path,
        help=".npz with the arrays x and y: layers compute on int8 codes, calibrated with x",
    )
    parser.add_argument(
        "--calibration",
        choices=METHODS,
        default="min_max",
        help="how --quantize finds the ranges of activations (%(default)s)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of everything that is random (%(default)s)"
    )
    if update:
        parser.add_argument(
            "--update",
            default="full",
            help="full, bias, head, last_layers(N) or the path of a .toml scheme (%(default)s)",
        )
        parser.add_argument(
            "--memory-limit",
            metavar="BYTES",
            type=size_in_bytes,
            help="most RAM for arena and state, e.g. 256K; over it: an error (exit code 4)",
        )
    if target:
        parser.add_argument(
            "--target",
            default="host",
            help=f"host, {', '.join(TARGETS)} or the path of a .toml board (%(default)s)",
        )
    else:
        parser.set_defaults(target="host")


def add_threads_flag(parser: argparse.ArgumentParser) -> None:
    """Adds the flag that `compile_model` reads besides."""
    parser.add_argument(
        "--threads",
        metavar="N",
        type=int,
        default=1,
        help="threads of a step, on Linux; results stay the same bits (%(default)s)",
    )


def add_tuning_flag(parser: argparse.ArgumentParser) -> None:
    """Adds the flag that `compile_model` reads besides."""
    parser.add_argument(
        "--tuning",
        metavar="FILE",
        type=Path,
        help="kernels that 'niwaki compile --tune' chose on this machine (default: by a model)",
    )


def compile_model(
    args: argparse.Namespace,
    instrument: PassRunner | None = None,
    tuning: niwaki.Tuning | None = None,
) -> TrainingStep:
    """The step that the flags ask for; the importer's notes go to stderr.

    `tuning`: instead of the flag's. Raises what `niwaki.load` and `niwaki.compile` raise.
    """
    return niwaki.compile(
        load_model(args),
        update=args.update,
        target=args.target,
        memory_limit=args.memory_limit,
        instrument=instrument,
        seed=args.seed,
        threads=args.threads,
        tuning=args.tuning if tuning is None else tuning,
        **training_arguments(args),
    )


def training_arguments(args: argparse.Namespace) -> dict[str, Any]:
    """The arguments of `niwaki.compile` that say how to train, but for the seed.

    Raises UsageError if the flags contradict each other.
    """
    return {
        "loss": args.loss,
        "optimizer": _optimizer_of(args),
        "batch": args.batch,
        "batch_norm": args.batch_norm,
        "stash": args.stash,
        "rounding": args.rounding,
        "quantization_aware_scaling": args.quantization_aware_scaling,
    }


def options_of(args: argparse.Namespace) -> TrainingOptions:
    """What is trained and how; UsageError if the flags contradict each other."""
    return TrainingOptions(
        args.loss,
        _optimizer_of(args),
        Scheme.parse(args.update),
        args.rounding,
        args.quantization_aware_scaling,
        args.seed,
    )


def techniques_of(args: argparse.Namespace) -> Techniques:
    """What the flags ask for to save memory, but for the memory limit."""
    return Techniques(stash=args.stash)


def load_model(args: argparse.Namespace) -> niwaki.Program:
    """The program of the model file, perhaps quantised; the importer's notes go to stderr."""
    program = niwaki.load(args.model)
    for note in program.notes:
        print(f"niwaki: note: {printable(note)}", file=sys.stderr)
    if args.quantize is None:
        return program
    samples, _ = load_dataset(args.quantize)
    return niwaki.quantize(program, samples, args.calibration)


def _optimizer_of(args: argparse.Namespace) -> Optimizer:
    """The optimizer that the flags ask for; UsageError if they contradict each other."""
    common: dict[str, Any] = {"lr": args.lr, "clip_norm": args.clip_norm}
    if args.weight_decay is not None:
        common["weight_decay"] = args.weight_decay
    if args.optimizer == "sgd":
        return niwaki.SGD(momentum=args.momentum, nesterov=args.nesterov, **common)
    if args.momentum or args.nesterov:
        raise UsageError(f"--momentum and --nesterov belong to sgd, not to {args.optimizer}")
    kinds = {"adam": niwaki.Adam, "adamw": niwaki.AdamW}
    return kinds[args.optimizer](**common)


def size_in_bytes(text: str) -> int:
    """Of "262144", "256K" or "1M"; argparse.ArgumentTypeError if `text` is no size."""
    digits = text.rstrip("kKmMgG")
    unit = text[len(digits) :].lower()
    if not digits.isdigit() or unit not in UNITS:
        raise argparse.ArgumentTypeError(f"'{text}' is no size: write 262144, 256K or 1M")
    return int(digits) * UNITS[unit]
