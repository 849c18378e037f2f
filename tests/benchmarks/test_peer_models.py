"""The models of the comparison: one statement, the same numbers in every layout."""

from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.peers.frameworks import niwaki_step, torch_step
from benchmarks.peers.models import Layout, Model, Net, Parameter
from benchmarks.peers.networks import MODELS
from niwaki.ir.interpreter import run


def torch_logits(model: Model, batch: int) -> np.ndarray:
    """Of the initial parameters, in PyTorch."""
    arrays = model.arrays(torch_step.LAYOUT)
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    x, _ = model.data(batch, torch_step.LAYOUT)
    return model.network(Net(torch_step.TorchOps(), tensors), torch.from_numpy(x)).numpy()


def test_millions_of_parameters() -> None:
    def millions(name: str) -> float:
        parameters = [p for p in MODELS[name].parameters() if p.constant is None]
        return round(sum(float(np.prod(p.shape)) for p in parameters) / 1e6, 1)

    assert {name: millions(name) for name in MODELS} == {
        "mlp": 0.2,
        "lenet": 0.1,
        "mobilenetv2-w0.35-128": 0.2,
        "mobilenetv2-w1.0-224": 3.5,
        "resnet18-224": 11.7,
        "encoder-6x384": 22.6,
        "decoder-8x512": 33.7,
    }


def test_arrays_do_not_depend_on_the_call() -> None:
    first, second = (MODELS["lenet"].arrays(Layout()) for _ in range(2))
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert not np.array_equal(first["fc3.weight"][0], first["fc3.weight"][1])


def test_layouts_of_filters() -> None:
    array = np.arange(48, dtype=np.float32).reshape(4, 3, 2, 2)
    hwio = Layout(channels_last=True, filter_axes=(2, 3, 1, 0), depthwise_axes=(2, 3, 0, 1))
    plain, depthwise = Parameter("w", array.shape, 1.0), Parameter("w", array.shape, 1.0, groups=4)
    assert hwio.parameter(plain, array)[1, 0, 2, 3] == array[3, 2, 1, 0]
    assert hwio.parameter(depthwise, array)[1, 0, 3, 2] == array[3, 2, 1, 0]


def test_matrix_behind_an_image_keeps_its_products() -> None:
    image, matrix = np.random.default_rng(0).random((2, 5, 2, 3, 4)).astype(np.float32)
    declared = Parameter("w", (5, 24), 1.0, image=(2, 3, 4))
    last = Layout(channels_last=True, transposed_matrices=True)
    w = last.parameter(declared, matrix.reshape(5, 24))
    expected = image.reshape(5, 24) @ matrix.reshape(5, 24).T
    np.testing.assert_allclose(last.images(image).reshape(5, 24) @ w, expected, rtol=1e-5)


def test_tables_are_not_transposed() -> None:
    table = np.zeros((7, 3), np.float32)
    declared = Parameter("tokens", table.shape, 1.0, is_table=True)
    assert Layout(transposed_matrices=True).parameter(declared, table).shape == (7, 3)


@pytest.mark.parametrize(
    ("update", "expected"),
    [
        ("bias", ["conv1.bias", "conv2.bias", "fc1.bias", "fc2.bias", "fc3.weight", "fc3.bias"]),
        ("last", ["fc2.weight", "fc2.bias", "fc3.weight", "fc3.bias"]),
    ],
)
def test_trainable(update: str, expected: list[str]) -> None:
    assert MODELS["lenet"].trainable(update) == expected


def test_constants_are_not_trained() -> None:
    names = MODELS["decoder-8x512"].trainable("full")
    assert "tokens.weight" in names
    assert not any(name.startswith("rotary") for name in names)


def test_scheme_has_no_whole_tensors() -> None:
    with pytest.raises(ValueError, match="moves parts of tensors"):
        MODELS["mobilenetv2-w0.35-128"].trainable("scheme")


@pytest.mark.parametrize("name", ["mlp", "lenet", "mobilenetv2-w0.35-128"])
def test_niwaki_and_torch_compute_the_same(name: str) -> None:
    model = MODELS[name]
    program = niwaki_step.program(model, 2)
    x, _ = model.data(2, niwaki_step.LAYOUT)
    (logits,) = run(program, "forward", [x])
    expected = torch_logits(model, 2)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("update", ["full", "bias", "last"])
def test_schemes_are_found(update: str) -> None:
    assert niwaki_step.scheme(MODELS["mlp"], update).head


def test_published_scheme() -> None:
    scheme = niwaki_step.scheme(MODELS["mobilenetv2-w0.35-128"], "scheme")
    assert scheme.biases == 17
    with pytest.raises(ValueError, match="no scheme"):
        niwaki_step.scheme(MODELS["mlp"], "scheme")


def small(network: Any) -> Model:
    """Of 4 tokens, 8 elements each."""
    return Model(network, (4,), 3, lr=0.1, last=1, vocabulary=11)


def attention_block(net: Net, tokens: Any) -> Any:
    """Every operation of the transformers."""
    angles = np.outer(np.arange(4), [1.0, 0.1])
    cosine = net.constant("cosine", np.cos(angles).astype(np.float32))
    sine = net.constant("sine", np.sin(angles).astype(np.float32))
    x = net.embedding("tokens", tokens, 11, 8)
    x = net.layer_norm("norm1", net.ops.add(x, net.positions("positions", 4, 8)), 8)
    q, k, v = (net.ops.split_heads(net.linear(part, x, (8, 8)), 2) for part in "qkv")
    q, k = net.ops.rotate(q, cosine, sine), net.ops.rotate(k, cosine, sine)
    seen = net.ops.attention(q, k, v, 0.5, False)
    x = net.ops.merge_heads(net.ops.add(seen, net.ops.attention(q, k, v, 0.5, True)))
    x = net.ops.mul(net.ops.gelu(x), net.ops.silu(net.rms_norm("norm2", x, 8)))
    return net.linear("head", net.ops.tanh(net.ops.first_token(x)), (8, 3), bias=False)


def test_niwaki_and_torch_compute_the_same_transformer() -> None:
    model = small(attention_block)
    x, _ = model.data(2, niwaki_step.LAYOUT)
    (logits,) = run(niwaki_step.program(model, 2), "forward", [x])
    np.testing.assert_allclose(logits, torch_logits(model, 2), rtol=1e-4, atol=1e-5)
