"""The part of the Hub that holds learned tasks: listed, pinned to a commit, pulled into a cache."""
