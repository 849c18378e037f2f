"""Training steps on two threads against one, and what the threads cost.

    python -m benchmarks.threads [--quick] [--json PATH]

One and two threads are timed in turn in one process. `ratio`: one thread / two, of the medians; of
the metrics `.best`, of the fastest runs, which says more where other programs use the machine.
`attainable` is from processor times, which others disturb less: one thread's over that of the
longer parts and of all that is not divided. Of the pool that programs bring along: `us.dispatch` is
a task without work, `us.exchange` one whose two parts wait for each other, so that both threads
take part; `ms.idle.cpu` is the processor time of all threads while the process sleeps for a second.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial
from statistics import median

import numpy as np
from numpy.typing import NDArray

import niwaki
from benchmarks.common import Row, main
from niwaki.backends.llvm.compile import LoadedObject, compile_object, pointer_block
from niwaki.backends.llvm.object import llvm_text, object_code
from niwaki.backends.llvm.pool import RUN, pool_text
from niwaki.backends.llvm.session import aligned_bytes
from niwaki.backends.targets import get_target, with_threads
from niwaki.ir.builder import ProgramBuilder
from niwaki.ir.dialects.tensor_op import shape_of
from niwaki.ir.lowered import Lowered
from niwaki.passes.lower_to_plan import lower
from tests.networks import mobilenet_v2, resnet18

THREADS = (1, 2)
IN_A_ROW = 5
DISPATCHES = 1000
_TASKS = """
@arrived = internal global i32 0

define internal void @dispatch.task(ptr %operands, i64 %part) {
  ret void
}

; Both parts count up; none leaves before the number is even again.
define internal void @exchange.task(ptr %operands, i64 %part) {
entry:
  %before = atomicrmw add ptr @arrived, i32 1 seq_cst
  %second = and i32 %before, 1
  %both = icmp eq i32 %second, 1
  br i1 %both, label %done, label %wait
wait:
  %now = load atomic i32, ptr @arrived acquire, align 4
  %alone = and i32 %now, 1
  %still = icmp eq i32 %alone, 1
  br i1 %still, label %wait, label %done
done:
  ret void
}
"""
_ENTRY = f"""
define void @{{0}}(ptr %block) {{{{
entry:
  call void @pool.start()
  br label %body
body:
  %n = phi i64 [ 0, %entry ], [ %next, %body ]
  call void @{RUN}(ptr @{{0}}.task, ptr null)
  %next = add i64 %n, 1
  %more = icmp ult i64 %next, {DISPATCHES}
  br i1 %more, label %body, label %done
done:
  ret void
}}}}
"""


_TIMED_RUN = f"""
@undivided.less = internal global i64 0
declare i32 @clock_gettime(i32, ptr)

; The thread's processor time in ns.
define internal i64 @now() {{
  %time = alloca [2 x i64]
  %r = call i32 @clock_gettime(i32 3, ptr %time)
  %seconds = load i64, ptr %time
  %place = getelementptr i64, ptr %time, i32 1
  %rest = load i64, ptr %place
  %whole = mul i64 %seconds, 1000000000
  %all = add i64 %whole, %rest
  ret i64 %all
}}

; Both parts on the caller; adds up how much shorter the longer one is than both.
define internal void @{RUN}(ptr %task, ptr %operands) {{
  %start = call i64 @now()
  call void %task(ptr %operands, i64 0)
  %middle = call i64 @now()
  call void %task(ptr %operands, i64 1)
  %end = call i64 @now()
  %first = sub i64 %middle, %start
  %second = sub i64 %end, %middle
  %less = icmp ult i64 %first, %second
  %saved = select i1 %less, i64 %first, i64 %second
  %before = load i64, ptr @undivided.less
  %after = add i64 %before, %saved
  store i64 %after, ptr @undivided.less
  ret void
}}

