"""The analytic memory of published schemes is the published one."""

from pathlib import Path

import pytest

from niwaki.ir.training import Scheme
from niwaki.passes.update_memory import update_bytes
from tests import quantized_networks

SCHEMES = Path(__file__).parents[2] / "examples" / "schemes"
PUBLISHED = {
    ("mcunet-5fps", "49kb"): 49.8,
    ("mcunet-5fps", "74kb"): 74.8,
    ("mcunet-5fps", "99kb"): 99.8,
    ("mcunet-5fps", "148kb"): 148.4,
    ("mcunet-5fps", "full"): 1400.4,
    ("mbv2-w0.35", "49kb"): 49.8,
    ("mbv2-w0.35", "73kb"): 73.9,
    ("mbv2-w0.35", "99kb"): 99.4,
    ("mbv2-w0.35", "138kb"): 138.2,
    ("mbv2-w0.35", "full"): 1306.4,
}
"""KB of 1,024 bytes, "On-Device Training Under 256KB Memory", appendix."""


@pytest.mark.parametrize(("network", "name"), PUBLISHED)
def test_totals_equal_the_published_ones(network: str, name: str) -> None:
    if quantized_networks.find_data(f"{network}-int8.npz") is None:
        pytest.skip("the pretrained networks are not beside this checkout")
    program = quantized_networks.load(network, classes=10)
    scheme = Scheme.full() if name == "full" else Scheme.parse(f"{SCHEMES}/{network}-{name}.toml")

    total = update_bytes(program.function("forward"), scheme)

    # The tables round to a tenth.
    assert total / 1024 == pytest.approx(PUBLISHED[network, name], abs=0.0501)
