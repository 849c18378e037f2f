"""The thread pool of a program, as LLVM IR: threads that wait for the parts of a kernel.

`@pool.run` announces a task by raising an epoch. What a part computes is fixed, who runs it is not:
the caller and the threads each take the next one, so nobody waits for a thread that the system
does not let run, or has refused to start. Both sides wait spinning for a bounded time, since the
next kernel follows at once, and then in a futex: between steps no thread costs anything. Entry
points begin with `@pool.start`, which starts the threads in the first step of a process, so also in
a child that was forked and has none of them.
"""

from niwaki.backends.targets import Target

STOP = "stop_threads"
"""void(void): the threads end; the next step starts them again. Not while a step runs."""

RUN = "pool.run"
"""void(ptr task, ptr operands): calls task(operands, part) for every part, and waits for all."""

_FUTEX = {"x86_64": 202, "aarch64": 98}
"""Number of the system call."""
_PAUSE = {
    "x86_64": ("declare void @llvm.x86.sse2.pause()", "call void @llvm.x86.sse2.pause()"),
    "aarch64": ("declare void @llvm.aarch64.isb(i32)", "call void @llvm.aarch64.isb(i32 15)"),
}
"""What a spinning core does to let others work."""
_SPINS = 4000
"""Pauses before a thread sleeps: 50 to 200 us, as long as many a kernel on one thread takes."""

