"""Checkpoints: exact round trip, and nothing but clear errors for files that do not fit."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from niwaki.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from niwaki.ir.errors import ModelFileError, NiwakiError, UsageError

ARRAYS = {
    "conv.weight": np.arange(12, dtype=np.float32).reshape(2, 3, 2).transpose(1, 0, 2),
    "step": np.array(7, np.int32),
    '*/ " \n': np.ones(3, np.float32),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "state.safetensors"
    write_checkpoint(file, Checkpoint(ARRAYS, 0.125))
    return file


def test_round_trip(path: Path) -> None:
    read = read_checkpoint(path, ARRAYS)
    assert read.lr == 0.125
    assert read.arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(read.arrays[name], array)
        assert read.arrays[name].shape == array.shape


def test_same_state_same_bytes(path: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    write_checkpoint(other, Checkpoint(dict(reversed(ARRAYS.items())), 0.125))
    assert other.read_bytes() == path.read_bytes()


def test_leaves_no_temporary_file(path: Path) -> None:
    write_checkpoint(path, Checkpoint(ARRAYS, 0.25))
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_unwritable_folder() -> None:
    with pytest.raises(UsageError, match="cannot write"):
        write_checkpoint(Path("/nowhere/state.safetensors"), Checkpoint(ARRAYS, 0.1))


def test_every_truncation_is_an_error(path: Path) -> None:
    data = path.read_bytes()
    for size in range(0, len(data), 7):
        path.write_bytes(data[:size])
        with pytest.raises(ModelFileError, match="damaged"):
            read_checkpoint(path, ARRAYS)


def test_every_flipped_header_byte_is_an_error_or_reads(path: Path) -> None:
    data = bytearray(path.read_bytes())
    header = int.from_bytes(data[:8], "little")
    for at in range(8 + header):
        damaged = bytearray(data)
        damaged[at] ^= 0x15
        path.write_bytes(damaged)
        try:
            read_checkpoint(path, ARRAYS)
        except NiwakiError:
            continue


@pytest.mark.parametrize(
    ("like", "message"),
    [
        ({"a": np.zeros(2, np.float32)}, "missing \\['a'\\]"),
        ({**ARRAYS, "extra": np.zeros(1)}, "missing \\['extra'\\]"),
        ({k: v for k, v in ARRAYS.items() if k != "step"}, "unknown \\['step'\\]"),
        ({**ARRAYS, "step": np.zeros(2, np.int32)}, "'step' is int32"),
        ({**ARRAYS, "step": np.zeros((), np.float32)}, "this model has float32"),
    ],
)
def test_another_model(path: Path, like: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_checkpoint(path, like)


@pytest.mark.parametrize("metadata", [None, {"niwaki": "{}"}, {"niwaki": '{"schema": 9}'}])
def test_files_of_others(tmp_path: Path, metadata: dict[str, str] | None) -> None:
    file = tmp_path / "other.safetensors"
    arrays = {name: np.array(array, order="C") for name, array in ARRAYS.items()}
    file.write_bytes(save(arrays, metadata))
    with pytest.raises(ModelFileError, match="no file saved by Niwaki"):
        read_checkpoint(file, ARRAYS)


def test_missing_and_oversized_files(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read"):
        read_checkpoint(tmp_path / "none", ARRAYS)
    huge = tmp_path / "huge"
    with huge.open("wb") as file:
        file.truncate(1 << 30)
    with pytest.raises(UsageError, match="much larger"):
        read_checkpoint(huge, ARRAYS)
