"""Models that together use every supported aten operation."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Elementwise(nn.Module):
    """Arithmetic, with tensors, numbers and broadcasting."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.rand(3, 1, 1) + 0.5)
        self.register_buffer("mean", torch.rand(1, 3, 1, 1))
        self.register_buffer("two", torch.tensor(2.0))

    def forward(self, x: Tensor, y: Tensor) -> Sequence[Tensor]:
        positive = x.abs() + 0.1
        return (
            x + y, x - y, x * self.scale, x / positive, x + 1.5, 2.0 - x, x * 3, x - 1, x / 4.0,
            torch.add(x, y, alpha=0.5), torch.sub(x, y, alpha=2), (x - self.mean) * self.two,
            -x, x.exp(), positive.log(), positive.sqrt(), positive.rsqrt(), x.abs(), x.erf(),
            torch.maximum(x, y), torch.minimum(x, y), x**2, positive**0.5, x**3, positive**-1,
            positive**-0.5, x.square(), positive.reciprocal(), torch.rsub(x, y),
            torch.where(x > 0, x, y), torch.where(x >= y, x, -y), torch.where(x < 0.5, y, x),
        )  # fmt: skip


class Activations(nn.Module):
    """Activation functions and dropout outside training."""

    def forward(self, x: Tensor) -> Sequence[Tensor]:
        x = x * 4
        return (
            F.relu(x), F.relu6(x), F.leaky_relu(x, 0.2), x.sigmoid(), x.tanh(), F.hardswish(x),
            F.hardsigmoid(x), F.silu(x), F.gelu(x), F.gelu(x, approximate="tanh"),
            F.softplus(x), F.hardtanh(x, -2.0, 3.0), x.clamp(-1, 1), x.clamp(min=0), x.clamp(max=1),
            F.softmax(x, 1), F.softmax(x, -1), F.log_softmax(x, 1), F.dropout(x, 0.3, False),
        )  # fmt: skip


class Shapes(nn.Module):
    """Operations that move elements."""

    def forward(self, x: Tensor) -> Sequence[Tensor]:
        n, c, h, w = x.shape
        pooled = F.avg_pool2d(x, 2)
        return (
            x.view(n, -1), x.reshape(n, c, h * w), x.flatten(1), pooled.flatten(1),
            x.flatten(2, 3), x.permute(0, 2, 3, 1), pooled.permute(3, 1, 0, 2), x.transpose(1, 2),
            x.flatten(1).t(), x[:, :, 1:, ::2], x[:, -2:], x[:, 1], x.unsqueeze(1),
            x.mean((2, 3), keepdim=True).squeeze(-1), x.mean((2, 3), keepdim=True).squeeze(),
            x[:, :1].expand(n, c, h, w), x.mean((0, 2, 3)).expand(n, c), F.pad(x, (1, 2, 0, 1)),
            F.pad(x, (1, 1), value=3.0), F.pad(pooled, (-1, 0, 1, 1)), torch.cat([x, x * 2], 1),
            torch.cat([pooled, pooled], -1), *x.split([1, 2], 1), *x.chunk(2, 2),
            *pooled.split(1, 1), x.clone().contiguous().detach(), x.to(torch.float32),
            x.mean(), x.sum(), x.mean(1), x.sum((0, 2)), x.amax((2, 3)), x.amax(1, keepdim=True),
            pooled.mean((2, 3), keepdim=True), pooled.sum(1), torch.full_like(x, 2.0) * x,
        )  # fmt: skip


class Pools(nn.Module):
    """Pooling in all its roundings."""

    def forward(self, x: Tensor) -> Sequence[Tensor]:
        return (
            F.max_pool2d(x, 2), F.max_pool2d(x, 3, 2, 1), F.max_pool2d(x, (2, 3), (1, 2)),
            F.max_pool2d(x, 2, ceil_mode=True), F.max_pool2d(x, 3, 2, 1, ceil_mode=True),
            F.avg_pool2d(x, 2), F.avg_pool2d(x, 3, 2, 1),
            F.avg_pool2d(x, 3, 2, 1, count_include_pad=False), F.avg_pool2d(x, 2, ceil_mode=True),
            F.avg_pool2d(x, 3, 2, 1, ceil_mode=True, count_include_pad=False),
            F.adaptive_avg_pool2d(x, 1), F.adaptive_avg_pool2d(x[:, :, :6, :8], (3, 2)),
        )  # fmt: skip


