"""Images of memory: bytes in a file."""

import gc
import os
import pickle
import tempfile
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest

from niwaki.ir.image import Image

CONTENT = np.arange(100_000, dtype=np.int32).tobytes()


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_an_image_gives_its_bytes() -> None:
    image = Image.of(CONTENT)
    assert bytes(image) == CONTENT
    assert len(image) == len(CONTENT)
    assert not image.array().flags.writeable


def test_nothing_is_mapped_that_nobody_holds() -> None:
    """Only while its array lives does the file count as memory of the process."""
    image = Image.of(CONTENT)
    before = open_files()
    array = image.array()
    assert open_files() == before + 1
    del array
    assert open_files() == before


def test_what_is_not_written_is_zero() -> None:
    def fill(file: BinaryIO) -> None:
        file.seek(5)
        file.write(b"abc")

    assert bytes(Image(10, fill)) == bytes(5) + b"abc" + bytes(2)


def test_the_empty_image() -> None:
    assert bytes(Image.of(b"")) == b""


def test_arrays_outlive_the_image_and_files_go() -> None:
    before = open_files()
    array = Image.of(CONTENT).array()
    gc.collect()
    assert array.tobytes() == CONTENT
    del array
    assert open_files() == before


def test_pickled() -> None:
    assert bytes(pickle.loads(pickle.dumps(Image.of(CONTENT)))) == CONTENT


def test_no_file_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    image = Image.of(CONTENT)
    assert not list(tmp_path.iterdir())
    assert bytes(image) == CONTENT


def test_without_a_folder_for_temporary_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    assert bytes(Image.of(CONTENT)) == CONTENT


def test_errors_of_the_content_are_not_hidden() -> None:
    before = open_files()
    with pytest.raises(ZeroDivisionError):
        Image(8, lambda file: 1 // 0)
    assert open_files() == before
