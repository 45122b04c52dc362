"""No adapter of a stranger executes, overwrites a base weight, hangs, takes much memory, or ends in a traceback."""

import hashlib
import random
import shutil
import time
from functools import partial
from pathlib import Path

import pytest

from taskit.errors import ZooError
from taskit.zoo.adapter import read_config, read_tensors
from taskit.zoo.lora_branch import attached, current_name, linear_shapes
from taskit.zoo.zoo import open_zoo
from tests.bounded import MEMORY, run_bounded
from tests.conftest import BACKBONE, VIT
from tests.hostile import VECTORS, random_change

RANKS = dict(zip(VIT, (1, 4, 2), strict=True))
USABLE = {"regex target"}  # the tensors say what is adapted, so it is never run
CASES = 2000


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return tmp_path_factory.mktemp("good")


@pytest.fixture
def adapter(good, tiny_vit, make_adapter, tmp_path):
    """A fresh copy of a good adapter, alone in a zoo."""
    if not any(good.iterdir()):
        make_adapter(tiny_vit, good, RANKS, modules_to_save=["classifier"])
    return copy_of(good, tmp_path / "zoo")


def copy_of(good, zoo):
    shutil.rmtree(zoo, ignore_errors=True)
    return Path(shutil.copytree(good, zoo / "adapter"))


def weights_of(model):
    digest = hashlib.sha256()
    for tensor in model.state_dict().values():
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def use(folder, model):
    """Everything that a plan does with an adapter, True when it was used; anything but a ZooError is a defect."""
    zoo = open_zoo(folder.parent, BACKBONE)
    assert len(zoo.tasks) + len(zoo.skipped) <= 1
    reasons = [reason for _, reason in zoo.skipped]
    try:
        for task in zoo.tasks:
            branches = read_tensors(task.folder, read_config(task.folder), linear_shapes(model), current_name(model))
            with attached(model, branches):
                pass
            return True
    except ZooError as error:
        reasons.append(str(error))
    for reason in reasons:
        assert reason.endswith(".")
        assert "\n" not in reason
        assert len(reason) < 500
    return False


def test_a_good_adapter_is_used(adapter, tiny_vit):
    assert run_bounded([partial(use, adapter, tiny_vit)]) == [True]


@pytest.mark.parametrize("name", VECTORS)
def test_every_known_vector_is_refused(name, adapter, tiny_vit):
    VECTORS[name](adapter)
    used, weights = run_bounded([partial(use, adapter, tiny_vit), partial(weights_of, tiny_vit)])
    assert used == (name in USABLE)
    assert weights == weights_of(tiny_vit)
    assert not Path("/tmp/taskit-pwned").exists()


def test_two_thousand_random_ones(good, adapter, tiny_vit, tmp_path):  # noqa: ARG001
    choose = random.Random(0)

    def case():
        folder = copy_of(good, tmp_path / "random")
        random_change(choose)(folder)
        return use(folder, tiny_vit)

    *used, weights = run_bounded([*[case] * CASES, partial(weights_of, tiny_vit)])
    assert weights == weights_of(tiny_vit)
    assert 0 < sum(used) < CASES / 2  # some changes do no harm, such as of a task type


def fill_memory():
    return len(bytearray(2 * MEMORY))


def wait_busily():
    while True:
        hashlib.sha256(b"")


@pytest.mark.parametrize(
    ("harm", "limits", "ends"),
    [
        (fill_memory, {}, "an error"),
        (wait_busily, {"seconds": 0.1}, "SIGPROF"),
        (partial(time.sleep, 99), {"asleep": 1}, "SIGALRM"),
    ],
)
def test_the_bounds_hold(harm, limits, ends):
    with pytest.raises(AssertionError, match=f"case 1 ended the child: {ends}"):
        run_bounded([dict, harm, dict], **limits)
