"""`niwaki report --plan-only`."""

import json
from pathlib import Path

import pytest

from niwaki.ir.training import Scheme
from niwaki.tools import driver

EXAMPLES = Path(__file__).parents[2] / "examples"
MODEL = EXAMPLES / "digits.pt2"
LLAMA = json.loads((EXAMPLES / "llama-2-7b.json").read_text(encoding="utf-8"))


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """LLaMA-2-7B with two of its 32 blocks."""
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**LLAMA, "num_hidden_layers": 2}), encoding="utf-8")
    return path


def _figures(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> dict[str, int]:
    assert driver.main(["report", *map(str, arguments), "--plan-only", "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_decoder_of_seven_billion_needs_no_weights(config: Path, capsys) -> None:
    figures = _figures(capsys, config, "--sequence", "128", "--momentum", "0.9")
    trained = 2 * (2 * 32000 * 4096 + 4096 + 2 * (2 * 4096 + 4 * 4096**2 + 3 * 4096 * 11008))
    assert figures["trained_weights_bytes"] == figures["optimizer_bytes"] == trained
    embedding = 2 * 32000 * 4096
    assert embedding <= figures["gradients_bytes"] < 1.1 * embedding
    assert figures["total_bytes"] == (
        figures["weights_bytes"] + figures["optimizer_bytes"] + figures["arena_bytes"]
    )


def test_adapters(config: Path, capsys) -> None:
    flags = ["--sequence", "64", "--lora-rank", "8", "--lora-targets", "q,k"]
    assert _figures(capsys, config, *flags)["trained_weights_bytes"] == 2 * 2 * 2 * 8 * 2 * 4096


def test_a_scheme_names_the_weights_of_a_decoder(config: Path, tmp_path: Path, capsys) -> None:
    scheme = tmp_path / "scheme.toml"
    scheme.write_text(
        "biases = 0\nhead = false\n[weights]\n'model.layers.1.self_attn.o_proj.weight' = 1.0\n"
    )
    figures = _figures(capsys, config, "--sequence", "64", "--update", str(scheme))
    assert figures["trained_weights_bytes"] == 2 * 4096**2


def test_the_shipped_scheme_names_layers_of_the_shipped_configuration() -> None:
    scheme = Scheme.from_toml(EXAMPLES / "llama-2-7b-sparse.toml")
    assert scheme.weights is not None
    blocks = {int(name.split(".")[2]) for name in scheme.weights}
    assert blocks == set(range(LLAMA["num_hidden_layers"] - 5, LLAMA["num_hidden_layers"]))


def test_activations_with_fewer_bits(capsys) -> None:
    exact, rounded = (
        _figures(capsys, MODEL, "--batch", "64", *flags) for flags in ([], ["--stash", "bf16"])
    )
    assert rounded["total_bytes"] < exact["total_bytes"]


def test_any_model(capsys, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert driver.main(["report", str(MODEL), "--plan-only", "--batch", "4"]) == 0
    table = capsys.readouterr().out
    assert [line.split()[0] for line in table.splitlines()[1:7]] == [
        "weights", "optimizer", "activations", "gradients", "workspace", "total",
    ]  # fmt: skip
    assert "conv3 (make_digits.py:33)" in table
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([MODEL, "--sequence", "4"], "belong to the config.json"),
        ([MODEL, "--memory-limit", "1M"], "takes neither --memory-limit"),
        ([EXAMPLES / "llama-2-7b.json", "--sequence", "5000"], "at most 4096"),
        ([EXAMPLES / "llama-2-7b.json", "--lora-rank", "0"], "rank of LoRA"),
        (["missing.json"], "cannot read missing.json"),
    ],
)
def test_wrong_flags(arguments: list[object], message: str, capsys) -> None:
    assert driver.main(["report", *map(str, arguments), "--plan-only"]) == 2
    assert message in capsys.readouterr().err
