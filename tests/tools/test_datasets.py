"""Training data from .npz files."""

from pathlib import Path

import numpy as np
import pytest

from niwaki.ir.errors import UsageError
from niwaki.tools.datasets import load_dataset


def test_reads_x_and_y(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=np.ones((3, 2)), y=np.arange(3))
    x, y = load_dataset(tmp_path / "d.npz")
    assert x.shape == (3, 2)
    assert y.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.ones(3)}, "no array 'y', it holds 'x'"),
        ({}, "it holds nothing"),
        ({"x": np.ones(3), "y": np.ones(2)}, "as many samples"),
        ({"x": np.float32(1), "y": np.float32(1)}, "as many samples"),
        ({"x": np.array([{}]), "y": np.ones(1)}, "cannot read .*allow_pickle"),
    ],
)
def test_wrong_contents(tmp_path: Path, arrays: dict[str, np.ndarray], message: str) -> None:
    np.savez(tmp_path / "d.npz", **arrays)
    with pytest.raises(UsageError, match=message):
        load_dataset(tmp_path / "d.npz")


def test_not_an_archive(tmp_path: Path) -> None:
    np.save(tmp_path / "d.npy", np.ones(3))
    with pytest.raises(UsageError, match=r"is no \.npz file"):
        load_dataset(tmp_path / "d.npy")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read"):
        load_dataset(tmp_path / "none.npz")


def test_every_truncation_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "d.npz"
    np.savez_compressed(file, x=np.arange(30.0), y=np.arange(30))
    data = file.read_bytes()
    for size in range(0, len(data) - 1, 11):
        file.write_bytes(data[:size])
        with pytest.raises(UsageError, match=r"cannot read|is no \.npz"):
            load_dataset(file)


def test_absurd_shape(tmp_path: Path) -> None:
    file = tmp_path / "d.npz"
    np.savez(file, x=np.arange(30.0), y=np.arange(30))
    huge = b"'shape': (1000000000000000,), }"
    data = file.read_bytes()
    at = data.index(b"'shape': (30,), }")
    file.write_bytes(data[:at] + huge + data[at + len(huge) :])
    with pytest.raises(UsageError, match="cannot read"):
        load_dataset(file)