; block[0]: what has been added up since the last call.
define void @saved(ptr %block) {{
  %value = load i64, ptr @undivided.less
  store i64 %value, ptr %block
  store i64 0, ptr @undivided.less
  ret void
}}
"""


def attainable(lowered: Lowered, entry: str, arrays: Sequence[NDArray[np.generic]]) -> float:
    """One thread's processor time over that of the longer parts and of all that is not divided:
    what two cores of their own could gain, were memory as fast for both."""
    target = with_threads(get_target("host"), 2)
    head = f"define internal void @{RUN}("
    text = llvm_text(lowered, target)
    assert text.count(head) == 1
    text = text.replace(head, "define internal void @pool.unused(") + _TIMED_RUN
    loaded = LoadedObject(compile_object(text, target), [entry, "saved"], threads=2)
    images = (lowered.state_image, lowered.constants_image)
    spaces = [np.frombuffer(bytes(image) + bytes(64), np.uint8).copy() for image in images]
    memory = [aligned_bytes(lowered.arena_bytes), *spaces, *arrays]
    block, saved = pointer_block(memory), np.zeros(1, np.int64)
    ratios: list[float] = []
    for _ in range(9):
        start = time.thread_time_ns()
        call(loaded, entry, block, memory)
        whole = time.thread_time_ns() - start
        loaded.functions["saved"](saved.ctypes.data)
        ratios.append(whole / (whole - int(saved[0])))
    loaded.stop()
    return median(ratios)


def timed(steps: Sequence[Callable[[], object]], seconds: float) -> list[list[float]]:
    """Milliseconds of every call of each step, some of one and then some of the next: as in
    training, threads that end a call soon begin another one."""
    for step in steps:
        step()
    times: list[list[float]] = [[] for _ in steps]
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times[0]) < 3 * IN_A_ROW:
        for step, samples in zip(steps, times, strict=True):
            for _ in range(IN_A_ROW):
                start = time.perf_counter()
                step()
                samples.append(1e3 * (time.perf_counter() - start))
    return times


def compared(case: str, metric: str, steps: Sequence[Callable[[], object]], s: float) -> list[Row]:
    """Rows of one and two threads."""
    one, two = timed(steps, s)
    rows: list[Row] = []
    for name, choose in ((metric, median), (f"{metric}.best", min)):
        single, double = choose(one), choose(two)
        rows += [
            Row(f"{case}/t1", name, single, "ms"),
            Row(f"{case}/t2", name, double, "ms", "one", single / double),
        ]
    return rows


def products(size: int, seconds: float) -> list[Row]:
    """size x size x size in f32, as an entry point of its own: operands, then the result."""
    arrays = [np.random.default_rng(i).standard_normal((size, size), np.float32) for i in range(3)]
    steps: list[Callable[[], object]] = []
    found = 1.0
    for threads in THREADS:
        b = ProgramBuilder()
        program = b.finish(b.matmul(b.input((size, size)), b.input((size, size))))
        target = with_threads(get_target("host"), threads)
        lowered = lower(program, target)
        loaded = LoadedObject(object_code(lowered, target), ["forward"], threads=threads)
        arena, nothing = aligned_bytes(lowered.arena_bytes), aligned_bytes(0)
        memory = [arena, nothing, nothing, *arrays]
        steps.append(partial(call, loaded, "forward", pointer_block(memory), memory))
        if threads > 1:
            found = attainable(lowered, "forward", arrays)
    case = f"matmul-{size}/host"
    rows = compared(case, "ms", steps, seconds)
    return [*rows, Row(f"{case}/t2", "attainable", found, "ratio")]


def call(
    loaded: LoadedObject, entry: str, block: NDArray[np.uintp], memory: Sequence[object]
) -> None:
    """Runs the entry point on `block`, the addresses of `memory`."""
    del memory
    loaded.functions[entry](block.ctypes.data)


def steps_of(name: str, program: niwaki.Program, classes: int, seconds: float) -> list[Row]:
    """A full training step."""
    shape = shape_of(program.function("forward").body.block.args[0])
    rng = np.random.default_rng(0)
    x = rng.standard_normal(shape).astype(np.float32)
    y = rng.integers(0, classes, shape[0]).astype(np.int32)
    optimizer = niwaki.SGD(lr=1e-3)
    steps = [niwaki.compile(program, optimizer=optimizer, threads=n) for n in THREADS]
    calls = [partial(step, x, y) for step in steps]
    rows = compared(f"{name}/full/host/b{shape[0]}", "ms.step", calls, seconds)
    for threads, step in zip(THREADS, steps, strict=True):
        case = f"{name}/full/host/b{shape[0]}/t{threads}"
        rows.append(Row(case, "arena.bytes", step.memory.arena_bytes, "bytes"))
        step.close()
    loss = np.zeros((), np.float32)
    found = attainable(steps[-1].lowered, "train_step", [x, y, np.array(1e-3, np.float32), loss])
    rows.append(Row(f"{name}/full/host/b{shape[0]}/t2", "attainable", found, "ratio"))
    return rows


def pool() -> list[Row]:
    """The cost of a task without work, and of a second without tasks."""
    target = with_threads(get_target("host"), 2)
    tasks = ("dispatch", "exchange")
    entries = "".join(map(_ENTRY.format, tasks))
    text = f'target triple = "{target.triple}"\n{_TASKS}{entries}{pool_text(target, shared=False)}'
    loaded = LoadedObject(compile_object(text, target), tasks, threads=2)
    rows: list[Row] = []
    for task in tasks:
        runs: list[float] = []
        for _ in range(30):
            start = time.perf_counter()
            loaded.functions[task](None)
            runs.append(1e6 * (time.perf_counter() - start) / DISPATCHES)
        for name, value in ((f"us.{task}", median(runs)), (f"us.{task}.best", min(runs))):
            rows.append(Row("pool/host/t2", name, value, "us"))
    start = time.process_time()
    time.sleep(1.0)
    idle = 1e3 * (time.process_time() - start)
    loaded.stop()
    return [*rows, Row("pool/host/t2", "ms.idle.cpu", idle, "ms per s")]


def run(quick: bool) -> list[Row]:
    """The pool, matrix products, and steps."""
    seconds = 1.0 if quick else 20.0
    rows = [*pool(), *products(256, seconds), *products(1024, seconds)]
    if quick:
        return rows
    rows += steps_of("mobilenetv2-w1.0-224", mobilenet_v2(1, 224, 1.0), 10, seconds)
    rows += steps_of("resnet18-224", resnet18(1, 224), 10, seconds)
    return rows


if __name__ == "__main__":
    main(__doc__, run)