class Contractions(nn.Module):
    """Convolutions and matrix products."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            [
                nn.Conv2d(4, 6, 3),
                nn.Conv2d(4, 6, 3, stride=2, padding=1, bias=False),
                nn.Conv2d(4, 8, (3, 1), padding=(1, 0), groups=2),
                nn.Conv2d(4, 8, 3, padding=1, groups=4),
                nn.Conv2d(4, 6, 3, padding=2, dilation=2),
                nn.Conv2d(4, 6, 4, padding="same"),
                nn.Conv2d(4, 6, 1, padding="valid"),
            ]
        )
        self.linear = nn.Linear(8, 5)
        self.no_bias = nn.Linear(9, 3, bias=False)
        self.matrix = nn.Parameter(torch.rand(9, 4))

    def forward(self, x: Tensor) -> Sequence[Tensor]:
        rows = x.mean((1, 2))
        return (
            *(c(x) for c in self.convolutions),
            self.linear(x[:, :, :, :8].contiguous()), self.no_bias(rows), rows @ self.matrix,
            torch.mm(rows.t(), rows), torch.addmm(rows, rows[:, :2], rows[:2], alpha=0.5, beta=2),
        )  # fmt: skip


class Losses(nn.Module):
    """Losses as parts of the model."""

    def forward(self, x: Tensor, labels: Tensor) -> Sequence[Tensor]:
        target = x.sigmoid()
        return (
            F.cross_entropy(x, labels),
            F.nll_loss(F.log_softmax(x, 1), labels),
            F.cross_entropy(x, target),
            F.mse_loss(x, target),
            F.binary_cross_entropy_with_logits(x, target),
        )


class InPlace(nn.Module):
    """In-place operations, read through every name of the tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Sequence[Tensor]:
        y = self.conv(x)
        F.relu_(y)
        z = y.add_(1.0)
        z.mul_(0.5)
        flat = self.conv(x).flatten(1)
        flat.clamp_(-0.1, 0.2)
        return y, z, flat, nn.ReLU6(inplace=True)(self.conv(x))


class InvertedResidual(nn.Module):
    """The block of MobileNetV2."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.shortcut = stride == 1 and channels == out
        wide = 3 * channels
        self.body = nn.Sequential(
            nn.Conv2d(channels, wide, 1, bias=False),
            nn.BatchNorm2d(wide),
            nn.ReLU6(inplace=True),
            nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False),
            nn.BatchNorm2d(wide),
            nn.ReLU6(inplace=True),
            nn.Conv2d(wide, out, 1, bias=False),
            nn.BatchNorm2d(out),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.shortcut else self.body(x)


class MobileNet(nn.Module):
    """A small MobileNetV2 with squeeze-and-excitation before its head."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1, bias=False),
            nn.BatchNorm2d(8, momentum=0.2),
            nn.Hardswish(),
            InvertedResidual(8, 8, 1),
            InvertedResidual(8, 12, 2),
        )
        self.squeeze = nn.Linear(12, 3)
        self.excite = nn.Linear(3, 12)
        self.drop = nn.Dropout(0.25)
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x)
        gate = F.adaptive_avg_pool2d(x, 1).flatten(1)
        gate = F.hardsigmoid(self.excite(F.relu(self.squeeze(gate))))
        x = x * gate.view(x.shape[0], -1, 1, 1)
        return self.head(self.drop(x.mean((2, 3))))


class ResNet(nn.Module):
    """A residual block with a projection, and max pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.conv1 = nn.Conv2d(6, 8, 3, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 8, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(8, affine=False)
        self.project = nn.Conv2d(6, 8, 1, 2, bias=False)
        self.fc = nn.Linear(8 * 4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)) + self.project(x))
        return self.fc(torch.flatten(F.max_pool2d(y, 2), 1))


def randomise_statistics(model: nn.Module) -> nn.Module:
    """Running statistics that are not 0 and 1."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return model


class Attentions(nn.Module):
    """Attention in all its forms, on embeddings with a row for padding (number 3)."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.zero = nn.Embedding(29, 12, padding_idx=3)
        self.kept = nn.Embedding(29, 12, padding_idx=3)
        nn.init.normal_(self.kept.weight)
        self.register_buffer("added", torch.rand(5, 5))

    def forward(self, tokens: Tensor) -> Tensor:
        q, k = (e(tokens).unflatten(-1, (3, 4)).transpose(1, 2) for e in (self.zero, self.kept))
        attend = F.scaled_dot_product_attention
        parts = (
            attend(q, k, q), attend(q, k, k, is_causal=True), attend(q, k, q, scale=0.3),
            attend(q, k, q, attn_mask=self.added), attend(q[:, :1], k, k),
            attend(q, k[:, :1], k[:, :1], enable_gqa=True), torch.bmm(q[:, 0], k[:, 0].mT)[:, None],
            F.layer_norm(q, (5, 4)), F.layer_norm(q, (4,)), F.rms_norm(q, (4,)),
        )  # fmt: skip
        return torch.stack([p.square().mean() for p in parts]).sum()
