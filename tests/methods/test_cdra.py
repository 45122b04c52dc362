"""Compact blocks: Eq. 7 by hand, zeros outside the block, and ordinary LoRA where the block is the whole matrix."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from taskit.errors import PlanError
from taskit.methods.blocks import Block, Granted, eq7_rank, granted, indices, thresholds
from taskit.methods.cdra import Cdra, DynamicRank
from taskit.methods.compact import Compact
from taskit.scheduler import Constraints
from taskit.step.parametrization import PLAIN
from tests.methods.adapted import DENSE, QUERY, RANKS, VALUE, adapted, logits, places_of, reloaded, trained, update
from tests.profiles import make_profile

ROWS, COLUMNS = [1, 2, 5, 11], [0, 3, 7]
SOME = {name: Block.of(ROWS, COLUMNS) for name in RANKS}


def test_equation_7_by_hand():
    """By hand: in a 768 x 768 matrix a block of 589 x 284 takes 3078.2 sensitive entries for each rank."""
    assert eq7_rank(24626, 589, 284, 768, 768) == 8
    assert eq7_rank(24625, 589, 284, 768, 768) == 7
    assert eq7_rank(3078, 589, 284, 768, 768) == 0
    assert eq7_rank(3079, 589, 284, 768, 768) == 1
    assert eq7_rank(0, 0, 0, 768, 768) == 0


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 1600))
def test_equation_7_of_a_whole_matrix(d, k, sensitive):
    assert eq7_rank(sensitive, d, k, d, k) == sensitive // (d + k)


@given(st.lists(st.floats(0, 1), min_size=12, max_size=12), st.floats(0.01, 1))
def test_a_block_holds_all_sensitive_entries_and_trains_no_more_than_them(values, limit):
    entries = torch.tensor(values).view(3, 4)
    found = granted(entries, limit)
    mask = (entries >= limit) & (entries > 0)
    rows, columns = indices(found.block.rows), indices(found.block.columns)
    assert mask[rows][:, columns].sum() == mask.sum()
    assert all(mask[row].any() for row in rows)
    assert all(mask[:, column].any() for column in columns)
    assert found.rank * (len(rows) + len(columns)) <= mask.sum()


def test_thresholds_take_the_share_of_all_locations_together():
    entries = {"a": torch.tensor([[4.0, 1.0]]), "b": torch.tensor([[3.0], [2.0]])}
    assert thresholds(entries, (0.25, 0.5, 1.0)) == [4.0, 3.0, 1.0]


@given(st.sets(st.integers(0, 200)))
def test_blocks_survive_the_plan(chosen):
    block = Block.of(chosen, [3])
    assert Block.from_json(block.to_json()) == block
    assert indices(block.rows) == sorted(chosen)
    assert block.row_count == len(chosen)


def test_the_update_is_zero_outside_the_block_and_plain_peft_reads_it(tiny_bert, sentences, tmp_path):
    parametrization = Compact(SOME)
    model = adapted(tiny_bert, parametrization)
    before = logits(model, sentences)
    inside = torch.zeros_like(update(model, QUERY), dtype=torch.bool)
    inside[torch.tensor(ROWS)[:, None], torch.tensor(COLUMNS)] = True
    assert (update(model, QUERY)[~inside] == 0).all()
    assert (update(model, QUERY)[inside] != 0).all()
    assert parametrization.collapse(model) == 0.0
    plain = reloaded(tiny_bert, model, tmp_path)
    torch.testing.assert_close(logits(plain, sentences), before, rtol=0, atol=1e-5)
    assert not torch.allclose(before, logits(tiny_bert, sentences), atol=1e-3)


def test_the_plan_knows_how_many_parameters_are_trained(tiny_bert):
    parametrization = Compact(SOME)
    expected = sum(rank * 7 for rank in RANKS.values())
    assert (
        trained(adapted(tiny_bert, parametrization))
        == parametrization.parameters(places_of(tiny_bert), RANKS)
        == expected
    )


def test_the_whole_matrix_as_a_block_is_ordinary_lora_step_for_step(tiny_bert, sentences):
    whole = {
        place.name: Block.of(range(place.out_features), range(place.in_features)) for place in places_of(tiny_bert)
    }
    seen = []
    for parametrization in (Compact(whole), PLAIN):
        model = adapted(tiny_bert, parametrization)
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.01)
        for _ in range(3):
            model(**sentences).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        seen.append([update(model, name).detach() for name in RANKS])
    for ours, theirs in zip(*seen, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


def test_a_rank_without_a_block_is_refused(tiny_bert):
    with pytest.raises(PlanError, match=f"no compact block for {DENSE}"):
        adapted(tiny_bert, Compact({QUERY: SOME[QUERY], VALUE: SOME[VALUE]}))


def grants(*ranks):
    return tuple(Granted(rank, Block.of(range(rank), range(rank))) for rank in ranks)


A, B = "location.0", "location.1"
TABLE = {A: grants(0, 1, 3), B: grants(0, 0, 2)}
PROFILE = make_profile([10, 10], {(0,): 5, (0, 1): 5}, [0, 1], constant=100)


def test_the_largest_gamma_that_fits_decides():
    solve = DynamicRank(TABLE, (0.1, 0.2, 0.4), 0)
    ranks = {budget: solve(PROFILE, (1.0, 1.0), budget).ranks for budget in (100, 119, 120, 159, 160)}
    assert ranks == {100: (0, 0), 119: (0, 0), 120: (1, 0), 159: (1, 0), 160: (3, 2)}
    assert solve(PROFILE, (1.0, 1.0), 110).shortfall_bytes == 10
    # 3 (3 + 3) + 2 (2 + 2)
    assert solve(PROFILE, (1.0, 1.0), 160, constraints=Constraints(max_parameters=25)).ranks == (1, 0)
    assert solve(PROFILE, (1.0, 1.0), 160, constraints=Constraints(max_parameters=26)).ranks == (3, 2)
    assert solve(PROFILE, (1.0, 1.0), 160, constraints=Constraints(exclude=(A,))).ranks == (0, 2)


def test_ranks_are_not_to_be_wished_for():
    with pytest.raises(PlanError, match=r"taskit\+cdra"):
        DynamicRank(TABLE, (0.1, 0.2, 0.4), 0)(PROFILE, (1.0, 1.0), 160, constraints=Constraints(ranks=(4,)))


def test_a_least_rank_needs_a_block_to_stand_on():
    assert DynamicRank(TABLE, (0.2,), 2)(PROFILE, (1.0, 1.0), 10**6).ranks == (0, 0)
    wide = {A: grants(1), B: (Granted(0, Block.of([0], [0])),)}
    assert DynamicRank(wide, (0.2,), 2)(PROFILE, (1.0, 1.0), 10**6).ranks == (2, 2)


def test_options_are_what_the_method_reads_again():
    from taskit.methods.cdra import _options_by_gamma, _options_by_rank

    made = _options_by_gamma(DynamicRank(TABLE, (0.1, 0.2, 0.4), 0), {A: 3, B: 2})
    assert made["gamma"] == 0.4
    assert Cdra("cdra").parametrization(made) == Compact({A: TABLE[A][2].block, B: TABLE[B][2].block})
    by_rank = Cdra("taskit+cdra").parametrization(_options_by_rank(TABLE, {A: 1, B: 64}))
    assert by_rank == Compact({A: TABLE[A][1].block, B: TABLE[B][2].block})
