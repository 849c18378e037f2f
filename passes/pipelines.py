"""The passes in order: from an imported program to kernels and plans."""

from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass

from niwaki.backends.targets import Target
from niwaki.ir.context import NiwakiContext, weights_of
from niwaki.ir.errors import UsageError
from niwaki.ir.lowered import Lowered
from niwaki.ir.program import Program
from niwaki.ir.training import SGD, AdamW, Optimizer, Scheme, TrainingOptions
from niwaki.passes.autodiff import AutodiffPass
from niwaki.passes.build_training import BuildTrainingPass
from niwaki.passes.canonicalize import CanonicalizePass
from niwaki.passes.constant_fold import ConstantFoldPass
from niwaki.passes.cse import CsePass
from niwaki.passes.dce import DcePass
from niwaki.passes.decompose import DecomposePass
from niwaki.passes.expand_updates import ExpandUpdatesPass
from niwaki.passes.fold_batch_norm import FoldBatchNormPass
from niwaki.passes.fold_quantization import FoldQuantizationPass
from niwaki.passes.functions import find_function
from niwaki.passes.fuse import FusePass
from niwaki.passes.instrument import PassRunner
from niwaki.passes.integer_backward import BACKWARDS, IntegerBackwardPass
from niwaki.passes.lower_quantized import LowerQuantizedPass
from niwaki.passes.lower_to_plan import lower
from niwaki.passes.micro_batch import MicroBatchPass
from niwaki.passes.narrow_stash import NarrowStashPass
from niwaki.passes.order_channels import OrderChannelsPass, order_channels
from niwaki.passes.recompute import RecomputePass, recompute
from niwaki.passes.recompute_elementwise import RecomputeElementwisePass
from niwaki.passes.schedule import SchedulePass, schedule
from niwaki.passes.select_updates import SelectUpdatesPass, select_updates
from niwaki.passes.set_batch import SetBatchPass
from niwaki.passes.split_batch import SplitBatchPass
from niwaki.passes.split_parameters import SplitParametersPass
from niwaki.passes.tile_rows import TileRowsPass

BATCH_NORMS = ("as_is", "fold")
"""What may become of batch norms: as the model states them, or frozen ones folded into weights."""


@dataclass(frozen=True)
class Techniques:
    """What a step does to need less memory."""

    micro_batches: int = 1
    """Equal parts of the batch that run one after the other."""
    recompute_bytes: int | None = None
    """Bytes of the arena that recomputation aims at; None: everything is kept."""
    row_bytes: int | None = None
    """Bytes live at once that execution by strips of rows aims at; None: whole tensors."""
    stash: str | None = None
    """What activations are rounded to for the backward pass (STASHES); None: they stay exact."""
    split_parameters: bool = True
    """What steps write of a weight is stored apart from its rest, where that can stay in flash."""


def compile_program(
    program: Program,
    options: TrainingOptions,
    target: Target,
    batch: int | None = None,
    batch_norm: str = "as_is",
    instrument: PassRunner | None = None,
    techniques: Techniques | None = None,
) -> Lowered:
    """Kernels, plans and memory images of @train_step, @infer and @evaluate.

    `program` is as a frontend delivers it, and stays as it is. `batch`: samples per step (None:
    the model's). `instrument` applies the passes before `lower-to-plan`, which is no longer about
    tensors. `techniques`: what saves memory at the price of time (None: nothing).

    Raises UsageError if an argument does not fit the model, UnsupportedOpsError if an operation
    has no kernel.
    """
    program = program.clone()
    runner = PassRunner() if instrument is None else instrument
    passes = training_pipeline(options, target, batch, batch_norm, techniques)
    runner.run(NiwakiContext(program.weights), program.module, passes)
    return lower(program, target)


