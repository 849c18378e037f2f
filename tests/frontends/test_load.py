"""`load` finds the importer for what it is given."""

from pathlib import Path

import pytest
import torch

from niwaki.frontends.load import load
from niwaki.ir.errors import UsageError
from tests.exporting import check_outputs, export, save


def test_exported_program_and_its_file(tmp_path: Path) -> None:
    model, inputs = torch.nn.Linear(3, 2), (torch.randn(4, 3),)
    exported = export(model, inputs)
    path = save(exported, tmp_path / "model.PT2")
    for given in (exported, path, str(path)):
        check_outputs(load(given), inputs, model(*inputs))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("config.json", "has no weights"),
        ("model.tflite", "not read yet"),
        ("model.jax", "not read yet"),
        ("model.pth", "unknown kind"),
        ("model", "unknown kind"),
        (torch.nn.Linear(1, 1), "cannot load a Linear"),
        (None, "cannot load a NoneType"),
    ],
)
def test_what_cannot_be_loaded(given: object, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load(given)
