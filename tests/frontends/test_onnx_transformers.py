"""Transformers that torch wrote as ONNX compute what torch computes."""

from pathlib import Path

import pytest
import torch
from torch import nn

from niwaki.frontends import onnx as frontend
from tests.exporting import check_outputs, export_onnx
from tests.transformers import TINY, Decoder, Encoder


class SpelledOutNorm(nn.Module):
    """RMS norm as models state it; of nn.RMSNorm the exporter knows nothing."""

    def __init__(self, norm: nn.RMSNorm) -> None:
        super().__init__()
        self.weight = norm.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-5) * self.weight


def decoder() -> nn.Module:
    model = Decoder(TINY)
    for module in [model, *model.layers]:
        for name, child in list(module.named_children()):
            if isinstance(child, nn.RMSNorm):
                setattr(module, name, SpelledOutNorm(child))
    return model


@pytest.mark.parametrize("opset", [17, 20])
@pytest.mark.parametrize("model", [lambda: Encoder(TINY), decoder], ids=["encoder", "decoder"])
def test_outputs(model, opset: int, tmp_path: Path) -> None:
    built = model().eval()
    torch.manual_seed(0)
    tokens = (torch.randint(0, TINY.vocabulary, (2, TINY.sequence)),)
    path = export_onnx(built, tokens, tmp_path / "model.onnx", opset)
    check_outputs(frontend.load(path), tokens, built(*tokens))
