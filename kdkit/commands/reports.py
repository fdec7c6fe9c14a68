"""``kdkit report``: the notebooks as one report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kdkit.commands import Seed, app
from kdkit.profiles import PROFILES, get_profile


@app.command(epilog="Example: kdkit report --profile quick --out runs/quick")
def report(
    profile: Annotated[str, typer.Option(help=f"How big a run: {', '.join(PROFILES)}.")] = "quick",
    out: Annotated[
        Path | None, typer.Option(help="Run folder; default runs/PROFILE. An earlier report is replaced.")
    ] = None,
    seed: Seed = 0,
    notebooks: Annotated[
        Path | None, typer.Option(help="Folder of the notebooks; default: the kit's.")
    ] = None,
) -> None:
    """Run the notebooks in order and make one HTML report."""
    get_profile(profile)  # before the imports that take a second
    from kdkit.report import run_report

    out = out or Path("runs", profile)
    status = run_report(profile, out, seed, notebooks=notebooks)
    print(f"report: {out.absolute() / 'index.html'}")
    raise typer.Exit(status)
