"""The loss in chunks beside the model's own: benchmarks/loss.py."""

from collections.abc import Iterable

from benchmarks.page.markdown import counted, kib, mib, percent, seconds, table
from benchmarks.page.section import Found, Section


def section(found: Found) -> Section:
    agreement, steps, (timed,), gemma = found["agreement"], found["bytes"], found["time"], found["gemma"]
    worst = max(max(row["value"], row["gradient"]) for row in agreement)
    error = max(abs(row["error"]) for row in steps)
    models = list(dict.fromkeys(row["model"] for row in agreement))
    verdict = (
        f"On {counted(len(models), 'kind')} of models value and gradients of the loss in chunks differ from the "
        f"model's own by at most {worst:.1e}, it takes {timed['ratio']:.2f} times its time, the rehearsed peak is "
        f"within {percent(error)} of real steps, and Gemma-3-1B with {gemma['rows']} x {gemma['tokens']} tokens "
        f"needs {gib(gemma['chunked'])} instead of {gib(gemma['own'])}."
    )
    holds = all(row["holds"] for row in (*agreement, *steps, timed, gemma))
    return Section(verdict, holds, (_agreement(models, agreement), _time(timed), _bytes(steps)), verdict)


def gib(size: float) -> str:
    return f"{size / 2**30:.2f} GiB"


def _agreement(models: Iterable[str], rows: list) -> str:
    lines = []
    for model in models:
        mine = [row for row in rows if row["model"] == model]
        heads = {row["head"]: 0.0 for row in mine}
        for row in mine:
            heads[row["head"]] = max(heads[row["head"]], row["gradient"])
        lines.append([model, f"{max(row['value'] for row in mine):.1e}", *(f"{one:.1e}" for one in heads.values())])
    told = (
        "Relative errors in float32, the largest of three sizes of chunks; of gradients by their norm, for each head."
    )
    return f"{told}\n\n{table(('model', 'value', 'frozen', 'with LoRA', 'trained'), lines)}"


def _time(row: dict) -> str:
    line = [f"{row['rows']} x {row['tokens']}", seconds(row["own"]), seconds(row["chunked"]), f"{row['ratio']:.2f}"]
    told = f"Forward and backward pass in the shape of SmolLM2-135M, four blocks, {row['chunk']} tokens in a chunk."
    return f"{told}\n\n{table(('tokens', 'own loss', 'in chunks', 'ratio'), [line])}"


def _bytes(rows: list) -> str:
    lines = [
        [
            f"{row['architecture']}, {row['dtype']}{', recomputed' if row['again'] else ''}", str(row["learned"]),
            mib(row["rehearsed"]), mib(row["real"]), percent(row["error"]), kib(row["largest"]), kib(row["logits"]),
        ]
        for row in rows
    ]  # fmt: skip
    told = "Small steps of 4 x 64 tokens, 16 in a chunk: no storage is as large as all logits would be."
    head = ("step", "learned tokens", "rehearsed", "real", "error", "largest storage", "all logits")
    return f"{told}\n\n{table(head, lines)}"
