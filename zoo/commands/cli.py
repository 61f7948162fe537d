"""`robrep-zoo`: find, get, publish, check, rank and submit encoders.

Nothing here imports torch before a command needs it.
"""

from __future__ import annotations

import rich_click as click

from zoo._version import __version__
from zoo.commands import read as cli_read
from zoo.commands import write as cli_write
from zoo.commands.results import results
from zoo.commands.shell import run
from zoo.commands.verify import verify

EPILOG = """
Examples:

  robrep-zoo list

  robrep-zoo show tarrl-digits

  robrep-zoo download NAME --source https://HOST/zoo

  robrep-zoo publish runs/NAME/digits-linf-0.1 --to hf://ORG/REPO

  robrep-zoo verify --all --source hf://ORG/REPO

  robrep-zoo verify tarrl-digits --attack 50

  robrep-zoo leaderboard --html leaderboard.html

  robrep-zoo results check results --against before
"""


@click.group(
    epilog=EPILOG,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "token_normalize_func": lambda token: token.replace("_", "-"),
    },
)
@click.version_option(__version__, prog_name="robrep-zoo")
def cli() -> None:
    """Robust encoders with names: find, get, publish, check, rank and submit them."""


for _command in (
    cli_read.list_,
    cli_read.show,
    cli_read.download,
    verify,
    cli_read.leaderboard,
    cli_write.publish,
    cli_write.worst_case,
    cli_write.submit,
    cli_write.import_,
    results,
    cli_write.export,
):
    cli.add_command(_command)


def main() -> None:
    """Entry point of the command."""
    run(cli, "robrep-zoo")
