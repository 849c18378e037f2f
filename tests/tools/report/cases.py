"""Reports to draw: a small one, and one of ten thousand calls."""

from niwaki.ir.lowered import Buffer, CallInfo, EntryPoint
from niwaki.memory import readable
from niwaki.tools.report.contents import CallRow, EntryReport, Report
from niwaki.tools.report.savings import Saving
from niwaki.tools.report.trade_off import Point

HOSTILE = "</script><script>alert('x')</script><img src=x onerror=alert(1)>\u2028 $\\frac{ %{y} {{ 7 * 6 }} "


def entry(name: str = "train_step", label: str = "conv1") -> EntryPoint:
    return EntryPoint(
        name=name,
        inputs=(),
        outputs=(),
        arena_bytes=160,
        bound_bytes=128,
        buffers=(Buffer(label, 0, 64, 0, 1), Buffer("relu", 64, 64, 1, 2)),
        calls=tuple(
            CallInfo(f"kernel_{i}", f'loc("{label}"("model.py":{i}:0))', 10) for i in range(3)
        ),
    )


def large_entry(calls: int) -> EntryPoint:
    """Layers that keep their activation for the backward half, and a gradient between each two."""
    layers, size = calls // 2, 64
    buffers: list[Buffer] = []
    for layer in range(layers):
        end = calls - 1 - layer
        buffers.append(Buffer(f"activation {layer}", layer * size, size, layer, end))
        buffers.append(Buffer("gradient", layer * size + size, size, end, min(end + 1, calls - 1)))
    operations = ("conv2d", "elementwise", "max_pool2d", "matmul", "transpose", "reduce_sum")
    infos = tuple(
        CallInfo(f"{operations[i % 6]}_{i}", f'loc("layer{i}"("model.py":{i}:0))', i * 100)
        for i in range(calls)
    )
    arena = (layers + 1) * size
    return EntryPoint("train_step", (), (), arena, arena, tuple(buffers), infos)


def report(
    *entries: EntryPoint, title: str = "digits", trade_off: tuple[Point, ...] = ()
) -> Report:
    reports = tuple(_entry_report(e) for e in entries)
    return Report(title, (("update", title),), 24, 40, reports, trade_off)


def _entry_report(of: EntryPoint) -> EntryReport:
    calls = tuple(
        CallRow(c.kernel, c.op, readable(c.location), c.flops, 30, 20, live)
        for c, live in zip(of.calls, of.live_bytes, strict=True)
    )
    return EntryReport(of, calls, (Saving("masks as bits", 400, 160, "planned again"),))
