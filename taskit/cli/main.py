"""The command line: one small function per verb.  stdout carries data only, everything else stderr."""

import argparse
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from taskit.cli.common import add_data, add_zoo, columns_of, show
from taskit.cli.demo import add_demo
from taskit.cli.plan_flags import add_plan, constraints_of, method_options_of, recipe_of
from taskit.cli.runs import add_runs, runs
from taskit.cli.together import add_together, together
from taskit.errors import TaskITError
from taskit.terminal import progress_bar, quiet_libraries, status

if TYPE_CHECKING:
    from taskit.planning.plan import Plan

UNPRINTED = ("folder", "embedding", "gains")  # fields of a learned task: a path of this machine, hundreds of numbers
Verb = Callable[[argparse.Namespace], None]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit status: 0, 1 for a user's mistake, 2 for wrong usage, 130 for Ctrl-C."""
    options = build_parser().parse_args(argv)
    try:
        with quiet_libraries():
            options.verb(options)
    except TaskITError as error:
        if os.environ.get("TASKIT_DEBUG"):
            traceback.print_exc()
        print(f"taskit: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("taskit: stopped.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of stdout went away, as in `taskit … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def methods(options: argparse.Namespace) -> None:
    from taskit.cli.tables import methods_table
    from taskit.methods import METHODS

    show(options, {name: one.explanation for name, one in METHODS.items()}, lambda: methods_table(METHODS))


def check(options: argparse.Namespace) -> None:
    from taskit.cli.tables import report_table
    from taskit.data import check as check_data

    report = check_data(options.data, columns=columns_of(options), seed=options.seed)
    show(options, asdict(report), lambda: report_table(report))


def zoo(options: argparse.Namespace) -> None:
    from taskit.backbone.sources import find_backbone
    from taskit.cli.tables import zoo_table
    from taskit.zoo.zoo import find_zoo

    found = find_zoo(options.zoo, find_backbone(options.backbone), ask=True)
    if found.note:
        print(found.note, file=sys.stderr)
    tasks = [{name: value for name, value in asdict(task).items() if name not in UNPRINTED} for task in found.tasks]
    show(options, {"tasks": tasks, "skipped": found.skipped}, lambda: zoo_table(found))


def plan(options: argparse.Namespace) -> None:
    from taskit.cli.tables import plan_tables
    from taskit.planning.planner import make_plan

    with status() as on_progress:
        made = make_plan(
            options.data,
            options.backbone,
            options.budget,
            zoo=options.zoo,
            recipe=recipe_of(options),
            columns=columns_of(options),
            dtype=options.dtype,
            quantization=options.quantize,
            attention=options.attention,
            similarity=options.similarity,
            importance=options.importance,
            method=options.method,
            method_options=method_options_of(options),
            gain=options.gain,
            constraints=constraints_of(options),
            seed=options.seed,
            on_progress=on_progress,
        )
    made.save(options.out)
    show(options, made.to_dict(), lambda: plan_tables(made, explain=options.explain))
    print(f"Plan written; train it with: taskit train {options.out} --out RUN", file=sys.stderr)


def train(options: argparse.Namespace) -> None:
    from taskit.planning.plan import Plan

    chosen = Plan.load(options.plan)
    if options.epochs is not None:
        chosen = replace(chosen, training=replace(chosen.training, epochs=options.epochs))
    if options.on:
        from taskit.cli.jobs import train_elsewhere

        train_elsewhere(options, chosen)
    else:
        _train_here(options, chosen)


def _train_here(options: argparse.Namespace, chosen: "Plan") -> None:
    from taskit.cli.tables import result_tables
    from taskit.training.trainer import train as train_plan

    first = os.environ.get("RANK", "0") == "0"  # of several processes that train together, only this one prints
    with progress_bar() if first else nullcontext(lambda _: None) as watch:
        how = {"resume": options.resume, "tighten": options.tighten, "tracker": options.track}
        result = train_plan(chosen, options.out, watch=watch, **how)
    if not first:
        return
    show(options, asdict(result), lambda: result_tables(result, chosen.data.labels))
    print(f"The adapter is in {options.out}/adapter", file=sys.stderr)


def evaluate(options: argparse.Namespace) -> None:
    from taskit.training.inference import evaluate_run

    metric, value, rows = evaluate_run(options.run, options.data)
    show(options, {"metric": metric, "value": value, "rows": rows}, lambda: f"{metric} {value:.4f} on {rows} rows")


def predict(options: argparse.Namespace) -> None:
    from taskit.cli.tables import prediction_table
    from taskit.training.inference import predict as predict_inputs

    answers = predict_inputs(options.run, options.inputs)
    show(options, [asdict(answer) for answer in answers], lambda: prediction_table(answers))


def push(options: argparse.Namespace) -> None:
    from taskit.sharing.pushing import push as push_run

    with status() as on_progress:
        pushed = push_run(options.run, options.repo, private=options.private, on_progress=on_progress)
    show(options, asdict(pushed), lambda: f"{pushed.url} ({'private' if pushed.private else 'public'})")


def app(options: argparse.Namespace) -> None:
    from taskit.ui.app import launch

    print(f"TaskIT is at http://{options.host}:{options.port} ; runs go to {options.runs}", file=sys.stderr)
    launch(options.host, options.port, options.runs)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="taskit", description="Plan, train and share LoRA adapters that fit a memory budget."
    )
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    def add(verb: Verb, help_text: str) -> argparse.ArgumentParser:
        sub = verbs.add_parser(verb.__name__, help=help_text, description=help_text)
        sub.set_defaults(verb=verb)
        sub.add_argument("--json", action="store_true", help="print JSON instead of tables")
        return sub

    add_demo(verbs, parser)
    add_zoo(add(zoo, "List the learned tasks of a backbone."))
    add(methods, "Explain the training methods that plan --method chooses from.")
    add_data(add(check, "Look at a dataset: rows, classes, lengths, duplicates, what would be dropped."))
    add_plan(add(plan, "Plan where LoRA goes and at which rank, inside a memory budget."))
    _add_train(add(train, "Train a plan into a run folder."))
    add_together(add(together, "Train several datasets at once, related ones sharing more of their LoRA (TGLoRA)."))
    add_runs(add(runs, "List the runs in a folder, or watch, stop, resume or delete one."))
    sub = add(evaluate, "Score a run on its evaluation rows, or on other data.")
    sub.add_argument("run", metavar="RUN", help="a run folder")
    sub.add_argument("data", metavar="DATA", nargs="?", help="a dataset of the same task and labels")
    sub = add(predict, "Ask a run for predictions.")
    sub.add_argument("run", metavar="RUN", help="a run folder")
    sub.add_argument("inputs", metavar="INPUT", nargs="+", help="an image file, a text, or IMAGE<tab>PROMPT")
    sub = add(push, "Push a run's adapter to the Hugging Face Hub.")
    sub.add_argument("run", metavar="RUN", help="the folder of a finished run")
    sub.add_argument("repo", metavar="OWNER/NAME", help="the repository to make, or one that you pushed to before")
    seen = sub.add_mutually_exclusive_group()
    seen.add_argument("--private", action="store_true", default=True, help="only you may see it (default)")
    seen.add_argument("--public", dest="private", action="store_false", help="everybody may see it")
    sub = add(app, "Start the web app.")
    sub.add_argument("--host", default="127.0.0.1")
    sub.add_argument("--port", type=int, default=7860)
    sub.add_argument("--runs", metavar="DIR", default="runs", help="where visitors' runs go (default %(default)s)")
    return parser


def _add_train(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("plan", metavar="plan.json", help="a plan, edited by hand or not")
    sub.add_argument("--out", required=True, metavar="RUN", help="the run folder to make")
    sub.add_argument("--epochs", type=int, metavar="N", help="instead of the plan's")
    sub.add_argument("--resume", action="store_true", help="go on with a stopped run")
    sub.add_argument("--tighten", action="store_true", help="what does not fit is trained in smaller micro-batches")
    sub.add_argument(
        "--on", metavar="hf-jobs:FLAVOR", help="train on a machine rented from Hugging Face, as t4-small"
    )
    sub.add_argument("--yes", action="store_true", help="accept what --on costs without being asked")
    sub.add_argument("--track", choices=("tensorboard", "trackio", "wandb"), help="send losses and metrics there too")


if __name__ == "__main__":
    sys.exit(main())
