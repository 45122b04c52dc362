"""The tables of the transfer benchmark, from what its work folder holds."""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import rankdata

from benchmarks.transferring.agreement import ablation_drops, insertion_gains, rho, split_half
from benchmarks.transferring.families import Family
from benchmarks.transferring.predict import branch_measures, data_measures, learned, similarities, transferred

ALONE = "alone.json"


def evidence(
    work: Path, family: Family, seeds: Sequence[int], tasks: Sequence[str] | None = None
) -> Iterator[tuple[str, int, Any]]:
    """(task, seed, evidence) of everything that is there of ``tasks``, of the new ones without it."""
    for task in family.new if tasks is None else tasks:
        for seed in seeds:
            path = work / family.name / f"seed{seed}" / task / "evidence.npz"
            if path.exists():
                yield task, seed, np.load(path)


def similarity_rows(
    work: Path, family: Family, seeds: Sequence[int], tasks: Sequence[str] | None = None
) -> list[dict[str, Any]]:
    """Pearson of predicted and true similarity over all pairs of learned tasks and ``tasks``, by kind."""
    pairs: dict[str, list[tuple[np.ndarray, np.ndarray]]] = defaultdict(list)
    for _, _, found in evidence(work, family, seeds, tasks):
        for kind, values in similarities(found).items():
            pairs[kind].append(values)
    rows = []
    for kind, columns in pairs.items():
        predicted, true = (np.concatenate(part) for part in zip(*columns, strict=True))
        within = [float(np.corrcoef(*column)[0, 1]) for column in columns]
        row = {"family": family.name, "kind": kind, "pairs": len(true), "within": float(np.mean(within))}
        rows.append(row | {"pearson": float(np.corrcoef(predicted, true)[0, 1]), "spread": float(np.std(true))})
    return rows


def truths(work: Path, family: Family, task: str, seeds: Sequence[int]) -> dict[str, list[np.ndarray]]:
    """Actual importance per seed, (locations, n), by kind of truth."""
    found: dict[str, list[np.ndarray]] = defaultdict(list)
    for seed in seeds:
        folder = work / family.name / f"seed{seed}" / task
        if not (folder / "truth.npz").exists():
            continue
        whole = np.load(folder / "truth.npz")
        for kind, rows in ablation_drops(whole).items():
            found[f"ablation {kind}"].append(rows)
        if (folder / "insertion.npz").exists():
            for kind, rows in insertion_gains(np.load(folder / "insertion.npz")).items():
                found[f"insertion {kind}"].append(rows)
    return found


def predictions(
    found: Any, on_own_data: np.ndarray | None = None, gains: Mapping[str, np.ndarray] | None = None
) -> dict[str, np.ndarray]:
    """Importance (locations,) by every way of predicting it.

    ``on_own_data`` (i, k, 4) are the learned tasks' sums, and ``gains`` (k,) what single modules gained in those of
    them that were measured, by task.
    """
    phi = {kind: values[0] for kind, values in similarities(found).items()}
    result = dict(data_measures(found))
    for kind in ("trial", "delta soft", "gradient soft"):
        for measure, rows in branch_measures(found, on_own_data).items():
            result[f"{measure} x {kind}"] = transferred(phi[kind], rows)
            result[f"{measure} x {kind}, normalised"] = transferred(phi[kind], rows, normalised=True)
    for measure, rows in branch_measures(found).items():
        own = data_measures(found)[f"{measure} of the trial"]
        result[f"{measure} x trial, blended"] = result[f"{measure} x trial, normalised"] + own / own.mean()
        result[f"{measure} x all alike"] = transferred(np.ones(len(rows)), rows, normalised=True)
    used = max((phi["trial"] > 0).sum(), 1)
    own = result["trial"]
    updates = result["update x trial, normalised"] / used
    if gains:  # known, though of no task above the threshold perhaps
        lent = _lent(found, phi["trial"], gains)
        result["gains x trial"] = updates if lent is None else lent
    result["blend of updates"] = np.sqrt(own / own.mean() + updates)
    result["blend"] = np.sqrt(own / own.mean() + result.get("gains x trial", updates))  # the default
    result["ratio x raw fold (paper)"] = transferred(phi["raw fold"], branch_measures(found)["ratio"], threshold=0.35)
    for other in ("gradient soft", "spt soft", "nuclear soft"):
        result[f"ratio+{other}"] = rankdata(result["ratio x delta soft, normalised"]) + rankdata(result[other])
    return result


