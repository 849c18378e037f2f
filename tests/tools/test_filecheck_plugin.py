"""The collector of .mlir tests: it passes what is right and explains what is wrong."""

from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

OP = "%x = nn.constant {value = 0.0 : f32, shape = array<i64>} : tensor<f32>"


@pytest.fixture
def outcome(pytester: pytest.Pytester):
    """Runs pytest on one .mlir file."""
    plugin = Path(__file__).parent.parent / "filecheck_plugin.py"
    pytester.makeconftest(plugin.read_text(encoding="utf-8"))

    def run(text: str) -> pytest.RunResult:
        pytester.makefile(".mlir", case=text)
        return pytester.runpytest_inprocess("-p", "no:cacheprovider")

    return run


def test_each_run_line_is_a_test(outcome):
    text = (
        "// RUN: niwaki-opt %s | filecheck %s\n"
        "// RUN: niwaki-opt %s --print-op-generic | niwaki-opt | filecheck %s\n"
        f"// CHECK: nn.constant\n{OP}\n"
    )
    outcome(text).assert_outcomes(passed=2)


def test_a_mismatch_shows_check_and_output(outcome):
    result = outcome(f"// RUN: niwaki-opt %s | filecheck %s\n// CHECK: nn.relu\n{OP}\n")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(['*Couldn\'t match "nn.relu".', "*----- output -----*", "*nn.c*"])


def test_an_error_of_the_tool_fails_the_test(outcome):
    result = outcome("// RUN: niwaki-opt %s | filecheck %s\n// CHECK: x\nnn.fly\n")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["exit code 2", "*nn.fly is not registered*"])


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("cat %s | filecheck %s", "only niwaki-opt may precede filecheck, not 'cat'"),
        ("niwaki-opt %s", "the last command must be filecheck, not 'niwaki-opt'"),
    ],
)
def test_other_commands_are_refused(outcome, command: str, message: str):
    result = outcome(f"// RUN: {command}\n{OP}\n")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([f"*{message}*"])


def test_a_file_without_a_run_line_is_an_error(outcome):
    result = outcome(f"{OP}\n")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*has no '// RUN:' line*"])
