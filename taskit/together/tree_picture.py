"""The tree of task groups as text for a terminal, and as an SVG beside a joint run and in the app."""

from xml.sax.saxutils import escape

from rich.tree import Tree

from taskit.together.task_tree import TaskTree

STEP, ROW, PAD, BOX, TEXT = 190, 44, 20, 26, 13  # pixels


def tree_text(tree: TaskTree) -> Tree:
    """One branch for each group, depth levels from the input inwards; the tasks of a group stand together."""
    drawn = Tree("input")
    nodes = {tuple(range(len(tree.tasks))): drawn}
    for number, groups in enumerate(tree.stages, 1):
        parents, nodes = nodes, {}
        for group in groups:
            parent = next(node for wide, node in parents.items() if set(group) <= set(wide))
            nodes[group] = parent.add(f"stage {number}: {_named(tree, group)}")
    return drawn


def draw_tree(tree: TaskTree) -> str:
    """An SVG: depth levels across, tasks down; a line leads from each group to those that it parts into."""
    order = [task for group in tree.stages[-1] for task in group]
    middle = [
        {group: PAD + ROW * (sum(map(order.index, group)) / len(group) + 1.5) for group in groups}
        for groups in tree.stages
    ]
    width, height = STEP * len(tree.stages) + 2 * PAD, ROW * (len(order) + 1) + 2 * PAD
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'style="max-width:100%" font-family="sans-serif" font-size="{TEXT}">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for level, groups in enumerate(middle):
        left = PAD + STEP * level
        parts.append(f'<text x="{left}" y="{PAD + TEXT}" fill="#555">stage {level + 1}</text>')
        for group, y in groups.items():
            for wide, at in middle[level - 1].items() if level else ():
                if set(group) <= set(wide):
                    parts.append(f'<path d="M{left - 40} {at:.0f}L{left} {y:.0f}" stroke="#888" fill="none"/>')
            parts.append(
                f'<rect x="{left}" y="{y - BOX / 2:.0f}" width="{STEP - 40}" height="{BOX}" rx="6" fill="#d7ecf5"/>'
            )
            label = escape(_shortened(_named(tree, group)))
            parts.append(f'<text x="{left + 8}" y="{y + TEXT / 3:.0f}">{label}</text>')
    return "\n".join([*parts, "</svg>\n"])


def _named(tree: TaskTree, group: tuple[int, ...]) -> str:
    return " + ".join(tree.tasks[task] for task in group)


def _shortened(text: str) -> str:
    """What fits a box."""
    most = (STEP - 56) * 10 // (TEXT * 6)
    return text if len(text) <= most else text[: most - 1] + "…"
