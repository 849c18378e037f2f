"""Exports torch models for tests, without torch's own deprecation warnings."""

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from niwaki.ir import effects
from niwaki.ir.interpreter import run
from niwaki.ir.program import Program


def export(
    model: torch.nn.Module, inputs: tuple[Any, ...], decompose: bool = False, **options: Any
) -> Any:
    """An ExportedProgram, with core aten operations only if `decompose`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exported = torch.export.export(model, inputs, **options)
        return exported.run_decompositions() if decompose else exported


def save(exported: Any, path: Path) -> Path:
    """Writes `exported` to `path` and returns it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(exported, path)
    return path


def saved_bytes(exported: Any) -> bytes:
    """The content of the .pt2 file."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(exported, buffer)
    return buffer.getvalue()


def export_onnx(model: torch.nn.Module, inputs: tuple[Any, ...], path: Path, opset: int) -> Path:
    """Writes `model` to `path` in ONNX and returns it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(model, inputs, path, dynamo=False, opset_version=opset)
    return path


def check_outputs(program: Program, inputs: tuple[torch.Tensor, ...], expected: Any) -> None:
    """The interpreter's results are torch's `expected`, a tensor or several."""
    effects.verify(program.module)
    arrays = [x.numpy().astype(np.int32) if x.dtype == torch.int64 else x.numpy() for x in inputs]
    actual = run(program, "forward", arrays)
    wanted = [expected] if isinstance(expected, torch.Tensor) else list(expected)
    assert len(actual) == len(wanted)
    for number, (have, want) in enumerate(zip(actual, wanted, strict=True)):
        assert have.shape == tuple(want.shape), f"output {number}"
        np.testing.assert_allclose(
            have, want.detach().numpy(), rtol=1e-4, atol=1e-5, err_msg=f"output {number}"
        )
