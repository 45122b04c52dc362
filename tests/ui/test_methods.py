"""The methods in the app: explained, in the commands, and never with the adapters of somebody else."""

from dataclasses import replace

import pytest

from taskit.errors import ZooError
from taskit.methods import METHODS
from taskit.ui.api import _require_public_zoo
from taskit.ui.commands import command
from taskit.ui.frontier_view import at_percent, frontier_view
from taskit.ui.lever_fields import explanations
from taskit.ui.page import Chosen
from tests.ui.world import make_context


def test_every_method_is_explained():
    shown = explanations()
    assert all(f"<dt>{name}</dt><dd>" in shown for name in METHODS)
    assert all(len(method.explanation.split()) > 20 for method in METHODS.values())


def test_the_command_names_the_method():
    plans = [frontier_view(make_context(method=method)).draft(at_percent(60)) for method in ("taskit", "uniform")]
    usual, other = (command(Chosen(at_percent(60), plan, rehearsed=False)) for plan in plans)
    assert "--method" not in usual
    assert "--method uniform" in other


def test_a_plan_of_a_stranger_reads_no_folder_of_this_machine():
    plan = frontier_view(make_context()).draft(at_percent(60))
    for zoo in (None, "hub:bob"):
        _require_public_zoo(replace(plan, method_options={"zoo": zoo}))
    with pytest.raises(ZooError, match="hub:OWNER/NAME"):
        _require_public_zoo(replace(plan, method_options={"zoo": "/runs/of/ann"}))
