"""Makes tiny.pt2, the network of docs/walkthrough.md: small enough to print at every level.

Needs torch and scikit-learn (pip install 'niwaki[dev]').
"""

from pathlib import Path

import torch
from make_digits import portable
from torch import nn


class TinyNet(nn.Module):
    """One convolution and a dense head."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 2, 3)
        self.fc = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.conv(x))
        return self.fc(x.flatten(1))


def main() -> None:
    """Writes the file next to this one."""
    torch.manual_seed(0)
    exported = torch.export.export(TinyNet(), (torch.zeros(1, 8, 4, 4),))
    for node in exported.graph.nodes:
        node.meta["stack_trace"] = portable(node.meta.get("stack_trace", ""))
    torch.export.save(exported, Path(__file__).parent / "tiny.pt2")


if __name__ == "__main__":
    main()
