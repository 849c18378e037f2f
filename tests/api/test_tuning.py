"""Measured kernel choice: what is measured, kept, used and ignored."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import niwaki
from niwaki.backends.targets import get_target
from niwaki.passes.kernel_library import Kernel
from niwaki.tuner import fastest
from niwaki.tuning import Machine

EXAMPLES = Path(__file__).parents[2] / "examples"
MODEL = EXAMPLES / "digits.pt2"
BATCH = 8
# Losses of steps that add up in another order.
TOLERANCE = 1e-4


def compiled(tuning: niwaki.Tuning | str | Path | None = None) -> niwaki.TrainingStep:
    return niwaki.compile(niwaki.load(MODEL), batch=BATCH, tuning=tuning)


def kernels(step: niwaki.TrainingStep) -> dict[str, Kernel]:
    """By label, those with a choice."""
    return {kernel.label: kernel for kernel in step.choices}


def others(step: niwaki.TrainingStep) -> niwaki.Tuning:
    """Of every kernel, the alternative that the model likes least."""
    names = {label: kernel.alternatives[-1].name for label, kernel in kernels(step).items()}
    return niwaki.Tuning().updated(step.target, names)


@pytest.fixture(scope="module")
def untuned() -> niwaki.TrainingStep:
    return compiled()


def test_steps_agree(untuned: niwaki.TrainingStep) -> None:
    tuned = compiled(others(untuned))
    assert tuned.tuned_kernels == len(kernels(untuned)) > 3
    assert untuned.tuned_kernels == 0
    rng = np.random.default_rng(0)
    (shape,) = (port.shape for port in untuned.lowered.entries["train_step"].inputs[:1])
    x = rng.standard_normal(shape).astype(np.float32)
    y = rng.integers(0, 10, shape[0])
    for _ in range(5):
        assert tuned(x, y) == pytest.approx(untuned(x, y), rel=TOLERANCE)
    untuned.reset()


def test_same_file_same_bytes(untuned: niwaki.TrainingStep, tmp_path: Path) -> None:
    file, again = tmp_path / "a.json", tmp_path / "b.json"
    others(untuned).write(file)
    niwaki.Tuning.read(file).write(again)
    assert file.read_bytes() == again.read_bytes()
    texts = [compiled(str(file)).llvm_text() for _ in range(2)]
    assert texts[0] == texts[1] != untuned.llvm_text()


def test_objects_in_the_cache_follow_the_choice(untuned: niwaki.TrainingStep) -> None:
    tuned = compiled(others(untuned))
    for label, kernel in kernels(tuned).items():
        assert kernel.identity != kernels(untuned)[label].identity


@pytest.mark.parametrize("key", ["cpu", "features", "tools", "threads"])
def test_other_machines_and_versions_are_ignored_and_kept(
    untuned: niwaki.TrainingStep, key: str, tmp_path: Path
) -> None:
    file = tmp_path / "tuning.json"
    others(untuned).write(file)
    document = json.loads(file.read_text())
    (machine,) = document["machines"]
    machine[key] = 2 if key == "threads" else "other"
    file.write_text(json.dumps(document))
    assert compiled(file).tuned_kernels == 0
    merged = niwaki.Tuning.read(file).updated(untuned.target, {"matmul 0": "packed-product"})
    assert len(merged.choices) == 2
    assert merged.of(untuned.target) == {"matmul 0": "packed-product"}


def test_unknown_alternatives_leave_the_models_choice(untuned: niwaki.TrainingStep) -> None:
    names = dict.fromkeys(kernels(untuned), "gone")
    step = compiled(niwaki.Tuning().updated(untuned.target, names))
    assert (step.tuned_kernels, step.llvm_text()) == (0, untuned.llvm_text())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"format": 2, "machines": []}',
        '{"format": 1}',
        '{"format": 1, "machines": [1]}',
        '{"format": 1, "machines": [{"cpu": "c"}]}',
        '{"format": 1, "machines": [{"cpu": "c", "features": "f", "threads": "1", "tools": "t",'
        ' "choices": {}}]}',
        '{"format": 1, "machines": [{"cpu": "c", "features": "f", "threads": 1, "tools": "t",'
        ' "choices": {"a": 1}}]}',
        '{"format": 1, "machines": [{"cpu": "c", "features": "f", "threads": 1, "tools": "t",'
        ' "choices": ["a"]}]}',
    ],
)
def test_damaged_file(text: str, tmp_path: Path) -> None:
    file = tmp_path / "tuning.json"
    file.write_text(text)
    with pytest.raises(niwaki.UsageError, match="is damaged"):
        compiled(file)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(niwaki.UsageError, match="cannot read"):
        compiled(tmp_path / "none.json")


def test_tuning_of_another_target(untuned: niwaki.TrainingStep) -> None:
    with pytest.raises(niwaki.UsageError, match="this machine"):
        niwaki.compile(niwaki.load(MODEL), target="cortex-m4", tuning=others(untuned))


def test_measures_every_kernel_in_time(untuned: niwaki.TrainingStep) -> None:
    reports: list[tuple[int, int]] = []
    found = untuned.tune(30, lambda done, total: reports.append((done, total)))
    choices = found.of(untuned.target)
    assert set(choices) == set(kernels(untuned))
    for label, name in choices.items():
        assert name in [a.name for a in kernels(untuned)[label].alternatives]
    assert reports == [(n, len(choices)) for n in range(len(choices))]
    assert compiled(found).tuned_kernels <= len(choices)
    assert untuned.tune(0).of(untuned.target) == {}


def test_the_models_choice_stays_unless_another_clearly_wins(
    untuned: niwaki.TrainingStep,
) -> None:
    kernel = next(iter(kernels(untuned).values()))
    preferred, other = (a.name for a in kernel.alternatives[:2])
    assert fastest(kernel, {preferred: 1.0, other: 0.99}) == preferred
    assert fastest(kernel, {preferred: 1.0, other: 0.9}) == other


def test_machine_depends_on_what_code_depends_on() -> None:
    host = get_target("host")
    assert Machine.of(host) == Machine.of(replace(host, choices={"a": "b"}))
    changed = [replace(host, cpu="x"), replace(host, features="+x"), replace(host, threads=2)]
    assert len({Machine.of(target) for target in (host, *changed)}) == 4
