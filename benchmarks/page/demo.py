"""What `make demo` prints: benchmarks/demo.py."""

from benchmarks.page.markdown import accuracy, mib, seconds
from benchmarks.page.section import Found, Section

SIZES = {"peak of this plan": "peak_bytes", "budget": "budget_bytes", "LoRA r = 8 everywhere": "full_lora_bytes"}


def section(found: Found) -> Section:
    fits = found["measured_peak_bytes"] <= found["budget_bytes"]
    verdict = (
        f"The plan of {mib(found['peak_bytes'])} is within its budget of {mib(found['budget_bytes'])}; training took "
        f"{mib(found['measured_peak_bytes'])} and led from {accuracy(found['before'])} to "
        f"{accuracy(found['after'])} % of the test images, the whole road {seconds(found['seconds'])}"
    )
    return Section(f"{verdict}.", fits, (block(found),), f"{verdict}.")


def block(found: Found) -> str:
    """Map and memory as the demo prints them."""
    roles = [role for role in found["ranks"][0] if role != "block"]
    lines = ["block " + " ".join(f"{role:>3}" for role in roles)]
    for row in found["ranks"]:
        lines.append(f"{row['block']:>5} " + " ".join(f"{row[role] or '·':>3}" for role in roles))
    lines.append("")
    lines += [f"{name:21} {found[key]:>11,}  {mib(found[key])}" for name, key in SIZES.items()]
    return "\n".join(["```", *lines, "```"])
