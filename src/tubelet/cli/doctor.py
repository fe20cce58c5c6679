"""`tubelet doctor`: what this machine can do."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tubelet.doctor.machine import Finding

_LOOKS = {"ok": "[green]ok[/]", "warning": "[yellow]warning[/]", "fails": "[red]fails[/]"}


def doctor(
    out: Annotated[Path, typer.Option(help="Where runs would be written; its disk is checked.")] = Path(),
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Show what this machine can do: cores, GPU, bf16, decoders, disk. Exit code 1 when something essential fails."""
    from tubelet.doctor.machine import inspect_machine, is_usable

    findings = inspect_machine(out)
    usable = is_usable(findings)
    if json:
        typer.echo(_as_json(findings, usable))
    else:
        _show(findings, usable)
    raise typer.Exit(0 if usable else 1)


def _as_json(findings: Sequence[Finding], usable: bool) -> str:
    import json
    from dataclasses import asdict

    return json.dumps({"usable": usable, "findings": [asdict(finding) for finding in findings]}, indent=2)


def _show(findings: Sequence[Finding], usable: bool) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for title in ("what", "state", "found", "what to do"):
        table.add_column(title, overflow="fold")
    for item in findings:
        advice = "" if item.state == "ok" else item.advice
        table.add_row(item.name, _LOOKS[item.state], escape(item.value), escape(advice))
    console = Console()
    console.print(table)
    console.print("This machine can run tubelet." if usable else "[red]This machine cannot run tubelet yet.[/]")
