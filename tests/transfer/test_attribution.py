"""Where importance comes from, in words."""

from taskit.transfer.importance import attribution


def test_the_largest_sources_are_named_and_the_rest_counted():
    assert attribution({"trec": 0.3, "snips": 0.6, "mr": 0.06, "cr": 0.04}) == "snips 60%, trec 30%, 2 more 10%"
    assert attribution({"uniform": 1.0}) == "uniform 100%"
    assert attribution({}) == ""
