"""The longest text that fits a card, and published peaks foretold: benchmarks/context_length.py."""

from benchmarks.page.markdown import percent, table
from benchmarks.page.section import Found, Section


def section(found: Found) -> Section:
    cards, published = found["cards"], found["published"]
    barred = [row for row in cards if "bar" in row]
    told = " and ".join(f"{row['tokens']:,} tokens in {row['gigabytes']} GB" for row in barred)
    verdict = f"Predicted, not measured: Llama-3.1-8B in 4 bits is trained on {told}, one text at a time."
    first = (
        "Longest text in tokens; the columns of Transformers with FlashAttention 2 and of Unsloth are published by "
        "Unsloth as measured, those of TaskIT are rehearsed for a GPU that is not here. Ours with 8-bit AdamW, which "
        "Unsloth's own examples take; its table does not name an optimizer."
    )
    lines = [[f"{row['gigabytes']} GB", *(_tokens(row[n]) for n in ("transformers", "unsloth", "before", "tokens"))]
             for row in cards]  # fmt: skip
    head = ("card", "Transformers + FA2", "Unsloth", "TaskIT before, predicted", "TaskIT, predicted")
    second = (
        "Published peaks of other programs beside what is predicted of the step that their sources describe, made as "
        "TaskIT makes it; where they keep all logits, the last column has them in chunks."
    )
    rows = [
        [
            row["row"], f"{row['inputs']}; unknown: {row['unknown']}", _gib(row["published"]), _gib(row["foretold"]),
            percent(row["error"]), "" if row["chunked"] is None else _gib(row["chunked"]),
        ]
        for row in published
    ]  # fmt: skip
    columns = ("published", "inputs", "published peak", "predicted", "error", "with the loss in chunks")
    body = (f"{first}\n\n{table(head, lines)}", f"{second}\n\n{table(columns, rows)}")
    return Section(verdict, all(row["holds"] for row in barred), body, verdict)


def _tokens(count: int | None) -> str:
    return "does not fit" if count is None else f"{count:,}"


def _gib(size: float) -> str:
    return f"{size / 2**30:.2f} GiB"
