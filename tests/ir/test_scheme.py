"""Schemes as files."""

from pathlib import Path

import pytest

from niwaki.ir.training import Scheme


@pytest.mark.parametrize(
    "scheme",
    [
        Scheme(),
        Scheme.bias(),
        Scheme.head_only(),
        Scheme.channels({23: 0.0, 24: 0.125, 3: 1 / 3}, 17),
        Scheme({"conv.weight": 1.0, 'a "b"\\\n\u00e9\u2028': 1e-7}, order="magnitude"),
        Scheme(head=False, layers=0, biases=0),
    ],
)
def test_round_trip(scheme: Scheme, tmp_path: Path) -> None:
    path = tmp_path / "scheme.toml"
    path.write_text(scheme.to_toml(), encoding="utf-8")
    assert Scheme.from_toml(path) == scheme
