"""Damaged and malicious .pt2 files end in one clear error, before anything large is allocated."""

import io
import json
import zipfile
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from niwaki.frontends import torch_export
from niwaki.frontends.load import load
from niwaki.ir.errors import ModelFileError, NiwakiError, UsageError
from tests.exporting import export, saved_bytes

MODEL = "archive/models/model.json"
CONFIG = "archive/data/weights/model_weights_config.json"
WEIGHT = "archive/data/weights/weight_0"


@cache
def good_members() -> dict[str, bytes]:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU6(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(36, 2),
    ).eval()  # fmt: skip
    data = saved_bytes(export(model, (torch.randn(1, 3, 8, 8),)))
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {
            "archive/" + name.partition("/")[2]: archive.read(name) for name in archive.namelist()
        }


def write(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def changed(member: str, change: Callable[[Any], None]) -> dict[str, bytes]:
    document = json.loads(good_members()[member])
    change(document)
    return {**good_members(), member: json.dumps(document).encode()}


def nodes(document: Any) -> Any:
    return document["graph_module"]["graph"]["nodes"]


def argument(document: Any, node: int, name: str, value: Any) -> None:
    arguments = [a for a in nodes(document)[node]["inputs"] if a["name"] != name]
    nodes(document)[node]["inputs"] = [*arguments, {"name": name, "arg": value, "kind": 1}]


def meta(document: Any, name: str = "0.weight") -> Any:
    return document["config"][name]["tensor_meta"]


def set_sizes(document: Any, sizes: list[int]) -> None:
    meta(document)["sizes"] = [{"as_int": size} for size in sizes]


DAMAGES: dict[str, Callable[[], dict[str, bytes]]] = {
    "no model": lambda: {k: v for k, v in good_members().items() if k != MODEL},
    "no weights": lambda: {k: v for k, v in good_members().items() if k != WEIGHT},
    "no table": lambda: {k: v for k, v in good_members().items() if k != CONFIG},
    "empty archive": dict,
    "JSON cut off": lambda: {**good_members(), MODEL: good_members()[MODEL][:1000]},
    "JSON is a list": lambda: {**good_members(), MODEL: b"[]"},
    "JSON not UTF-8": lambda: {**good_members(), MODEL: b'{"a": "\xff\xfe"}'},
    "JSON too deep": lambda: {**good_members(), MODEL: b"[" * 100_000},
    "JSON key twice": lambda: {**good_members(), MODEL: b'{"a": 1, "a": 2}'},
    "huge integer": lambda: {**good_members(), MODEL: b'{"a": ' + b"9" * 5000 + b"}"},
    "big-endian": lambda: {**good_members(), "archive/byteorder": b"big"},
    "weights cut off": lambda: {**good_members(), WEIGHT: good_members()[WEIGHT][:-4]},
    "weights of odd size": lambda: {**good_members(), WEIGHT: good_members()[WEIGHT] + b"x"},
    "path out of the archive": lambda: {**good_members(), "../evil": b""},
    "absolute path": lambda: {**good_members(), "/etc/evil": b""},
    "nodes is a number": lambda: changed(
        MODEL, lambda d: d["graph_module"]["graph"].update(nodes=1)
    ),
    "no schema version": lambda: changed(MODEL, lambda d: d.pop("schema_version")),
    "target is null": lambda: changed(MODEL, lambda d: nodes(d)[0].update(target=None)),
    "reads the future": lambda: changed(MODEL, lambda d: nodes(d).reverse()),
    "a node twice": lambda: changed(MODEL, lambda d: nodes(d).append(nodes(d)[0])),
    "reads nothing known": lambda: changed(
        MODEL, lambda d: argument(d, 0, "input", {"as_tensor": {"name": "nobody"}})
    ),
    "stride is text": lambda: changed(
        MODEL, lambda d: argument(d, 0, "stride", {"as_ints": ["1", "1"]})
    ),
    "stride 0": lambda: changed(MODEL, lambda d: argument(d, 0, "stride", {"as_ints": [0, 0]})),
    "stride of 64 bits": lambda: changed(
        MODEL, lambda d: argument(d, 0, "stride", {"as_ints": [2**62, 2**62]})
    ),
    "stride of 100 bits": lambda: changed(
        MODEL, lambda d: argument(d, 0, "stride", {"as_ints": [2**100, 1]})
    ),
    "padding makes it huge": lambda: changed(
        MODEL, lambda d: argument(d, 0, "padding", {"as_ints": [2**30, 2**30]})
    ),
    "groups do not divide": lambda: changed(
        MODEL, lambda d: argument(d, 0, "groups", {"as_int": 7})
    ),
    "two kinds at once": lambda: changed(
        MODEL, lambda d: argument(d, 0, "groups", {"as_int": 1, "as_none": True})
    ),
    "epsilon too large": lambda: changed(
        MODEL, lambda d: argument(d, 1, "eps", {"as_float": 1e300})
    ),
    "sizes do not fit": lambda: changed(CONFIG, lambda d: set_sizes(d, [4, 3, 3, 4])),
    "absurd sizes": lambda: changed(CONFIG, lambda d: set_sizes(d, [2**40, 2**40, 3, 3])),
    "absurd sizes of nothing": lambda: changed(
        CONFIG, lambda d: (set_sizes(d, [2**30] * 4), meta(d).update(strides=[{"as_int": 0}] * 4))
    ),
    "negative size": lambda: changed(CONFIG, lambda d: set_sizes(d, [-4, 3, 3, 3])),
    "no elements": lambda: changed(CONFIG, lambda d: set_sizes(d, [0, 3, 3, 3])),
    "strides leave the file": lambda: changed(
        CONFIG, lambda d: meta(d).update(strides=[{"as_int": 99}] * 4)
    ),
    "negative offset": lambda: changed(
        CONFIG, lambda d: meta(d).update(storage_offset={"as_int": -1})
    ),
    "path of a weight": lambda: changed(
        CONFIG, lambda d: d["config"]["0.weight"].update(path_name="../../../etc/passwd")
    ),
    "weight not in the table": lambda: changed(CONFIG, lambda d: d["config"].pop("0.weight")),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGES)
def test_damage(name: str, tmp_path: Path) -> None:
    path = write(tmp_path / "m.pt2", DAMAGES[name]())
    with pytest.raises(ModelFileError) as caught:
        torch_export.load(path)
    assert str(caught.value).startswith("m.pt2: ")
    assert caught.value.exit_code == 6


def test_the_good_file_loads(tmp_path: Path) -> None:
    assert load(write(tmp_path / "m.pt2", good_members())).weights


@pytest.mark.parametrize("data", [b"", b"PK", b"not a zip file" * 100])
def test_no_archive(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "m.pt2"
    path.write_bytes(data)
    with pytest.raises(ModelFileError, match="zip"):
        torch_export.load(path)


def test_truncated_archive(tmp_path: Path) -> None:
    path = write(tmp_path / "m.pt2", good_members())
    whole = path.read_bytes()
    for length in range(0, len(whole), len(whole) // 20):
        path.write_bytes(whole[:length])
        with pytest.raises(ModelFileError):
            torch_export.load(path)


def test_zip_bomb(tmp_path: Path) -> None:
    members = {**good_members(), WEIGHT: bytes(10_000_000)}
    with pytest.raises(ModelFileError, match="compressed"):
        torch_export.load(write(tmp_path / "m.pt2", members, zipfile.ZIP_DEFLATED))


def test_overlapping_members(tmp_path: Path) -> None:
    path = write(tmp_path / "m.pt2", good_members())
    with zipfile.ZipFile(path, "a") as archive:
        for info in archive.infolist():
            info.compress_size = info.file_size = len(good_members()[MODEL])
        archive.writestr("archive/extra", b"")
    with pytest.raises(ModelFileError, match="claim more bytes"):
        torch_export.load(path)


def test_same_member_twice(tmp_path: Path) -> None:
    path = write(tmp_path / "m.pt2", good_members())
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr(WEIGHT, b"other")
    with pytest.raises(ModelFileError, match="same name"):
        torch_export.load(path)


def test_pickle_is_never_opened(tmp_path: Path) -> None:
    members = changed(CONFIG, lambda d: d["config"]["0.weight"].update(use_pickle=True))
    with pytest.raises(UsageError, match="pickle"):
        torch_export.load(write(tmp_path / "m.pt2", members))


def test_old_layout(tmp_path: Path) -> None:
    members = {"serialized_exported_program.json": b"{}", "serialized_state_dict.pt": b""}
    with pytest.raises(UsageError, match="export the model again"):
        torch_export.load(write(tmp_path / "m.pt2", members))


def test_other_schema(tmp_path: Path) -> None:
    members = changed(MODEL, lambda d: d["schema_version"].update(major=99))
    with pytest.raises(UsageError, match="schema 99"):
        torch_export.load(write(tmp_path / "m.pt2", members))


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read"):
        torch_export.load(tmp_path / "nowhere.pt2")


def loads_or_complains(data: bytes, path: Path) -> None:
    path.write_bytes(data)
    with suppress(NiwakiError):
        torch_export.load(path)


MUTATION = st.tuples(st.integers(0, 2**20), st.integers(0, 255))
FUZZ = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])


@FUZZ
@given(st.lists(MUTATION, min_size=1, max_size=8))
def test_mutated_archives(tmp_path: Path, mutations: list[tuple[int, int]]) -> None:
    data = bytearray(write(tmp_path / "good.pt2", good_members()).read_bytes())
    for place, value in mutations:
        data[place % len(data)] = value
    loads_or_complains(bytes(data), tmp_path / "m.pt2")


JUNK = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=5),
    st.just([]), st.just({}), st.just([[1]]), st.just({"as_int": -1}), st.just({"name": "x"}),
)  # fmt: skip


def slots(value: Any) -> list[tuple[Any, Any]]:
    """Every place of a JSON document that can be overwritten."""
    found: list[tuple[Any, Any]] = []
    waiting = [value]
    while waiting:
        container = waiting.pop()
        keys = container if isinstance(container, dict) else range(len(container))
        for key in keys:
            found.append((container, key))
            if isinstance(container[key], dict | list):
                waiting.append(container[key])
    return found


@FUZZ
@given(st.sampled_from([MODEL, CONFIG]), st.integers(0, 2**20), JUNK)
def test_mutated_json(tmp_path: Path, member: str, place: int, junk: Any) -> None:
    def change(document: Any) -> None:
        places = slots(document)
        container, key = places[place % len(places)]
        container[key] = junk

    loads_or_complains(
        write(tmp_path / "m.pt2", changed(member, change)).read_bytes(), tmp_path / "n.pt2"
    )
