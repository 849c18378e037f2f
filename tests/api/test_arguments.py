"""What a compiled step accepts as arrays."""

import numpy as np
import pytest

from niwaki.arguments import check_arguments, check_labels
from niwaki.ir.errors import UsageError
from niwaki.ir.lowered import Port

PORTS = (Port("image", (2, 3), "float32"), Port("target", (2,), "int32"))
X, Y = np.zeros((2, 3), np.float32), np.zeros(2, np.int32)


@pytest.mark.parametrize(
    ("x", "y"),
    [
        (X, Y),
        (X.astype(np.float64), Y.astype(np.int64)),
        (np.asfortranarray(X), Y),
        (np.zeros((4, 3), np.float32)[::2], np.zeros(4, np.int32)[::2]),
        (X.tolist(), [0, 1]),
    ],
)
def test_accepts_any_layout_and_width(x: object, y: object) -> None:
    checked = check_arguments("step", PORTS, [x, y])
    assert [c.shape for c in checked] == [(2, 3), (2,)]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ([X], "takes 2 array\\(s\\) \\(image, target\\), got 1"),
        ([X, Y.astype(np.float32)], "'target' must be int32, got float32"),
        ([X.astype(complex), Y], "'image' must be float32, got complex128"),
        ([np.zeros((5, 3)), Y], "got \\[5, 3\\]; compile with batch=5"),
        ([np.zeros((2, 4)), Y], "must have the shape \\[2, 3\\], got \\[2, 4\\]$"),
        ([np.float32(0), Y], "got \\[\\]$"),
        (["images", Y], "must be float32"),
    ],
)
def test_says_what_does_not_fit(arrays: list[object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_arguments("step", PORTS, arrays)


@pytest.mark.parametrize(("labels", "wrong"), [([0, -1], "-1"), ([0, 10], "10")])
def test_labels_outside_the_classes(labels: list[int], wrong: str) -> None:
    check_labels("step", np.array([0, 9]), 10)
    with pytest.raises(UsageError, match=f"label {wrong} is none of 0 to 9"):
        check_labels("step", np.array(labels), 10)
