"""`niwaki report --plan-only`: memory by class, for models of any size and without weights."""

import argparse

from niwaki.backends.targets import get_target
from niwaki.frontends import decoder_config
from niwaki.ir.errors import UsageError
from niwaki.ir.program import Program
from niwaki.memory import readable
from niwaki.passes.memory_plan import CLASSES, Holder, MemoryPlan, plan_memory
from niwaki.printable import printable
from niwaki.tools.model_flags import load_model, options_of, techniques_of
from niwaki.tools.result import Result

_SHOWN = 5
"""Of the largest buffers."""


def add_plan_flags(parser: argparse.ArgumentParser) -> None:
    """The flags that `run_plan_only` reads besides those of the model."""
    group = parser.add_argument_group("planning alone")
    group.add_argument(
        "--plan-only",
        action="store_true",
        help="print memory by class, from shapes and types alone; writes no files. "
        "MODEL may also be the config.json of a LLaMA decoder",
    )
    group.add_argument(
        "--sequence", metavar="N", type=int, help="tokens per sample (default: the longest)"
    )
    group.add_argument(
        "--lora-rank", metavar="R", type=int, help="freeze the decoder and train adapters of rank R"
    )
    group.add_argument(
        "--lora-targets",
        metavar="NAMES",
        default="q,v",
        help=f"what has adapters, of {','.join(decoder_config.PROJECTIONS)} (%(default)s)",
    )


def run_plan_only(args: argparse.Namespace) -> Result:
    """The table of a training step.

    Raises UsageError if a flag does not fit, and what loading and planning raise.
    """
    if args.memory_limit is not None or args.output is not None or args.trace is not None:
        raise UsageError("--plan-only takes neither --memory-limit nor --output nor --trace")
    is_config = args.model.suffix == ".json"
    if not is_config and (args.sequence is not None or args.lora_rank is not None):
        raise UsageError("--sequence and --lora-rank belong to the config.json of a decoder")
    program = _decoder(args) if is_config else load_model(args)
    options = options_of(args)
    batch = None if is_config else args.batch
    target, techniques = get_target(args.target), techniques_of(args)
    plan = plan_memory(program, options, target, batch, args.batch_norm, techniques)
    return Result(_table(plan), _figures(plan))


def _decoder(args: argparse.Namespace) -> Program:
    adapters = None
    if args.lora_rank is not None:
        targets = tuple(args.lora_targets.split(","))
        adapters = decoder_config.LowRank(args.lora_rank, targets)
    batch = 1 if args.batch is None else args.batch
    return decoder_config.load(args.model, batch, args.sequence, adapters)


def _table(plan: MemoryPlan) -> str:
    frozen = plan.bytes["weights"] - plan.trained_bytes
    rows = [
        *((kind, plan.bytes[kind]) for kind in CLASSES),
        ("total", plan.total_bytes),
    ]
    lines = [f"{'class':<14}{'bytes':>18}{'GB':>10}"]
    lines += [f"{kind:<14}{size:>18,}{size / 1e9:>10.3f}" for kind, size in rows]
    lines.append(
        f"weights: {plan.trained_bytes:,} bytes trained, {frozen:,} frozen or constant; "
        f"arena: {plan.arena_bytes:,} bytes, {plan.calls:,} calls"
    )
    lines.append(
        f"most is live at call {plan.peak_call} ({readable(plan.peak_location)}); "
        "the largest there, in bytes:"
    )
    lines += [_line(holder) for holder in plan.holders[:_SHOWN]]
    return "\n".join(lines)


def _line(holder: Holder) -> str:
    what = f"{holder.kind}: {printable(holder.label)}, {readable(holder.location)}"
    return f"  {holder.bytes:>16,}  {what}"


def _figures(plan: MemoryPlan) -> dict[str, object]:
    return {
        **{f"{kind}_bytes": plan.bytes[kind] for kind in CLASSES},
        "trained_weights_bytes": plan.trained_bytes,
        "arena_bytes": plan.arena_bytes,
        "total_bytes": plan.total_bytes,
        "calls": plan.calls,
        "peak_call": plan.peak_call,
        "peak": [
            {"label": h.label, "class": h.kind, "bytes": h.bytes, "location": readable(h.location)}
            for h in plan.holders[:_SHOWN]
        ],
    }