def training_pipeline(
    options: TrainingOptions,
    target: Target,
    batch: int | None = None,
    batch_norm: str = "as_is",
    techniques: Techniques | None = None,
) -> tuple[ModulePass, ...]:
    """Every pass from @forward to scheduled training, inference and evaluation.

    Raises UsageError if `batch_norm` is none of BATCH_NORMS.
    """
    if options.backward not in BACKWARDS:
        raise UsageError(f"unknown backward '{options.backward}': use {' or '.join(BACKWARDS)}")
    techniques = Techniques() if techniques is None else techniques
    split, budget = techniques.micro_batches > 1, techniques.recompute_bytes
    rows = techniques.row_bytes
    return (
        *forward_pipeline(batch, batch_norm),
        *((_OrderFor(options.scheme),) if options.scheme.order == "magnitude" else ()),
        BuildTrainingPass(options.loss),
        *((SplitBatchPass(techniques.micro_batches),) if split else ()),
        _SelectScheme(options.scheme),
        _autodiff(options.optimizer),
        *(() if techniques.stash is None else (NarrowStashPass(techniques.stash),)),
        *((MicroBatchPass(techniques.micro_batches),) if split else ()),
        ExpandUpdatesPass(options.rounding, options.scaling, options.seed),
        LowerQuantizedPass(),
        *((IntegerBackwardPass(),) if options.backward == "integer" else ()),
        DecomposePass(),
        CanonicalizePass(),
        ConstantFoldPass(),
        CsePass(),
        DcePass(),
        *(() if rows is None else (TileRowsPass(rows),)),
        *((SplitParametersPass(),) if target.has_flash and techniques.split_parameters else ()),
        RecomputeElementwisePass(),
        FusePass(),
        *(() if budget is None else (_RecomputeFor(target, budget),)),
        _ScheduleFor(target),
    )


def forward_pipeline(batch: int | None, batch_norm: str) -> tuple[ModulePass, ...]:
    """The passes on @forward before training: schemes count the layers that these leave.

    Raises UsageError if `batch_norm` is none of BATCH_NORMS.
    """
    if batch_norm not in BATCH_NORMS:
        raise UsageError(f"unknown batch_norm '{batch_norm}': use {' or '.join(BATCH_NORMS)}")
    set_batch = () if batch is None else (SetBatchPass(batch),)
    fold = (FoldBatchNormPass(),) if batch_norm == "fold" else ()
    return (*set_batch, CanonicalizePass(), *fold, FoldQuantizationPass())


def _autodiff(optimizer: Optimizer) -> AutodiffPass:
    if isinstance(optimizer, SGD):
        return AutodiffPass(
            "sgd",
            momentum=optimizer.momentum,
            nesterov=optimizer.nesterov,
            weight_decay=optimizer.weight_decay,
            clip_norm=optimizer.clip_norm,
        )
    return AutodiffPass(
        "adamw" if isinstance(optimizer, AdamW) else "adam",
        beta1=optimizer.betas[0],
        beta2=optimizer.betas[1],
        epsilon=optimizer.epsilon,
        weight_decay=optimizer.weight_decay,
        clip_norm=optimizer.clip_norm,
    )


@dataclass(frozen=True)
class _OrderFor(ModulePass):
    """`order-channels` for a scheme that need not have a textual form."""

    name = OrderChannelsPass.name
    scheme: Scheme

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        order_channels(op, weights_of(ctx), self.scheme)

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class _SelectScheme(ModulePass):
    """`select-updates` with a scheme that need not have a textual form."""

    name = SelectUpdatesPass.name
    scheme: Scheme

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        select_updates(find_function(op, "train_step", "run build-training first"), self.scheme)

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class _ScheduleFor(ModulePass):
    """`schedule` for a target that need not be in the table."""

    name = SchedulePass.name
    target: Target

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        schedule(op, self.target)

    def __str__(self) -> str:
        return str(SchedulePass(target=self.target.name))


@dataclass(frozen=True)
class _RecomputeFor(ModulePass):
    """`recompute` for a target that need not be in the table."""

    name = RecomputePass.name
    target: Target
    budget: int

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        recompute(op, self.target, self.budget)

    def __str__(self) -> str:
        return str(RecomputePass(self.budget, self.target.name))
