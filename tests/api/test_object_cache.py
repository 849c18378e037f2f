"""Compiled kernels on disk."""

import os
from hashlib import sha256
from multiprocessing import get_context
from pathlib import Path

import pytest

from niwaki import object_cache
from niwaki.ir.errors import UsageError
from niwaki.object_cache import ObjectCache, cache_folder

CODE = {sha256(bytes([n])).hexdigest(): bytes([n]) * 1000 for n in range(8)}
FIRST, SECOND, THIRD, *_ = CODE


def only_file(cache: ObjectCache) -> Path:
    (path,) = cache.folder.iterdir()
    return path


def test_another_process_finds_what_was_added(tmp_path: Path) -> None:
    ObjectCache(tmp_path / "cache").add(CODE)
    other = ObjectCache(tmp_path / "cache")
    assert {key: other.get(key) for key in CODE} == CODE
    assert other.get(sha256(b"unknown").hexdigest()) is None
    assert other.size()[0] == len(CODE)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:-1],
        lambda data: data + b"x",
        lambda data: data[:-1] + b"x",
        lambda data: b"x" + data[1:],
        lambda data: data[:20],
    ],
)
def test_a_damaged_file_counts_as_missing_and_is_replaced(tmp_path: Path, damage) -> None:
    cache = ObjectCache(tmp_path)
    cache.add({FIRST: CODE[FIRST]})
    path = only_file(cache)
    path.write_bytes(damage(path.read_bytes()))
    assert cache.get(FIRST) is None
    cache.add({FIRST: CODE[FIRST]})
    assert cache.get(FIRST) == CODE[FIRST]


def test_what_was_not_used_for_longest_goes_first(tmp_path: Path) -> None:
    cache = ObjectCache(tmp_path, limit_bytes=2500)
    for age, key in enumerate((SECOND, FIRST)):
        cache.add({key: CODE[key]})
        os.utime(tmp_path / f"{key}.object", (age, age))
    assert cache.get(SECOND) == CODE[SECOND]
    cache.add({THIRD: CODE[THIRD]})
    assert [cache.get(key) for key in (FIRST, SECOND, THIRD)] == [None, CODE[SECOND], CODE[THIRD]]
    assert cache.size()[1] <= 2500


def test_what_an_interrupted_write_left_counts_and_goes(tmp_path: Path) -> None:
    cache = ObjectCache(tmp_path, limit_bytes=2000)
    left = tmp_path / f".{FIRST}.object.tmp1"
    left.write_bytes(bytes(1500))
    os.utime(left, (0, 0))
    cache.add({SECOND: CODE[SECOND]})
    assert not left.exists()
    assert cache.get(SECOND) == CODE[SECOND]


def test_other_files_in_the_folder_stay(tmp_path: Path) -> None:
    mine = tmp_path / "thesis.object"
    mine.write_bytes(bytes(5000))
    ObjectCache(tmp_path, limit_bytes=100).add(CODE)
    assert [path.name for path in tmp_path.iterdir()] == [mine.name]


def test_a_folder_that_cannot_be_made_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    cache = ObjectCache(tmp_path / "file" / "cache")
    cache.add(CODE)
    assert cache.get(FIRST) is None
    assert cache.size() == (0, 0)


def test_a_folder_that_cannot_be_written_still_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = ObjectCache(tmp_path)
    cache.add({FIRST: CODE[FIRST]})

    def refuse(*_: object) -> None:
        raise UsageError("cannot write")

    def forbid(*_: object) -> None:
        raise PermissionError

    # The tests may run as root, whom no mode of the folder stops.
    monkeypatch.setattr(object_cache, "write_atomically", refuse)
    monkeypatch.setattr(os, "utime", forbid)
    cache.add({SECOND: CODE[SECOND]})
    assert cache.get(FIRST) == CODE[FIRST]
    assert cache.get(SECOND) is None


def test_processes_share_a_folder(tmp_path: Path) -> None:
    context = get_context("spawn")
    with context.Pool(2) as pool:
        wrong = pool.map(_use, [str(tmp_path)] * 4)
    assert wrong == [0] * 4
    assert ObjectCache(tmp_path).size()[1] <= 4000
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def _use(folder: str) -> int:
    """Adds and gets under a bound that half of the objects exceed; how many were not right."""
    cache = ObjectCache(Path(folder), limit_bytes=4000)
    wrong = 0
    for _ in range(25):
        for key, code in CODE.items():
            cache.add({key: code})
            wrong += cache.get(key) not in (code, None)
    return wrong


@pytest.mark.parametrize(
    ("environment", "folder"),
    [
        ({"NIWAKI_CACHE": "off", "HOME": "/h"}, None),
        ({"NIWAKI_CACHE": "/x/y", "XDG_CACHE_HOME": "/c", "HOME": "/h"}, "/x/y"),
        ({"NIWAKI_CACHE": "", "XDG_CACHE_HOME": "/c", "HOME": "/h"}, "/c/niwaki"),
        ({"XDG_CACHE_HOME": "relative", "HOME": "/h"}, "/h/.cache/niwaki"),
        ({"HOME": "/h"}, "/h/.cache/niwaki"),
        ({}, None),
    ],
)
def test_where_objects_are_kept(environment: dict[str, str], folder: str | None) -> None:
    assert cache_folder(environment) == (None if folder is None else Path(folder))
