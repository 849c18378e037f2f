"""Decoders from their configuration: as torch computes them, and what is refused."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from xdsl.dialects.builtin import bf16

import niwaki
from niwaki.frontends.decoder_config import DecoderConfig, LowRank, decoder, load
from niwaki.ir.dialects import train
from niwaki.ir.dialects.tensor_op import shape_of, type_of
from niwaki.ir.effects import verify
from niwaki.ir.errors import ModelFileError, UsageError
from niwaki.ir.interpreter import run
from niwaki.ir.program import Program
from tests.decoders import CONFIG, CONFIGS, Decoder, tokens

FILE = {
    "model_type": "llama",
    "hidden_act": "silu",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 50,
    "max_position_embeddings": 16,
    "rms_norm_eps": 1e-5,
    "rope_theta": 100.0,
    "torch_dtype": "float32",
}


def _write(folder: Path, **changes: object) -> Path:
    path = folder / "config.json"
    members = {k: v for k, v in {**FILE, **changes}.items() if v is not None}
    path.write_text(json.dumps(members), encoding="utf-8")
    return path


def _parameters(program: Program) -> dict[str, train.ParameterOp]:
    return {op.key: op for op in program.module.walk() if isinstance(op, train.ParameterOp)}


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("adapters", [None, LowRank(3, ("q", "v", "down"))])
def test_logits_are_those_of_torch(name: str, adapters: LowRank | None) -> None:
    config = CONFIGS[name]
    model = Decoder(config, adapters)
    x = tokens(config, 2, 7)[:, :-1]
    program = decoder(config, 2, 7, model.arrays(), adapters)
    verify(program.module)
    (logits,) = run(program, "forward", [x])
    with torch.no_grad():
        expected = model(torch.tensor(x.astype(np.int64)))
    np.testing.assert_allclose(logits, expected, rtol=2e-4, atol=2e-5)


def test_the_file_gives_the_sizes(tmp_path: Path) -> None:
    assert DecoderConfig.read(_write(tmp_path)) == CONFIG


def test_defaults_of_the_file(tmp_path: Path) -> None:
    path = _write(
        tmp_path, num_key_value_heads=None, torch_dtype=None, rms_norm_eps=None, rope_theta=None
    )
    wanted = replace(CONFIG, key_value_heads=4, epsilon=1e-6, rope_theta=10_000.0)
    assert DecoderConfig.read(path) == wanted


def test_without_weights_types_and_names_stay(tmp_path: Path) -> None:
    program = load(_write(tmp_path, torch_dtype="bfloat16"), 3, 8)
    verify(program.module)
    assert len(program.weights) == 0
    kinds = {op.key: type_of(op.value) for op in _parameters(program).values()}
    assert {kind.element_type for kind in kinds.values()} == {bf16}
    expected = {name: p.shape for name, p in Decoder(CONFIG).arrays().items()}
    assert expected.items() <= {name: kind.get_shape() for name, kind in kinds.items()}.items()
    logits = program.function("forward").body.block.last_op
    assert logits is not None
    assert shape_of(logits.operands[0]) == (3, 8, 50)


def test_without_weights_nothing_is_compiled(tmp_path: Path) -> None:
    program = load(_write(tmp_path, torch_dtype="bfloat16"), 1, 4)
    with pytest.raises(UsageError, match="only plan its memory"):
        niwaki.compile(program)


def test_adapters_freeze_the_rest(tmp_path: Path) -> None:
    parameters = _parameters(load(_write(tmp_path), 1, 8, LowRank(2)))
    trained = {name: shape_of(op.value) for name, op in parameters.items() if op.fixed is None}
    block = "model.layers.0.self_attn"
    assert trained[f"{block}.q_proj.lora_A.weight"] == (2, 32)
    assert trained[f"{block}.v_proj.lora_B.weight"] == (16, 2)
    assert len(trained) == 8
    assert all("lora" in name for name in trained)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "mamba"}, "model_type is 'mamba'; known is llama"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'; known is silu"),
        ({"attention_bias": True}, "attention_bias is not known"),
        ({"rope_scaling": {"type": "linear"}}, "rope_scaling is not known"),
        ({"head_dim": 4}, "head_dim is not"),
        ({"torch_dtype": "float8"}, "weights of float8; known are float32, bfloat16, float16"),
    ],
)
def test_another_architecture_is_an_error(tmp_path: Path, changes, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        DecoderConfig.read(_write(tmp_path, **changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": None}, "'hidden_size' is missing"),
        ({"hidden_size": 33}, "do not go into each other"),
        ({"num_key_value_heads": 3}, "do not go into each other"),
        ({"num_hidden_layers": 10**9}, "'num_hidden_layers' must be between 1 and 1024"),
        ({"vocab_size": 0}, "'vocab_size' must be between"),
        ({"vocab_size": "many"}, "expected an integer"),
        ({"rms_norm_eps": -1.0}, "must be a positive number"),
    ],
)
def test_a_damaged_file_is_an_error(tmp_path: Path, changes, message: str) -> None:
    with pytest.raises(ModelFileError, match=message):
        DecoderConfig.read(_write(tmp_path, **changes))


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read"):
        DecoderConfig.read(tmp_path / "config.json")


@pytest.mark.parametrize(("batch", "sequence"), [(0, 4), (1, 0), (1, 17)])
def test_sizes_must_fit(batch: int, sequence: int) -> None:
    with pytest.raises(UsageError, match="at most 16"):
        decoder(CONFIG, batch, sequence)


def test_weights_must_fit() -> None:
    weights = {**Decoder(CONFIG).arrays(), "model.norm.weight": np.ones(31, np.float32)}
    with pytest.raises(UsageError, match=r"'model\.norm\.weight' must be .* \[32\]"):
        decoder(CONFIG, 1, 4, weights)
    with pytest.raises(UsageError, match="computes in float32"):
        decoder(replace(CONFIG, element=bf16), 1, 4, weights)


@pytest.mark.parametrize(("rank", "targets"), [(0, ("q",)), (8, ("query",)), (8, ())])
def test_adapters_must_make_sense(rank: int, targets: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="LoRA"):
        LowRank(rank, targets)
