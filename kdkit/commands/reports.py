"""``kdkit report``: the notebooks as one report, and reports beside each other."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Annotated

import typer

from kdkit.commands import Seed, app
from kdkit.profiles import PROFILES, get_profile

report = typer.Typer(rich_markup_mode=None)
app.add_typer(report, name="report")


@report.callback(
    invoke_without_command=True,
    epilog="Examples: kdkit report --profile quick --out runs/quick\n\n"
    "kdkit report --profile full --out runs/full --resume                 # go on after a failure\n\n"
    "kdkit report --only 01 --set teacher_name=HUBERT_BASE --out runs/base\n\n"
    "kdkit report compare runs/monday runs/tuesday",
)
def make(
    context: typer.Context,
    profile: Annotated[str, typer.Option(help=f"How big a run: {', '.join(PROFILES)}.")] = "quick",
    out: Annotated[
        Path | None, typer.Option(help="Run folder; default runs/PROFILE. An earlier report is replaced.")
    ] = None,
    seed: Seed = 0,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME=VALUE", help="Another parameter of the notebooks; repeat for more."
        ),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NOTEBOOK", help="Run this notebook (01, 02, ...) and leave the others; repeat for more."
        ),
    ] = None,
    start: Annotated[
        str | None, typer.Option("--from", metavar="NOTEBOOK", help="Run this notebook and those after it.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Keep notebooks that finished with the same parameters and code.")
    ] = False,
    timeout: Annotated[
        float | None, typer.Option(metavar="MINUTES", help="Longest time for one notebook; default: none.")
    ] = None,
    notebooks: Annotated[
        Path | None, typer.Option(help="Folder of the notebooks; default: the kit's.")
    ] = None,
) -> None:
    """Run the notebooks in order and make one HTML report; or compare, check and list reports.

    The exit status is 0 when all went well, 1 when a notebook failed or took too long, 130 after Ctrl-C; what was done
    is in the run folder in every case, and --resume goes on.
    """
    if context.invoked_subcommand:
        return
    get_profile(profile)  # before the imports that take a second
    from kdkit.report.plan import find_notebooks, parse_settings, select
    from kdkit.report.run import run_report

    wanted = select(find_notebooks(notebooks), only or (), start)
    settings = parse_settings(wanted, set_ or ())
    signal.signal(
        signal.SIGTERM, signal.default_int_handler
    )  # as Ctrl-C: a scheduler that stops a job sends it
    out = out or Path("runs", profile)
    status = run_report(profile, out, seed, settings, notebooks, only or (), start, resume, timeout)
    print(f"report: {out.absolute() / 'index.html'}")
    raise typer.Exit(status)
