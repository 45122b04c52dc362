"""The view of one run: its state, its progress, its loss, and its memory beside the planned one."""

from collections.abc import Sequence

from taskit.jobs.job import Job
from taskit.terminal import show_bytes
from taskit.training.run_folder import Event
from taskit.training.runs import Run, RunProgress
from taskit.ui.markup import bar, empty, figures, notice, panel, share, text
from taskit.ui.rentals import is_rented
from taskit.ui.run_store import RunStore, Ticket

WIDTH, HEIGHT = 640, 150  # of the loss curve, in its own units
POINTS = 320  # drawn at most: every further one would fall into the same pixel
STATES = {"queued": "starting", "running": "training", "stopping": "saving", "stopped": "stopped", "done": "done"}
NOTHING = empty("Nothing is training", "Plan something, then press “Train this plan”. Runs go on without this page.")


def run_view(found: Run | Ticket, run_store: RunStore) -> str:
    """The whole picture, as HTML."""
    if isinstance(found, Ticket):
        return _waiting(found, run_store)
    state, progress, events = found.state, found.progress, found.events()
    name = text(run_store.name_of(found))
    head = f'<span class="chip {_kind(state.name)}">{STATES.get(state.name, state.name)}</span> {name}'
    error = notice(state.message) if state.message else ""
    done = progress.step / progress.steps if progress.steps else 0.0
    meter = (
        f'<div class="meter" role="progressbar" aria-valuenow="{done * 100:.0f}" aria-valuemin="0" '
        f'aria-valuemax="100" aria-label="training"><i style="width:{share(done, 1)}"></i></div>'
    )
    values = _values(progress, state.name)
    hint = f'<p class="hint">{text(progress.message)}</p>{_rented_from(found)}'
    top = f'<section class="card" style="height:auto"><h3>{head}</h3>{meter}{figures(values)}{hint}{error}</section>'
    pictures = f"<div>{loss_curve(events)}</div><div>{memory_meter(found)}</div>"
    return f'{top}<div class="panels wide" style="margin-top:14px">{pictures}</div>'


def _rented_from(run: Run) -> str:
    """Where a rented run is trained, and where it is stored."""
    if not is_rented(run):
        return ""
    job = Job.read(run.path)
    link = f'<a href="{text(job.url)}" target="_blank" rel="noreferrer">its page there</a>'
    return (
        f'<p class="hint">On {text(job.flavor)} at Hugging Face, for {duration(job.timeout_seconds)} at most; '
        f"{link}. Checkpoints and adapter are kept in your private repository {text(job.repo)}.</p>"
    )


def _waiting(ticket: Ticket, run_store: RunStore) -> str:
    if ticket.error:
        return notice(ticket.error)
    ahead = run_store.runs_ahead(ticket)
    first = "It starts as soon as the present run is done." if ahead <= 1 else f"{ahead} runs come before it."
    return empty(f"{ticket.name} waits for its turn", f"{first} You may close this page.")


def _kind(state: str) -> str:
    return {"running": "live", "stopping": "live", "failed": "failed"}.get(state, "")


def _values(progress: RunProgress, state: str) -> dict[str, str]:
    values = {"step": f"{progress.step:,} of {progress.steps:,}" if progress.steps else "getting ready"}
    if progress.loss is not None:
        values["loss"] = f"{progress.loss:.3f}"
    if progress.metric is not None:
        values["validation"] = f"{progress.metric:.3f}"
    if progress.seconds_left is not None and state == "running":
        values["time left"] = duration(progress.seconds_left)
    return values


def duration(seconds: float) -> str:
    """Seconds for people: ``duration(95) == '1 min 35 s'``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def loss_curve(events: Sequence[Event]) -> str:
    """The loss of every step, and the validation metric of every epoch as a second line from 0 to 1."""
    steps = [event for event in events if event.kind == "step" and event.loss is not None]
    title, hint = (
        "Loss and validation",
        "Loss falls from left to right; dots are the validation metric after an epoch.",
    )
    if len(steps) < 2:
        return panel(title, hint, empty("No step yet", "The backbone is loaded and the linear head fitted first."))
    last = steps[-1].steps or steps[-1].step
    shown = steps[:: max(1, len(steps) // POINTS)]
    top = max(event.loss or 0.0 for event in shown) or 1.0
    line = " ".join(f"{e.step / last * WIDTH:.1f},{HEIGHT - (e.loss or 0.0) / top * HEIGHT:.1f}" for e in shown)
    dots = "".join(
        f'<circle cx="{e.step / last * WIDTH:.1f}" cy="{HEIGHT - min(max(e.metric, 0.0), 1.0) * HEIGHT:.1f}" r="4">'
        f"<title>epoch {e.epoch}: {e.metric:.3f}</title></circle>"
        for e in events
        if e.kind == "epoch" and e.metric is not None
    )
    picture = (
        f'<svg class="curve" viewBox="-6 -8 {WIDTH + 12} {HEIGHT + 14}" role="img" '
        f'aria-label="loss {steps[0].loss:.3f} at first, {steps[-1].loss:.3f} now">'
        f'<line x1="0" y1="{HEIGHT}" x2="{WIDTH}" y2="{HEIGHT}"/><polyline points="{line}"/>{dots}</svg>'
        f'<div class="ends"><span>0</span><span>{last:,} steps</span></div>'
    )
    return panel(title, hint, picture)


def memory_meter(run: Run) -> str:
    """Predicted, and once the run is done measured, peak against the budget."""
    plan, result = run.plan, run.result
    budget, predicted = plan.budget_bytes, plan.memory.peak_bytes
    measured = result.measured_peak_bytes if result else None
    scale = max(plan.memory.full_lora_bytes, predicted, measured or 0) * 1.05
    rows = {"LoRA everywhere": plan.memory.full_lora_bytes, "predicted": predicted}
    if measured:
        rows["measured"] = measured
    bars = "".join(
        bar(
            name,
            f'<i style="left:0;width:{share(size, scale)}"></i>'
            f'<b class="budget" style="left:{share(budget, scale)}"></b>',
            show_bytes(size),
            muted=name == "LoRA everywhere",
        )
        for name, size in rows.items()
    )
    hint = f"┆ budget {show_bytes(budget)}."
    if measured:
        off = round(measured / predicted - 1, 3)
        hint += f" Measured {off:+.1%} against the prediction." if off else " Measured as predicted."
    return panel("Peak memory", hint, f'<div class="bars">{bars}</div>')