def _lent(found: Any, phi: np.ndarray, gains: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """Mean, weighed by phi, of the gains of mean 1 of every learned task above the threshold that has any."""
    names = map(str, found["adapters"])
    known = [(one, gains[name]) for name, one in zip(names, phi, strict=False) if name in gains and one > 0]
    return sum(one * row / row.mean() for one, row in known) / sum(one for one, _ in known) if known else None


def gains_of(work: Path, family: Family) -> dict[str, np.ndarray]:
    """What a LoRA at each location took off the test loss (k,), of every task that was inserted with seed 0."""
    found = {}
    for task in family.tasks:
        kinds = truths(work, family, task, (0,))
        if samples := kinds.get("insertion loss"):
            found[task] = np.maximum(samples[0].mean(1), 0.0)
    return found


def importance_rows(work: Path, family: Family, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Mean Spearman of every prediction with every truth, per task, truth averaged over seeds."""
    rows: list[dict[str, Any]] = []
    gains = gains_of(work, family)
    for task in family.new:
        found = truths(work, family, task, seeds)
        mine = [one for _, _, one in evidence(work, family, seeds, (task,))] if found else []
        if not mine:
            continue
        predicted = [predictions(one, own_sums(work, family, one), gains) for one in mine]
        everywhere = learned_by_all(work, family, task, seeds)
        for kind, samples in found.items():
            actual = np.mean([sample.mean(1) for sample in samples], axis=0)
            row = {"family": family.name, "task": task, "truth": kind, "seeds": len(samples)} | everywhere
            row["most"] = float(actual.max())  # what the best module gains, or what is lost without it
            row["split_half"] = float(np.mean([split_half(sample) for sample in samples]))
            row["between_seeds"] = mean(rho(a.mean(1), b.mean(1)) for a, b in combinations(samples, 2))
            row["rho"] = {name: mean(rho(one[name], actual) for one in predicted) for name in predicted[0]}
            rows.append(row)
    return rows


def learned_by_all(work: Path, family: Family, task: str, seeds: Sequence[int]) -> dict[str, Any]:
    """Accuracy that LoRA everywhere gains over the fitted head on test rows, mean of trainings, and its error.

    It ``learns`` where that is above two errors: if not, no module is important, and what seems so is noise.
    """
    gains = []
    for path in (work / family.name / f"seed{seed}" / task / "truth.npz" for seed in seeds):
        if path.exists():
            whole = np.load(path)
            hit, before = (scores.argmax(-1) == whole["labels"] for scores in (whole["logits"][0], whole["start"]))
            gains.append(hit.astype(float) - before)
    rows = np.mean(gains, axis=0)
    gain, error = float(rows.mean()), float(rows.std() / np.sqrt(len(rows)))
    return {"learned": gain, "learned_error": error, "learns": gain > 2 * error}


def own_sums(work: Path, family: Family, found: Any) -> np.ndarray | None:
    """(i, k, 4) of the learned adapters on their own data; None while one is missing."""
    names = found["adapters"][: learned(found)]
    paths = [work / family.name / "seed0" / str(name) / "own.npy" for name in names]
    return np.stack([np.load(path) for path in paths]) if all(path.exists() for path in paths) else None


def mean(values: Iterable[float]) -> float | None:
    kept = list(values)
    return float(np.mean(kept)) if kept else None


def summary(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Mean rho over the tasks that learn, by truth and prediction."""
    table: dict[str, dict[str, float]] = defaultdict(dict)
    told = [row for row in rows if row["learns"]]
    for kind in dict.fromkeys(row["truth"] for row in told):
        alike = [row for row in told if row["truth"] == kind]
        for name in alike[0]["rho"]:
            table[name][kind] = float(np.mean([row["rho"][name] for row in alike]))
    return dict(table)


def alone_rows(work: Path, family: Family, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """C.1: Pearson r of a learned task's similarity and what a plan by it alone gains over the head, per new task.

    Both are means over the trainings of all seeds that are there.  ``standard_error`` is that of one such gain in
    accuracy: smaller differences may be noise.
    """
    found: dict[str, list[tuple[dict[str, np.ndarray], dict[str, np.ndarray], float]]] = defaultdict(list)
    for task, seed, seen in evidence(work, family, seeds):
        path = work / family.name / f"seed{seed}" / task / ALONE
        if path.exists():
            trained = json.loads(path.read_text())
            test, loss = (np.array([plan[part] for plan in trained["plans"]]) for part in ("test", "loss"))
            gains = {"accuracy": test - trained["head"]["test"], "loss": trained["head"]["loss"] - loss}
            predicted, true = similarities(seen)["trial"]
            by_kind = {"predicted": predicted, "true": true, "raw": similarities(seen)["raw fold"][0]}
            found[task].append((gains, by_kind, float(np.mean(test * (1 - test)) / trained["tested"])))
    return [{"task": task, "seeds": len(rows)} | _alone(rows) for task, rows in found.items()]


def _alone(rows: list[tuple[dict[str, np.ndarray], dict[str, np.ndarray], float]]) -> dict[str, Any]:
    """Extremes of the gains, by their kind, and r by theirs and that of the similarity."""
    gains, kinds = ({k: np.mean([row[part][k] for row in rows], 0) for k in rows[0][part]} for part in (0, 1))
    row: dict[str, Any] = {"standard_error": float(np.sqrt(np.mean([row[2] for row in rows]) / len(rows)))}
    for gain, y in gains.items():
        row |= {f"least_{gain}": float(y.min()), f"most_{gain}": float(y.max())}
        row |= {f"r_{gain}_{kind}": float(np.corrcoef(x, y)[0, 1]) for kind, x in kinds.items() if y.std()}
    return row


def report(name: str, tables: dict[str, Any]) -> None:
    """Print the tables of one family."""
    for row in tables["similarity"]:
        told = f"Pearson {row['pearson']:5.2f}, within a task {row['within']:5.2f}"
        print(f"{name:9} {row['kind']:18} {row['pairs']:4} pairs  {told}")
    for row in tables["importance"]:
        best = {key: row["rho"][key] for key in ("blend", "ratio x raw fold (paper)")}
        told = "  ".join(f"{key} {value:.2f}" for key, value in best.items())
        print(f"{name:9} {row['task']:22} {row['truth']:20} split-half {row['split_half']:.2f}  {told}")
    means = tables["importance_means"]
    for way, by_truth in sorted(means.items(), key=lambda item: -sum(item[1].values())):
        print(f"{name:9} {way:45}", "  ".join(f"{truth} {value:5.2f}" for truth, value in by_truth.items()))
    for row in tables.get("alone", ()):
        told = "  ".join(f"{key} {value:.3f}" for key, value in row.items() if isinstance(value, float))
        print(f"{name:9} {row['task']:22} alone, {row['seeds']} trainings: {told}")
