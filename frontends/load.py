"""Imports a model from whatever the user has."""

from pathlib import Path

from niwaki.frontends import onnx, torch_export
from niwaki.ir.errors import UsageError
from niwaki.ir.program import Program


def load(model: object) -> Program:
    """Imports a .pt2 or .onnx file (text or Path), or a torch.export.ExportedProgram.

    Raises UsageError for anything else, and what the importers of these kinds raise.
    """
    if isinstance(model, str | Path):
        return _load_file(Path(model))
    if type(model).__name__ == "ExportedProgram":
        return torch_export.from_exported_program(model)
    raise UsageError(
        f"cannot load a {type(model).__name__}; give the path of a .pt2 or .onnx file, or a"
        " torch.export.ExportedProgram"
    )


def _load_file(path: Path) -> Program:
    match path.suffix.lower():
        case ".pt2":
            return torch_export.load(path)
        case ".onnx":
            return onnx.load(path)
        case ".tflite":
            raise UsageError(f"{path}: TensorFlow Lite files are not read yet; convert to ONNX")
        case ".jax":
            raise UsageError(f"{path}: JAX programs are not read yet; convert to ONNX")
        case ".json":
            raise UsageError(
                f"{path}: a configuration has no weights; 'niwaki report --plan-only' plans the"
                " memory of a decoder from it"
            )
        case _:
            raise UsageError(f"{path}: unknown kind of model file; known are .pt2 and .onnx")
