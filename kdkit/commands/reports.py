"""``kdkit report``: the notebooks as one report; reports compared, checked and listed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kdkit.commands import Commands, app
from kdkit.commands.options import Seed, file_option, folder_option
from kdkit.common.errors import ConfigError
from kdkit.common.wording import counted
from kdkit.lessons.profiles import PROFILES, get_profile

report = Commands()
app.add_typer(report, name="report")


@report.callback(
    invoke_without_command=True,
    epilog="Examples: kdkit report --profile quick --out runs/quick\n\n"
    "kdkit report --profile full --out runs/full --resume                 # go on after a failure\n\n"
    "kdkit report --world mine.toml                                       # your own teacher and speech\n\n"
    "kdkit report --only 01 --set teacher_name=HUBERT_BASE --out runs/base\n\n"
    "kdkit report compare runs/monday runs/tuesday",
)
def make(
    context: typer.Context,
    profile: Annotated[str, typer.Option(help=f"Size of the run: {', '.join(PROFILES)}.")] = "quick",
    world: Annotated[
        str | None,
        typer.Option(
            help="What it is about: toy, librispeech, or a world file (.toml, .json); default: auto, toy without a GPU."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        folder_option(
            "Run folder; default runs/PROFILE or runs/PROFILE-WORLD. An earlier report is replaced."
        ),
    ] = None,
    seed: Seed = 0,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME=VALUE", help="Set another parameter of the notebooks; repeatable."
        ),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NOTEBOOK", help="Run only this notebook (01, 02, ...) and keep the others; repeatable."
        ),
    ] = None,
    start: Annotated[
        str | None, typer.Option("--from", metavar="NOTEBOOK", help="Run this notebook and those after it.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Keep notebooks that finished with the same parameters and code.")
    ] = False,
    timeout: Annotated[
        float | None, typer.Option(metavar="MINUTES", help="Time limit for each notebook; default: none.")
    ] = None,
    notebooks: Annotated[
        Path | None, typer.Option(help="Folder of the notebooks; default: the kit's.")
    ] = None,
) -> None:
    """Run the notebooks in order and make one HTML report; or compare, check and list reports.

    The exit status is 0 when all notebooks finished, 1 when one failed or took too long, 130 after Ctrl-C; what was
    done is in the run folder in every case, and --resume continues.
    """
    if context.invoked_subcommand:
        return
    get_profile(profile)  # before the imports that take a second
    from kdkit.report.plan import WORLD, find_notebooks, parse_settings, select
    from kdkit.report.run import run_report

    wanted = select(find_notebooks(notebooks), only or (), start)
    settings = parse_settings(wanted, set_ or ())
    world = world or ("librispeech" if profile == "paper" else None)
    settings |= {WORLD: world} if world else {}
    out = out or Path("runs", f"{profile}-{Path(world).stem}" if world else profile)
    status = run_report(profile, out, seed, settings, notebooks, only or (), start, resume, timeout)
    print(f"report: {out.absolute() / 'index.html'}")
    raise typer.Exit(status)


Runs = Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders that kdkit report made.")]


@report.command(epilog="Example: kdkit report compare runs/monday runs/tuesday --html compared.html")
def compare(
    runs: Runs,
    html: Annotated[Path | None, file_option("Also write a page with every number.")] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Show equal numbers, times and speeds, too.")
    ] = False,
) -> None:
    """Compare the numbers of two or more runs with the first: differences, and whether intervals overlap."""
    from kdkit.common.files import write_text
    from kdkit.report.compare import as_html, as_text, load_runs

    loaded = load_runs(runs)
    print(as_text(runs, loaded, everything))
    if html:
        write_text(html, as_html(runs, loaded))
        print(f"page: {html.absolute()}")


@report.command(
    epilog="Example: kdkit report check runs/colab good/run.json --tolerances .github/tolerances.json"
)
def check(
    new: Annotated[Path, typer.Argument(help="The run to check: a folder, or its run.json.")],
    good: Annotated[Path, typer.Argument(help="The run that was good.")],
    tolerances: Annotated[
        Path | None,
        typer.Option(help="JSON file, described in kdkit/report/compare.py; default: 5 % and 0.005."),
    ] = None,
) -> None:
    """Check a run against an earlier one: exit status 1 if a number left its tolerance or is missing."""
    from kdkit.report.compare import check as compare_with
    from kdkit.report.compare import read_tolerances
    from kdkit.report.record import read_run

    problems = compare_with(read_run(new), read_run(good), read_tolerances(tolerances))
    for problem in problems:
        print(problem)
    found = counted(len(problems), "problem") if problems else "within tolerances"
    print(f"{new} against {good}: {found}")
    raise typer.Exit(1 if problems else 0)


@report.command()
def summary(
    run: Annotated[Path, typer.Argument(help="Folder that kdkit report made, or its run.json.")],
) -> None:
    """Print a run as one page of Markdown, for continuous integration."""
    from kdkit.report.index_page import as_markdown
    from kdkit.report.record import read_run

    print(as_markdown(read_run(run)), end="")


@report.command("list")
def list_runs(
    folder: Annotated[Path, typer.Argument(help="Folder to search, with its subfolders.")] = Path("runs"),
) -> None:
    """List the runs in and below a folder: profile, world, date, status, finished notebooks, and the main WER."""
    from kdkit.common.wording import columns, moment, rate
    from kdkit.report.record import find_runs, main_system

    rows = []
    for place, run in find_runs(folder):
        name = str(place.relative_to(folder))
        if run is None:
            rows.append([name, "", "", "", "cannot be read", "", ""])
            continue
        best = main_system(run)
        done = sum(entry["status"] == "done" for entry in run["notebooks"])
        wer = (
            f"{rate(best['wer']['test-clean'])}  {best['name']}, {best['role']}, {best['labels']}"
            if best
            else ""
        )
        when = moment(run["started"])
        about, ran = run.get("world", ""), f"{done} of {len(run['notebooks'])}"
        rows.append([name, run["profile"], about, when, run["status"], ran, wer])
    if not rows:
        raise ConfigError(f"{folder}: no reports there; make one with kdkit report")
    head = ["run", "profile", "world", "started", "status", "notebooks", "WER, test-clean"]
    print("\n".join(columns(head, rows)))