_TEXT = """
; Each on a cache line of its own.
@pool.epoch = internal global [16 x i32] zeroinitializer, align 64
@pool.pending = internal global [16 x i32] zeroinitializer, align 64
@pool.sleepers = internal global [16 x i32] zeroinitializer, align 64
@pool.caller_sleeps = internal global [16 x i32] zeroinitializer, align 64
@pool.next = internal global [16 x i32] zeroinitializer, align 64
@pool.task = internal global ptr null, align 64
@pool.operands = internal global ptr null
@pool.stop = internal global i32 0
@pool.workers = internal global i32 0
@pool.process = internal global i32 0
@pool.threads = internal global [{workers} x i64] zeroinitializer

{declare_pause}
declare i32 @getpid()
declare i64 @syscall(i64, ...)
declare i32 @pthread_create(ptr, ptr, ptr, ptr)
declare i32 @pthread_join(i64, ptr)

define internal void @pool.sleep(ptr %word, i32 %value) {{
  %r = call i64 (i64, ...) @syscall(i64 {futex}, ptr %word, i32 128, i32 %value, ptr null)
  ret void
}}

define internal void @pool.wake(ptr %word) {{
  %r = call i64 (i64, ...) @syscall(i64 {futex}, ptr %word, i32 129, i32 2147483647)
  ret void
}}

; Waits a bounded time until %word is no longer %value; returns whether it is not.
define internal i1 @pool.spin(ptr %word, i32 %value) {{
entry:
  br label %check
check:
  %n = phi i32 [ 0, %entry ], [ %next, %again ]
  %now = load atomic i32, ptr %word acquire, align 4
  %changed = icmp ne i32 %now, %value
  %enough = icmp uge i32 %n, {spins}
  %leave = or i1 %changed, %enough
  br i1 %leave, label %done, label %again
again:
  {pause}
  %next = add i32 %n, 1
  br label %check
done:
  ret i1 %changed
}}

; Takes parts that nobody has taken, until there are none.
define internal void @pool.work() {{
entry:
  br label %take
take:
  %part = atomicrmw add ptr @pool.next, i32 1 seq_cst
  %mine = icmp ult i32 %part, {parts}
  br i1 %mine, label %body, label %done
body:
  ; No other task can come before this part has ended.
  %task = load ptr, ptr @pool.task
  %operands = load ptr, ptr @pool.operands
  %number = zext i32 %part to i64
  call void %task(ptr %operands, i64 %number)
  %left = atomicrmw sub ptr @pool.pending, i32 1 seq_cst
  %last = icmp eq i32 %left, 1
  br i1 %last, label %tell, label %take
tell:
  %sleeps = load atomic i32, ptr @pool.caller_sleeps seq_cst, align 4
  %waiting = icmp ne i32 %sleeps, 0
  br i1 %waiting, label %wake, label %done
wake:
  call void @pool.wake(ptr @pool.pending)
  br label %done
done:
  ret void
}}

define internal ptr @pool.worker(ptr %unused) {{
entry:
  br label %wait
wait:
  %seen = phi i32 [ 0, %entry ], [ %epoch, %work ]
  %soon = call i1 @pool.spin(ptr @pool.epoch, i32 %seen)
  br i1 %soon, label %ready, label %tired
tired:
  %s = atomicrmw add ptr @pool.sleepers, i32 1 seq_cst
  br label %asleep
asleep:
  call void @pool.sleep(ptr @pool.epoch, i32 %seen)
  %after = load atomic i32, ptr @pool.epoch acquire, align 4
  %same = icmp eq i32 %after, %seen
  br i1 %same, label %asleep, label %awake
awake:
  %a = atomicrmw sub ptr @pool.sleepers, i32 1 seq_cst
  br label %ready
ready:
  %epoch = load atomic i32, ptr @pool.epoch acquire, align 4
  %stop = load atomic i32, ptr @pool.stop acquire, align 4
  %end = icmp ne i32 %stop, 0
  br i1 %end, label %leave, label %work
work:
  call void @pool.work()
  br label %wait
leave:
  ret ptr null
}}

define internal void @pool.wake_all() {{
entry:
  %epoch = atomicrmw add ptr @pool.epoch, i32 1 seq_cst
  %sleepers = load atomic i32, ptr @pool.sleepers seq_cst, align 4
  %any = icmp ne i32 %sleepers, 0
  br i1 %any, label %wake, label %done
wake:
  call void @pool.wake(ptr @pool.epoch)
  br label %done
done:
  ret void
}}

define {linkage}void @{run}(ptr %task, ptr %operands) {{
entry:
  store ptr %task, ptr @pool.task
  store ptr %operands, ptr @pool.operands
  store atomic i32 {parts}, ptr @pool.pending monotonic, align 4
  store atomic i32 0, ptr @pool.next seq_cst, align 4
  call void @pool.wake_all()
  call void @pool.work()
  br label %wait
wait:
  %pending = load atomic i32, ptr @pool.pending acquire, align 4
  %ended = icmp eq i32 %pending, 0
  br i1 %ended, label %done, label %spin
spin:
  %soon = call i1 @pool.spin(ptr @pool.pending, i32 %pending)
  br i1 %soon, label %wait, label %sleep
sleep:
  store atomic i32 1, ptr @pool.caller_sleeps seq_cst, align 4
  %still = load atomic i32, ptr @pool.pending seq_cst, align 4
  %over = icmp eq i32 %still, 0
  br i1 %over, label %awake, label %futex
futex:
  call void @pool.sleep(ptr @pool.pending, i32 %still)
  br label %awake
awake:
  store atomic i32 0, ptr @pool.caller_sleeps seq_cst, align 4
  br label %wait
done:
  ret void
}}

; Starts the threads unless this process has them.
define internal void @pool.start() {{
entry:
  %process = call i32 @getpid()
  %before = load i32, ptr @pool.process
  %running = icmp eq i32 %process, %before
  br i1 %running, label %done, label %reset
reset:
  store i32 %process, ptr @pool.process
  store i32 0, ptr @pool.epoch
  store i32 0, ptr @pool.pending
  store i32 0, ptr @pool.sleepers
  store i32 0, ptr @pool.caller_sleeps
  store i32 0, ptr @pool.stop
  store i32 {parts}, ptr @pool.next
  br label %check
check:
  %n = phi i64 [ 0, %reset ], [ %next, %create ]
  %count = trunc i64 %n to i32
  store i32 %count, ptr @pool.workers
  %more = icmp ult i64 %n, {workers}
  br i1 %more, label %create, label %done
create:
  %thread = getelementptr i64, ptr @pool.threads, i64 %n
  %next = add i64 %n, 1
  %refused = call i32 @pthread_create(ptr %thread, ptr null, ptr @pool.worker, ptr null)
  %started = icmp eq i32 %refused, 0
  br i1 %started, label %check, label %done
done:
  ret void
}}

define void @{stop}() {{
entry:
  %process = call i32 @getpid()
  %before = load i32, ptr @pool.process
  %running = icmp eq i32 %process, %before
  br i1 %running, label %stop, label %done
stop:
  %workers = load i32, ptr @pool.workers
  store atomic i32 1, ptr @pool.stop seq_cst, align 4
  call void @pool.wake_all()
  br label %check
check:
  %n = phi i32 [ 0, %stop ], [ %next, %join ]
  %more = icmp ult i32 %n, %workers
  br i1 %more, label %join, label %stopped
join:
  %place = getelementptr i64, ptr @pool.threads, i32 %n
  %thread = load i64, ptr %place
  %r = call i32 @pthread_join(i64 %thread, ptr null)
  %next = add i32 %n, 1
  br label %check
stopped:
  store i32 0, ptr @pool.process
  br label %done
done:
  ret void
}}
"""


def pool_text(target: Target, shared: bool) -> str:
    """LLVM IR of the pool of a target with several threads; `shared`: other modules call it."""
    architecture = target.triple.split("-")[0]
    declare_pause, pause = _PAUSE[architecture]
    return _TEXT.format(
        workers=target.threads - 1,
        parts=target.threads,
        futex=_FUTEX[architecture],
        spins=_SPINS,
        declare_pause=declare_pause,
        pause=pause,
        linkage="" if shared else "internal ",
        run=RUN,
        stop=STOP,
    )
