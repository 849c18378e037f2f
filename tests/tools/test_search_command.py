"""`niwaki search` on the digits: the scheme it finds, the file it keeps, what it refuses."""

import json
from pathlib import Path

import pytest

from niwaki.frontends.load import load
from niwaki.ir.training import Scheme
from niwaki.passes.update_memory import update_bytes
from tests.tools.test_driver import MODEL, data_file, run

BUDGET = 1640
"""Of bytes: four depths of biases, and two ways to update weights."""


def test_finds_a_scheme_and_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = data_file(tmp_path / "data.npz", "finetune_train", 400)
    test = data_file(tmp_path / "test.npz", "finetune_test", 200)
    out, state = tmp_path / "scheme.toml", tmp_path / "scheme.jsonl"
    flags: list[str | Path] = ["--data", data, "--test-data", test, "-o", out, "--json"]
    flags += ["--batch", "8", "--lr", "0.02", "--steps", "30"]

    assert run("search", MODEL, *flags, "--budget", str(BUDGET)) == 0

    result = json.loads(capsys.readouterr().out)
    scheme = Scheme.from_toml(out)
    assert (scheme.biases, scheme.weights) == (result["biases"], result["weights"])
    size = update_bytes(load(MODEL).function("forward"), scheme)
    assert size == result["update_bytes"] <= BUDGET
    assert result["scheme"]["accuracy"] >= result["head"]["accuracy"]
    assert result["scheme"]["loss"] < result["head"]["loss"]
    assert out.read_text().startswith("# Found by niwaki search for digits.pt2.\n")

    measured = state.read_bytes()
    picture = tmp_path / "contributions.png"
    assert run("search", MODEL, *flags, "--budget", "1K", "--picture", picture) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["update_bytes"] <= 1024
    assert result["predicted_gain"] == result["head"]["loss"] - result["scheme"]["loss"]
    assert state.read_bytes() == measured
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--steps", "0"], "--steps must be >= 1"),
        (["--repeats", "0"], "--repeats must be >= 1"),
        (["--jobs", "0"], "--jobs must be >= 1"),
        (["-o", "scheme.txt"], "must be a .toml file"),
        (["--picture", "p.svg"], "must be a .png file"),
        (["--data", "none.npz"], "cannot read none.npz"),
    ],
)
def test_mistakes(flags: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    usual = ["--budget", "1K", "--data", "d.npz", "-o", "scheme.toml"]
    assert run("search", MODEL, *usual, *flags) == 2
    assert message in capsys.readouterr().err


def test_a_budget_that_is_too_small(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = data_file(tmp_path / "data.npz", "finetune_train", 40)
    out = tmp_path / "scheme.toml"
    assert run("search", MODEL, "--budget", "511", "--data", data, "-o", out) == 4
    assert "the head alone needs 512 bytes, the budget is 511" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [data]


def test_too_few_samples_to_hold_any_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = data_file(tmp_path / "data.npz", "finetune_train", 12)
    flags = ["--batch", "8", "--steps", "1", "-o", tmp_path / "scheme.toml"]
    assert run("search", MODEL, "--budget", "1K", "--data", data, *flags) == 2
    assert "3 sample(s), fewer than a batch of 8" in capsys.readouterr().err
