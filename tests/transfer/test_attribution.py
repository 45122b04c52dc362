"""Where importance comes from, in words."""

from taskit.transfer.attribution import told_sources


def test_the_largest_sources_are_named_and_the_rest_counted():
    assert told_sources({"trec": 0.3, "snips": 0.6, "mr": 0.06, "cr": 0.04}) == "snips 60%, trec 30%, 2 more 10%"
    assert told_sources({"uniform": 1.0}) == "uniform 100%"
    assert told_sources({}) == ""
