"""A compiled training step."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from niwaki.arguments import check_arguments, check_labels
from niwaki.backends.c.example import TestVectors
from niwaki.backends.c.package import write_c
from niwaki.backends.c.saved_state import pack, unpack
from niwaki.backends.llvm.host_code import host_code
from niwaki.backends.llvm.machine_limits import measure_limits
from niwaki.backends.llvm.object import llvm_text, object_code
from niwaki.backends.llvm.session import Session
from niwaki.backends.llvm.timed_session import TimedSession
from niwaki.backends.targets import Target
from niwaki.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from niwaki.files import write_atomically
from niwaki.ir.errors import UsageError
from niwaki.ir.lowered import Lowered
from niwaki.ir.weights import Array
from niwaki.memory import Memory, Savings
from niwaki.object_cache import default_cache
from niwaki.parameters import Layouts, Parameters
from niwaki.passes.kernel_library import Kernel
from niwaki.profiling import Profile, profile
from niwaki.tuner import Report, fastest_choices, no_report
from niwaki.tuning import Tuning


class TrainingStep:
    """A training step, inference and evaluation over one set of parameters.

    With target "host" it runs in this process; for every target it writes C and object files.
    Made by `niwaki.compile`.
    """

    def __init__(
        self,
        lowered: Lowered,
        target: Target,
        lr: float,
        description: str,
        layouts: Layouts,
        session: Session | None,
        lower_portable: Callable[[], Lowered],
        compile_seconds: Mapping[str, float],
        savings: Savings | None = None,
        choices: Sequence[Kernel] = (),
    ) -> None:
        self.lowered = lowered
        """The plan and the kernels."""
        self.target = target
        self.memory = Memory.of(lowered, savings)
        self.compile_seconds = compile_seconds
        """Wall-clock seconds of each phase of compilation."""
        self.lr = lr
        self._description = description
        self._layouts = layouts
        self._runs_here = session
        self._lower_portable = lower_portable
        self.choices = tuple(choices)
        """The kernels of the program that could be computed in several ways."""

    @property
    def lr(self) -> float:
        """The learning rate of the next step; may be set at any time."""
        return float(self._lr)

    @lr.setter
    def lr(self, value: float) -> None:
        if not 0 <= value < float("inf"):
            raise UsageError(f"lr must be >= 0 and finite, got {value}")
        self._lr = np.float32(value)

    def __call__(self, *arrays: object) -> float:
        """One training step in place: the model's inputs, then the target; returns the loss.

        Raises UsageError if an array does not fit, or the code is for another machine.
        """
        session = self._session
        (loss,) = session.run("train_step", self._step_inputs(arrays))
        return float(loss)

    def profile(self, *arrays: object, repetitions: int = 30) -> Profile:
        """Times each kernel call of a training step with these inputs, and this machine's limits.

        The steps run on memory of their own, from the parameters that the program was compiled
        with: nothing changes here. `repetitions`: of which times are the medians. Raises UsageError
        as a call does.
        """
        home = self._session
        inputs = self._step_inputs(arrays)
        code = host_code(home.lowered, self.target, default_cache(), timed=True)
        threads = self.target.threads
        session = TimedSession(home.lowered, code.program, code.kernels, threads)
        try:
            limits = measure_limits(self.target)
            return profile(session, "train_step", inputs, limits, repetitions)
        finally:
            session.close()

    @property
    def tuned_kernels(self) -> int:
        """Kernels of the program for which a measurement chose another one than the model."""
        return sum(kernel.choice != kernel.alternatives[0].name for kernel in self.choices)

    def tune(self, seconds: float = 60, report: Report = no_report) -> Tuning:
        """Times the alternatives of every kernel of the program; the fastest ones are chosen.

        `niwaki.compile` takes the result as `tuning`: the step itself stays as it is. `seconds`:
        about how long to measure at most; `report` is told (kernels measured, kernels in all).
        Raises UsageError if the code is for another machine.
        """
        lowered = self._session.lowered
        held = lowered.arena_bytes + lowered.state_bytes + len(lowered.constants_image)
        found = fastest_choices(self.choices, self.target, held, seconds, report)
        return Tuning().updated(self.target, found)

    def _step_inputs(self, arrays: Sequence[object]) -> list[Array]:
        ports = self.lowered.entries["train_step"].inputs[:-1]
        inputs = check_arguments("the training step", ports, arrays)
        self._check_labels("the training step", inputs)
        return [*inputs, np.asarray(self._lr)]

    def infer(self, *arrays: object) -> Array | tuple[Array, ...]:
        """The model's outputs for its inputs; one array if there is one output.

        Raises UsageError as a call does.
        """
        session = self._session
        ports = self.lowered.entries["infer"].inputs
        outputs = session.run("infer", check_arguments("infer", ports, arrays))
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def evaluate(self, *arrays: object) -> tuple[float, int | None]:
        """(loss, number of right answers) of the model's inputs and the target, without training.

        The number is None unless the loss is cross-entropy of integer labels. Raises UsageError
        as a call does.
        """
        session = self._session
        inputs = check_arguments("evaluate", self.lowered.entries["evaluate"].inputs, arrays)
        self._check_labels("evaluate", inputs)
        loss, *correct = session.run("evaluate", inputs)
        return float(loss), int(correct[0]) if correct else None

    def _check_labels(self, entry: str, inputs: Sequence[Array]) -> None:
        if len(self.lowered.entries["evaluate"].outputs) == 2:
            (logits,) = self.lowered.entries["infer"].outputs
            check_labels(entry, inputs[-1], logits.shape[-1])

    @property
    def parameters(self) -> Parameters:
        """Name -> current value, in the layout of the user's model."""
        session = self._session
        entries = [
            *((e, session.state) for e in self.lowered.state),
            *((e, session.constants) for e in self.lowered.constants),
        ]
        live = {
            entry.name: entry.view(space) for entry, space in entries if entry.name in self._layouts
        }
        return Parameters(live, self._layouts)

    def reset(self) -> None:
        """Undoes all steps: parameters and optimizer state are those of the compiled program."""
        self._session.reset()

    def close(self) -> None:
        """Ends the threads of the step, if it has any; the next call starts them again."""
        if self._runs_here is not None:
            self._runs_here.close()

    def save(self, path: str | Path) -> None:
        """Writes everything that steps change (parameters in the user's layout, optimizer state,
        learning rate) as safetensors; frozen parameters stay in the model file."""
        write_checkpoint(Path(path), Checkpoint(dict(self._changing), self.lr))

    def load(self, path: str | Path) -> None:
        """Restores what `save` wrote for the same model, update scheme and optimizer.

        Raises UsageError or ModelFileError, and changes nothing then, if the file does not fit.
        """
        changing = self._changing
        checkpoint = read_checkpoint(Path(path), changing)
        for name, array in checkpoint.arrays.items():
            changing.assign(name, array)
        self.lr = checkpoint.lr

    def save_c(self, path: str | Path) -> None:
        """Writes what `save` writes for the C library: `<name>_load` takes it on every target."""
        write_atomically(Path(path), pack(self.lowered, self._session.state, self.lr))

    def load_c(self, path: str | Path) -> None:
        """Restores what the C library of the same step saved: a buffer, or the bytes of a slot.

        Raises UsageError or ModelFileError, and changes nothing then, if the file does not fit.
        """
        session = self._session
        try:
            data = Path(path).read_bytes()
        except OSError as error:
            raise UsageError(f"cannot read {path}: {error.strerror}") from None
        self.lr = unpack(self.lowered, data, session.state, str(path))

    def write_c(
        self,
        directory: str | Path,
        package: str = "plain",
        name: str = "model",
        vectors: TestVectors | None = None,
    ) -> Path:
        """Writes a C library with an example program; returns the folder.

        `package`: "plain" or "cmake". `name` starts every file and identifier. `vectors`: a batch
        and its losses for the example. The library starts from the parameters that the program
        was compiled with. Raises what `niwaki.backends.c.package.write_c` raises.
        """
        lowered = self.lowered if self.target.speaks_c else self._lower_portable()
        return write_c(lowered, Path(directory), package, name, self._description, self.lr, vectors)

    def llvm_text(self) -> str:
        """The step as LLVM IR for the target."""
        return llvm_text(self.lowered, self.target)

    def object_code(self) -> bytes:
        """The step as an ELF object for the target; see `niwaki.backends.llvm.object`."""
        return object_code(self.lowered, self.target)

    @property
    def _changing(self) -> Parameters:
        session = self._session
        live = {e.name: e.view(session.state) for e in self.lowered.state}
        return Parameters(live, self._layouts)

    @property
    def _session(self) -> Session:
        if self._runs_here is None:
            raise UsageError(
                f"this step is compiled for {self.target.name} and cannot run here: "
                "write it with write_c() or object_code(), or compile with target='host'"
            )
        return self._runs_here
