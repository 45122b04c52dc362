"""How long a visitor waits: benchmarks/app.py."""

from benchmarks.page.markdown import mib, seconds, table
from benchmarks.page.section import Found, Section

INTERACTIVE, REDRAW = 3.0, 0.3  # seconds


def section(found: Found) -> Section:
    first = max(found["seconds_until_interactive"])
    median, slow = found["redraw_ms_median"] / 1000, found["redraw_ms_p95"] / 1000
    everyone = found["seconds_until_all_have_plans"]
    figure = (
        f"The page answers after {seconds(first)}, the plan follows the slider in {seconds(median)} (19 of 20 "
        f"moves within {seconds(slow)}), and {found['visitors']} visitors at once have their plans after "
        f"{seconds(everyone)}."
    )
    memory = found["rss_bytes"]
    lines = [["resident memory " + when, mib(size)] for when, size in memory.items()]
    lines += [["processor time: " + what, seconds(spent)] for what, spent in found["app_cpu_seconds"].items()]
    load = " and ".join(map(str, found["load_average"]))
    body = (table(("", "app"), lines), f"Load average of the machine before and after: {load}.")
    return Section(figure, first <= INTERACTIVE and slow <= REDRAW, body, figure)
