"""AdapterSoup (EACL Findings 2023): the adapters of the domains most like the new one, averaged uniformly.

A domain is like another as their mean embeddings are, see `taskit.transfer.embedding`; a learned task brings its own
in taskit.json.  TaskIT's delta (`taskit.transfer.similarity`) is the other measure: it compares adapters, not data.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch

from taskit.errors import ZooError
from taskit.transfer.similarity import TaskSimilarity, judge
from taskit.zoo.zoo import LearnedTask

MOST = 5  # adapters in a soup


def embedding_similarities(own: Sequence[float], tasks: Sequence[LearnedTask]) -> tuple[TaskSimilarity, ...]:
    """phi_i = cos(mean x over the new task, mean x over the learned one), for the tasks that bring an embedding.

    Raises:
        ZooError: none of them does.
    """
    known = [task for task in tasks if len(task.embedding) == len(own)]
    if not known:
        raise ZooError(
            f"None of the {len(tasks)} learned tasks says in its taskit.json what its data look like (embedding); "
            "choose --method-option select=delta, which needs the adapters alone."
        )
    here = torch.tensor(own)
    phis = [float(torch.cosine_similarity(here, torch.tensor(task.embedding), dim=0)) for task in known]
    return judge([(task.task, task.adapter) for task in known], phis, "embedding")


def choose(similarities: Sequence[TaskSimilarity], most: int = MOST) -> tuple[TaskSimilarity, ...]:
    """The same, ``used`` being the ``most`` similar ones above the threshold, and the most similar one always."""
    ranked = sorted(similarities, key=lambda one: -one.phi)
    chosen = {one.adapter for one in ranked[:1]} | {one.adapter for one in ranked[:most] if one.used}
    return tuple(replace(one, used=one.adapter in chosen) for one in similarities)
