"""Objects with threads, linked by a C compiler: the same code on x86-64 and AArch64."""

from pathlib import Path

import pytest

from niwaki.backends.c.toolchain import build_linux, run_program
from niwaki.backends.llvm.object import object_code
from niwaki.backends.targets import get_target, with_threads
from niwaki.ir.builder import ProgramBuilder
from niwaki.passes.lower_to_plan import lower
from niwaki.passes.schedule import schedule
from tests.c_programs import TIMEOUT, need_tools

COUNT = 64 * 256
MAIN = """
#include <stdio.h>

void forward(void **block);
void stop_threads(void);

static float x[COUNT], y[COUNT];
static char arena[ARENA];

static int threads(void)
{
    char line[256];
    int count = 0;
    FILE *status = fopen("/proc/self/status", "r");
    while (fgets(line, sizeof line, status) != NULL)
        sscanf(line, "Threads: %d", &count);
    fclose(status);
    return count;
}

int main(void)
{
    void *block[] = {arena, NULL, NULL, x, y};
    const int before = threads();
    for (int run = 0; run < 100; ++run) {
        for (int i = 0; i < COUNT; ++i)
            x[i] = (float)(i + run);
        forward(block);
        for (int i = 0; i < COUNT; ++i)
            if (y[i] != 2.0f * (float)(i + run))
                return 1;
    }
    if (threads() != before + 2)
        return 2;
    stop_threads();
    return threads() == before ? 0 : 3;
}
"""


@pytest.mark.parametrize("name", ["x86-64", "aarch64"])
def test_object_in_a_program(name: str, tmp_path: Path) -> None:
    target = with_threads(get_target(name), 3)
    need_tools(target)
    b = ProgramBuilder()
    x = b.input((64, 256))
    program = b.finish(b.add(x, x))
    schedule(program.module, target)
    lowered = lower(program, target)
    code, main = tmp_path / "step.o", tmp_path / "main.c"
    code.write_bytes(object_code(lowered, target))
    main.write_text(
        MAIN.replace("COUNT", str(COUNT)).replace("ARENA", str(max(lowered.arena_bytes, 1)))
    )
    built = build_linux([main, code], tmp_path / "program", target, ("-pthread",))
    result = run_program(built, TIMEOUT)
    assert result.code == 0, result.output
