"""The methods that compose learned tasks and train nothing: AdapterSoup and LoraHub.

AdapterSoup (EACL Findings 2023) averages the adapters of the domains most like the new one.  A domain is like another
as their mean embeddings are; a learned task brings its embedding in taskit.json.  TaskIT's delta
(`taskit.transfer.similarity`), which compares adapters and not data, is the other measure.

What both have beyond their papers: a classifier gets the linear head that TaskIT fits on frozen features, here on
composed ones; LoraHub's loss on a few examples is then that of the closed-form head fitted to the others of them
(`taskit.transfer.ridge_head`), since the paper's models write text and have no head to fit.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

from taskit.errors import PlanError, ZooError
from taskit.methods.compose import composed_ranks, require_equal_ranks
from taskit.methods.method import MethodContext, Option, Options, ResolvedMethod, at_least, one_of, the_same
from taskit.scheduler import Schedule, objective
from taskit.step.parametrization import Parametrization, Ranks

if TYPE_CHECKING:
    from taskit.memory.profile import MemoryProfile
    from taskit.transfer.similarity import TaskSimilarity
    from taskit.zoo.zoo import LearnedTask

SOUP, LORAHUB = "soup", "lorahub"
MOST = 5  # adapters in a soup


@dataclass(frozen=True, slots=True)
class Composing:
    """One of the two, by its name."""

    name: str
    explanation: str
    options: Mapping[str, Option] = field(default_factory=dict)

    def resolve(self, context: MethodContext, given: Options) -> ResolvedMethod:
        """Choose the learned tasks to compose; raises PlanError or ZooError where there is nothing to compose."""
        least = 1 if self.name == SOUP else 2
        if len(context.similarity) < least:
            found = f"only {len(context.similarity)}" if context.similarity else "none"
            raise PlanError(
                f"The method {self.name} composes at least {least} of the learned tasks for this backbone, but the "
                f"zoo has {found}; name another --zoo, or choose --method taskit, which needs none."
            )
        measure, similarity = self._choose(context, given)
        used = [one for one in similarity if one.used]
        ranks = _ranks(context, [one.adapter for one in used])
        rule = given.get("rule", "factors")
        if rule == "factors":
            require_equal_ranks([one.adapter for one in used], ranks)
        inserted = composed_ranks(ranks, rule)
        experts = [{"adapter": one.adapter, "revision": one.revision} for one in used]
        chosen = {**given, "rule": rule, "experts": experts, "zoo": context.zoo_source}
        fixed = {place.name: inserted.get(place.name, 0) for place in context.places}
        solve = partial(_the_ranks, tuple(fixed.values()))
        options = partial(the_same, chosen)
        return ResolvedMethod(solve, options, fixed=fixed, measure=measure, similarity=similarity)

    def parametrization(self, options: Options) -> Parametrization:
        from taskit.methods.composed import Composed

        adapters = tuple((one["adapter"], one["revision"]) for one in options["experts"])
        return Composed(adapters, options["zoo"], options["rule"], self.name == LORAHUB)

    def _choose(self, context: MethodContext, given: Options) -> "tuple[str, tuple[TaskSimilarity, ...]]":
        """The measure, and every learned task with its likeness by it, ``used`` where it is composed."""
        from taskit.methods.lorahub import draw

        if self.name == LORAHUB:
            return "delta", draw(context.similarity, given["most"], context.seed)
        if given["select"] == "delta":
            return "delta", most_similar(context.similarity, given["most"])
        from taskit.transfer.embedding import SAMPLES, mean_row, pooled

        rows = islice((row for probe in context.probe_context.probes for row in pooled(probe.x, probe.mask)), SAMPLES)
        readable = {one.adapter: one for one in context.similarity}
        tasks = [task for task in context.zoo.tasks if task.adapter in readable]
        found = embedding_similarities(mean_row(row[None] for row in rows), tasks)
        pinned = tuple(replace(one, revision=readable[one.adapter].revision) for one in found)
        return "embedding", most_similar(pinned, given["most"])


def embedding_similarities(
    embedding: Sequence[float], tasks: "Sequence[LearnedTask]"
) -> "tuple[TaskSimilarity, ...]":
    """phi_i = cos(mean x over the new task, mean x over the learned one), for the tasks that bring an embedding.

    Raises:
        ZooError: none of them does.
    """
    import torch

    from taskit.transfer.similarity import judge

    known = [task for task in tasks if len(task.embedding) == len(embedding)]
    if not known:
        raise ZooError(
            f"None of the {len(tasks)} learned tasks says in its taskit.json what its data look like (embedding); "
            "choose --method-option select=delta, which needs the adapters alone."
        )
    here = torch.tensor(embedding)
    phis = [float(torch.cosine_similarity(here, torch.tensor(task.embedding), dim=0)) for task in known]
    return judge([(task.task, task.adapter) for task in known], phis, "embedding")


def most_similar(similarities: "Sequence[TaskSimilarity]", most: int = MOST) -> "tuple[TaskSimilarity, ...]":
    """The same, ``used`` being the ``most`` similar ones above the threshold, and the most similar one always."""
    ranked = sorted(similarities, key=lambda one: -one.phi)
    chosen = {one.adapter for one in ranked[:1]} | {one.adapter for one in ranked[:most] if one.used}
    return tuple(replace(one, used=one.adapter in chosen) for one in similarities)


def _ranks(context: MethodContext, adapters: Sequence[str]) -> list[Ranks]:
    """The ranks of each adapter by location.

    Raises:
        PlanError: one of them adapts a module that is no location.
    """
    from taskit.zoo.lora_branch import current_name

    folders = {task.adapter: task for task in context.zoo.tasks}
    current, places = current_name(context.probe_context.model), {place.name for place in context.places}
    found = []
    for adapter in adapters:
        ranks = {name if name in places else current(name): rank for name, rank in folders[adapter].ranks}
        stranger = next((name for name in ranks if name not in places), None)
        if stranger:
            raise PlanError(
                f"The adapter {adapter} adapts {stranger}, where TaskIT plans no LoRA; take it out of the --zoo, or "
                "plan with --vision-tower if it belongs to the encoder of images."
            )
        found.append(ranks)
    return found


def _the_ranks(
    ranks: tuple[int, ...], profile: "MemoryProfile", importance: Sequence[float], _: int, *, gain: str, **__: Any
) -> Schedule:
    """As `taskit.scheduler.schedule`, whatever the budget and the constraints."""
    return Schedule(ranks, objective(ranks, importance, max(ranks), gain), profile.bytes(ranks))


SOUP_METHOD = Composing(
    SOUP,
    "AdapterSoup trains nothing: it averages the adapters of the learned tasks whose data look most like yours, and "
    "fits a linear head on top. It needs the memory of a forward pass alone, so that it works where no training "
    "fits; how good it is depends on how close the zoo comes to your task.",
    {"select": one_of("embedding", "delta"), "rule": one_of("factors", "update"), "most": at_least(MOST, 1)},
)
LORAHUB_METHOD = Composing(
    LORAHUB,
    "LoraHub trains nothing: it looks for the best mixture of learned adapters by trying forty of them on a few of "
    "your rows, and fits a linear head on top. It needs the memory of a forward pass and of the adapters in the "
    "mixture.",
    {"most": at_least(20, 2)},
)
