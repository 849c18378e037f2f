"""Every registered pass exists under its name, and the plug-in fits beside xDSL's own."""

from dataclasses import is_dataclass

import pytest
from xdsl.passes import ModulePass
from xdsl.universe import Universe

from niwaki.passes.universe import PASSES, UNIVERSE


@pytest.mark.parametrize("name", PASSES)
def test_pass_is_registered_under_its_name(name: str):
    pass_type = PASSES[name]()
    assert issubclass(pass_type, ModulePass)
    assert pass_type.name == name
    assert is_dataclass(pass_type)


def test_names_are_sorted():
    assert list(PASSES) == sorted(PASSES)


@pytest.mark.parametrize("name", UNIVERSE.all_dialects)
def test_dialect_is_registered_under_its_name(name: str):
    assert UNIVERSE.all_dialects[name]().name == name


def test_xdsl_opt_finds_the_plug_in():
    everything = Universe.get_multiverse()
    assert set(UNIVERSE.all_passes) <= set(everything.all_passes)
    assert set(UNIVERSE.all_dialects) <= set(everything.all_dialects)
