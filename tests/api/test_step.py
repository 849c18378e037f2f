"""The public face: the digits example compiled, trained, saved, and misused."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import niwaki
from niwaki.ir.weights import Array

EXAMPLES = Path(__file__).parents[2] / "examples"
MODEL = EXAMPLES / "digits.pt2"
BATCH = 8


def _digits() -> dict[str, Array]:
    with np.load(EXAMPLES / "digits.npz", allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    arrays["images"] = (arrays["images"] / np.float32(16))[:, None]
    return arrays


DIGITS = _digits()
X, Y = DIGITS["images"][:BATCH], DIGITS["labels"][:BATCH]


@pytest.fixture(scope="module")
def program() -> niwaki.Program:
    return niwaki.load(MODEL)


def _compile(program: niwaki.Program, **options: object) -> niwaki.TrainingStep:
    defaults: dict[str, object] = {"batch": BATCH, "update": "last_layers(2)"}
    return niwaki.compile(program, **{**defaults, **options})  # pyright: ignore[reportArgumentType]


@pytest.fixture(scope="module")
def fresh(program: niwaki.Program) -> niwaki.TrainingStep:
    """A step that no test changes."""
    return _compile(program)


def _batches(indices: Array) -> list[Array]:
    return list(indices[: len(indices) // BATCH * BATCH].reshape(-1, BATCH))


def _accuracy(step: niwaki.TrainingStep, indices: Array) -> float:
    batches = _batches(indices)
    right = [step.evaluate(DIGITS["images"][b], DIGITS["labels"][b])[1] for b in batches]
    return sum(r for r in right if r is not None) / (len(batches) * BATCH)


@pytest.mark.parametrize("update", ["full", "last_layers(2)", niwaki.Scheme.channels({2: 0.5}, 2)])
def test_learns_new_digits(program: niwaki.Program, update: str | niwaki.Scheme) -> None:
    step = _compile(program, update=update, optimizer=niwaki.SGD(lr=0.03))
    held_out = DIGITS["finetune_test"]
    assert _accuracy(step, held_out) < 0.1
    order = np.random.default_rng(0).permutation(DIGITS["finetune_train"])
    for b in _batches(order):
        step(DIGITS["images"][b], DIGITS["labels"][b])
    assert _accuracy(step, held_out) > 0.85


def test_same_seed_same_bits(program: niwaki.Program) -> None:
    first, second = (_compile(program, optimizer=niwaki.Adam(lr=0.01)) for _ in range(2))
    assert [first(X, Y) for _ in range(3)] == [second(X, Y) for _ in range(3)]
    for name, array in first.parameters.items():
        np.testing.assert_array_equal(array, second.parameters[name])


def test_parameters_have_the_users_layout(fresh: niwaki.TrainingStep) -> None:
    assert fresh.parameters["conv2.weight"].shape == (16, 8, 3, 3)
    assert fresh.parameters["fc.bias"].shape == (10,)
    assert set(fresh.parameters) == {
        f"{layer}.{kind}"
        for layer in ("conv1", "conv2", "conv3", "fc")
        for kind in ("weight", "bias")
    }


def test_only_the_scheme_moves(program: niwaki.Program) -> None:
    step = _compile(program, update=niwaki.Scheme.channels({2: 0.5}, biases=1))
    before = dict(step.parameters)
    step(X, Y)
    after = step.parameters
    moved = {name for name in before if not np.array_equal(before[name], after[name])}
    assert moved == {"conv3.weight", "fc.weight", "fc.bias"}
    changed = before["conv3.weight"] != after["conv3.weight"]
    assert changed[:, :8].any()
    assert not changed[:, 8:].any()


def test_lr_is_a_run_time_value(program: niwaki.Program) -> None:
    step = _compile(program, optimizer=niwaki.SGD(lr=0.25))
    assert step.lr == 0.25
    step.lr = 0.0
    before = step.parameters["fc.weight"]
    step(X, Y)
    np.testing.assert_array_equal(step.parameters["fc.weight"], before)
    for wrong in (-1.0, float("nan"), float("inf")):
        with pytest.raises(niwaki.UsageError, match="lr must be"):
            step.lr = wrong


def test_infer_and_evaluate_change_nothing(fresh: niwaki.TrainingStep) -> None:
    loss, correct = fresh.evaluate(X, Y)
    logits = fresh.infer(X)
    assert isinstance(logits, np.ndarray)
    assert correct == (logits.argmax(1) == Y).sum()
    shifted = logits - logits.max(1, keepdims=True)
    expected = np.log(np.exp(shifted).sum(1)) - shifted[np.arange(BATCH), Y]
    np.testing.assert_allclose(loss, expected.mean(), rtol=1e-5)
    assert fresh.evaluate(X, Y) == (loss, correct)


def test_other_losses_count_nothing(program: niwaki.Program) -> None:
    step = _compile(program, loss="mse")
    assert step.evaluate(X, np.zeros((BATCH, 10)))[1] is None


@pytest.mark.parametrize("optimizer", [niwaki.SGD(0.1, momentum=0.9), niwaki.AdamW(0.01)])
def test_save_and_load_continue_exactly(
    program: niwaki.Program, tmp_path: Path, optimizer: niwaki.SGD | niwaki.Adam
) -> None:
    step, other = (_compile(program, optimizer=optimizer) for _ in range(2))
    step(X, Y)
    step.lr = 0.5 * step.lr
    step.save(tmp_path / "state.safetensors")
    other.load(tmp_path / "state.safetensors")
    assert other.lr == step.lr
    assert [step(X, Y) for _ in range(3)] == [other(X, Y) for _ in range(3)]
    saved = load_file(tmp_path / "state.safetensors")
    assert saved["conv3.weight"].shape == (32, 16, 3, 3)


def test_reset_starts_again(program: niwaki.Program) -> None:
    step = _compile(program, optimizer=niwaki.SGD(lr=0.05, momentum=0.9))
    losses = [step(X, Y) for _ in range(3)]
    step.reset()
    assert [step(X, Y) for _ in range(3)] == losses


def test_a_file_that_does_not_fit_changes_nothing(program: niwaki.Program, tmp_path: Path) -> None:
    _compile(program, update="head").save(tmp_path / "head.safetensors")
    step = _compile(program)
    (tmp_path / "damaged.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}")
    before = step(X, Y), step.parameters["fc.weight"], step.lr
    with pytest.raises(niwaki.UsageError, match="another model, update scheme"):
        step.load(tmp_path / "head.safetensors")
    with pytest.raises(niwaki.ModelFileError, match="damaged"):
        step.load(tmp_path / "damaged.safetensors")
    np.testing.assert_array_equal(step.parameters["fc.weight"], before[1])
    assert step.lr == before[2]


def test_memory(program: niwaki.Program, fresh: niwaki.TrainingStep) -> None:
    full, sparse = _compile(program, update="full").memory, fresh.memory
    assert full.lower_bound_bytes <= full.arena_bytes
    assert sparse.arena_bytes < full.arena_bytes
    assert sparse.state_bytes < full.state_bytes
    assert sparse.constant_bytes > full.constant_bytes
    assert "train_step" in sparse.table()
    assert "conv3" in sparse.table()


def test_memory_limit(program: niwaki.Program, fresh: niwaki.TrainingStep) -> None:
    memory = fresh.memory
    need = memory.arena_bytes + memory.state_bytes
    assert _compile(program, memory_limit=need).memory.savings is None
    with pytest.raises(niwaki.DoesNotFitError, match=f"the limit is {memory.state_bytes:,}"):
        _compile(program, memory_limit=memory.state_bytes)


def test_another_machine(program: niwaki.Program) -> None:
    step = _compile(program, target="cortex-m7")
    assert step.object_code().startswith(b"\x7fELF\x01")
    with pytest.raises(niwaki.UsageError, match="compiled for cortex-m7 and cannot run here"):
        step(X, Y)


def test_wrong_arrays(fresh: niwaki.TrainingStep) -> None:
    with pytest.raises(niwaki.UsageError, match="compile with batch=4"):
        fresh(X[:4], Y[:4])
    with pytest.raises(niwaki.UsageError, match="'target' must be int32"):
        fresh(X, Y.astype(np.float32))
    for call in (fresh, fresh.evaluate):
        with pytest.raises(niwaki.UsageError, match="label 10 is none of 0 to 9"):
            call(X, np.full(BATCH, 10))
    with pytest.raises(niwaki.UsageError, match="takes 1 array"):
        fresh.infer(X, Y)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "hinge"}, "unknown loss 'hinge'"),
        ({"update": "some"}, "unknown update 'some'"),
        ({"target": "z80"}, "unknown target 'z80'"),
        ({"batch": 0}, "batch"),
        ({"threads": 0}, "threads must be >= 1, got 0"),
        ({"threads": 2, "target": "cortex-m7"}, "steps for cortex-m7 run on one thread"),
        ({"batch_norm": "melt"}, "unknown batch_norm"),
    ],
)
def test_wrong_options(program: niwaki.Program, options: dict[str, object], message: str) -> None:
    with pytest.raises(niwaki.UsageError, match=message):
        _compile(program, **options)


def test_threads_change_no_bit(program: niwaki.Program) -> None:
    steps = [_compile(program, threads=n) for n in (1, 2)]
    assert steps[0](X, Y) == steps[1](X, Y)
    for name, value in steps[0].parameters.items():
        assert value.tobytes() == steps[1].parameters[name].tobytes()
    for step in steps:
        step.close()
    assert steps[0](X, Y) == steps[1](X, Y)


def test_the_program_stays_as_it_is(program: niwaki.Program) -> None:
    before = str(program.module)
    step = _compile(program)
    step(X, Y)
    assert str(program.module) == before


def test_names_of_the_module() -> None:
    for name in dir(niwaki):
        assert getattr(niwaki, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'train'"):
        niwaki.train  # noqa: B018  # pyright: ignore
