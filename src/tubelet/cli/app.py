"""The commands. Their modules import what is heavy only when they run, so that `tubelet --help` is quick."""

from __future__ import annotations

import typer

from tubelet.cli.check import check
from tubelet.cli.demo.demo import demo
from tubelet.cli.doctor import doctor
from tubelet.cli.embed import embed
from tubelet.cli.evaluate import evaluate
from tubelet.cli.finetune import finetune
from tubelet.cli.plan import plan
from tubelet.cli.predict import predict
from tubelet.cli.prepare import prepare
from tubelet.cli.pretrain import pretrain
from tubelet.cli.probe import probe
from tubelet.cli.recipes import recipes
from tubelet.cli.reconstruct import reconstruct
from tubelet.cli.run import run
from tubelet.cli.search import search
from tubelet.cli.weights.weights import weights

app = typer.Typer(
    help="Masked video pre-training: from a folder of videos to an encoder, a classifier, embeddings.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from tubelet import __version__

        typer.echo(f"tubelet {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    """Masked video pre-training: from a folder of videos to an encoder, a classifier, embeddings."""


_COMMANDS = (demo, check, prepare, plan, run, pretrain, finetune, evaluate, predict, reconstruct, embed, search, probe)
for _command in _COMMANDS:
    app.command()(_command)
app.add_typer(weights, name="weights")
app.add_typer(recipes, name="recipes")
app.command()(doctor)
