"""Makes digits.pt2 and digits.npz: a small network trained on the digits 0-4, and all the data.

Needs torch and scikit-learn (pip install 'niwaki[dev]'); the demo itself needs neither.
"""

import argparse
import re
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

SEED = 0


class DigitsNet(nn.Module):
    """Three convolutions, a dense head of ten classes; one image of 8x8 costs 98 thousand MACs."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 3, padding=1)
        self.conv2 = nn.Conv2d(8, 16, 3, stride=2, padding=1)
        self.conv3 = nn.Conv2d(16, 32, 3, padding=1)
        self.fc = nn.Linear(128, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.conv1(x))
        x = torch.relu(self.conv2(x))
        x = torch.relu(self.conv3(x))
        return self.fc(torch.max_pool2d(x, 2).flatten(1))


def pretrain(images: NDArray[np.uint8], labels: NDArray[np.int64], epochs: int) -> DigitsNet:
    """Trains with Adam in batches of 32."""
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    net = DigitsNet()
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    x = torch.from_numpy(images).float().unsqueeze(1) / 16
    y = torch.from_numpy(labels)
    for _ in range(epochs):
        for chosen in torch.randperm(len(x)).split(32):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x[chosen]), y[chosen]).backward()
            optimizer.step()
    return net.eval()


def accuracy(net: DigitsNet, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> float:
    """Share of right answers."""
    x = torch.from_numpy(images).float().unsqueeze(1) / 16
    with torch.no_grad():
        return float((net(x).argmax(1) == torch.from_numpy(labels)).float().mean())


def portable(stack_trace: str) -> str:
    """File names without the folders of this machine."""
    return re.sub(r'File "[^"]*/(site-packages|examples)/', 'File "', stack_trace)


def main() -> None:
    """Writes both files next to this one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=20)
    epochs: int = parser.parse_args().epochs

    digits = load_digits()
    images: NDArray[np.uint8] = digits.images.astype(np.uint8)
    labels: NDArray[np.int64] = digits.target.astype(np.int64)
    everything = np.arange(len(labels))
    train, test = train_test_split(everything, test_size=0.3, random_state=SEED, stratify=labels)
    split = {
        "pretrain_train": np.sort(train[labels[train] < 5]),
        "pretrain_test": np.sort(test[labels[test] < 5]),
        "finetune_train": np.sort(train[labels[train] >= 5]),
        "finetune_test": np.sort(test[labels[test] >= 5]),
    }
    first = split["pretrain_train"]
    net = pretrain(images[first], labels[first], epochs)
    for name in ("pretrain_test", "finetune_test"):
        chosen = split[name]
        print(f"{name}: accuracy {accuracy(net, images[chosen], labels[chosen]):.3f}")

    here = Path(__file__).parent
    exported = torch.export.export(net, (torch.zeros(1, 1, 8, 8),))
    for node in exported.graph.nodes:
        node.meta["stack_trace"] = portable(node.meta.get("stack_trace", ""))
    torch.export.save(exported, here / "digits.pt2")
    np.savez_compressed(
        here / "digits.npz",
        images=images,
        labels=labels.astype(np.int32),
        **{name: chosen.astype(np.int32) for name, chosen in split.items()},
    )


if __name__ == "__main__":
    main()
