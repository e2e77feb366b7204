"""The `borealis` command: its sub-commands, their options, their help, and how errors look.

Owns what the user types. The work of each command is in a module of its own, imported when it is called, so
that `borealis --help` is quick.
"""

from __future__ import annotations

import logging
import signal
import sys
from enum import StrEnum
from typing import Annotated

import typer

from borealis import __version__
from borealis.cli.common import FAILED, NOT_RUNNING, DataOption, JsonOption, chosen, err, region_paths
from borealis.errors import BorealisError

app = typer.Typer(
    name="borealis",
    help="An open, self-hosted database service with the architecture and the API of Amazon Aurora.",
    epilog="Exit codes: 0 done, 1 failed, 2 wrong usage, 3 no region runs there.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _examples(*lines: str) -> str:
    return "[bold]Examples[/]\n\n" + "\n\n".join(f"  {line}" for line in lines)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"borealis {__version__}")
        raise typer.Exit


@app.callback()
def _global(
    data: DataOption = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    chosen.data = data
    # What goes wrong is said once, by the error that ends the command.
    logging.getLogger().addHandler(logging.NullHandler())


@app.command(
    epilog=_examples(
        "borealis up --detach",
        "borealis up --data /srv/second --port 4600 --region eu-west-1 --detach",
        "borealis up --set lease_seconds=5",
    )
)
def up(
    data: DataOption = None,
    port: Annotated[
        int | None,
        typer.Option(
            min=1, max=65535, help="The API's port. Default: 4577, later what it was.", show_default=False
        ),
    ] = None,
    region: Annotated[
        str | None,
        typer.Option(
            help="AWS's name of the region. Default: us-east-1; fixed at first start.", show_default=False
        ),
    ] = None,
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Return when it runs, and leave it running.")
    ] = False,
    engine_user: Annotated[
        str | None,
        typer.Option(
            help="The unprivileged user that engines run as. Default for root: postgres, else mysql.",
            show_default=False,
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=NUMBER", help="Change a setting of the region; may be repeated."),
    ] = None,
) -> None:
    """Start a region, and make it first when there is none. Without --detach it runs until Ctrl-C."""
    from borealis.cli.up import Wishes
    from borealis.cli.up import up as start

    wishes = Wishes(port, _region_name(region), engine_user, tuple(_setting(text) for text in settings or []))
    start(region_paths(data), wishes, detach)


@app.command(epilog=_examples("borealis down", "borealis down --data /srv/second"))
def down(data: DataOption = None) -> None:
    """Stop everything of a region. The data stays: `borealis up` goes on where it was."""
    from borealis.cli.down import stop_region

    stop_region(region_paths(data))


@app.command(epilog=_examples("borealis status", "borealis status --json | jq '.clusters[].instances'"))
def status(data: DataOption = None, as_json: JsonOption = False) -> None:
    """Show clusters, instances with zone, role and lag, endpoints, storage nodes, SCL and VDL of the
    segments.
    """
    from borealis.cli.status import show_status

    show_status(region_paths(data), as_json)


@app.command(epilog=_examples('eval "$(borealis env)"', "borealis env --json"))
def env(data: DataOption = None, as_json: JsonOption = False) -> None:
    """Print the settings that point the aws CLI, AWS SDKs and Terraform at the region."""
    from borealis.cli.env import show_environment

    show_environment(region_paths(data), as_json)


@app.command(
    epilog=_examples(
        "borealis connect orders-demo",
        "borealis connect orders-demo --reader -- -c 'select count(*) from orders'",
        "borealis connect orders-demo-mysql -- -e 'select count(*) from ecommerce.orders'",
        "PGPASSWORD=… borealis connect my-cluster --user me --database shop",
    ),
)
def connect(
    cluster: Annotated[str, typer.Argument(help="The DB cluster's identifier.")],
    more: Annotated[
        list[str] | None, typer.Argument(help="Further arguments of the client, after --.")
    ] = None,
    reader: Annotated[bool, typer.Option("--reader", help="The reader endpoint, not the writer's.")] = False,
    instance: Annotated[
        str | None, typer.Option(help="The endpoint of this instance.", show_default=False)
    ] = None,
    user: Annotated[
        str | None, typer.Option(help="Default: the cluster's master user.", show_default=False)
    ] = None,
    database: Annotated[
        str | None, typer.Option(help="Default: the cluster's first database.", show_default=False)
    ] = None,
    data: DataOption = None,
) -> None:
    """Open the engine's own client (psql, mariadb) on a cluster. The password comes from PGPASSWORD or
    MYSQL_PWD, or is asked for.
    """
    from borealis.cli.connect import Wanted, open_client

    open_client(region_paths(data), Wanted(cluster, reader, instance, user, database, tuple(more or ())))


@app.command(epilog=_examples("borealis demo", "borealis demo --seconds 10 --engine aurora-mysql"))
def demo(
    data: DataOption = None,
    seconds: Annotated[
        float, typer.Option(min=1, max=600, help="How long to write before the writer is killed, in seconds.")
    ] = 3.0,
    engine: Annotated[
        str | None,
        typer.Option(
            help="Only this one: aurora-postgresql or aurora-mysql. Default: all that are installed.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """For each engine: create a cluster, fill it, read from its readers, kill its writer while writing, and
    count the rows.
    """
    from borealis.cli.demo import play

    play(region_paths(data), seconds, engine)


@app.command(epilog=_examples("borealis logs", "borealis logs control --follow", "borealis logs n1 -n 200"))
def logs(
    process: Annotated[str | None, typer.Argument(help="Whose log; without it the logs are listed.")] = None,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, help="How many of the last lines.")] = 50,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on as lines come, until Ctrl-C.")
    ] = False,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the logs of the region's processes, or show one."""
    from borealis.cli.logs import list_logs, show_log

    paths = region_paths(data)
    if process is None:
        list_logs(paths, as_json)
    else:
        show_log(paths, process, lines, follow)


class ChaosAction(StrEnum):
    """What to do to a victim."""

    KILL = "kill"
    STOP = "stop"
    CONT = "cont"


@app.command(
    epilog=_examples(
        "borealis chaos kill orders-demo-1      kill -9 an instance's engine",
        "borealis chaos stop n3                 freeze a storage node (SIGSTOP)",
        "borealis chaos cont n3                 let it go on",
        "borealis chaos kill us-east-1b         kill -9 all of an availability zone",
        "borealis chaos stop us-east-1b --storage",
        "borealis chaos kill control            the control plane; also: host, driver:orders-demo-1",
    )
)
def chaos(
    action: Annotated[ChaosAction, typer.Argument(help="kill -9, stop (freeze) or cont (go on).")],
    victims: Annotated[
        list[str],
        typer.Argument(help="Instances, storage nodes, zones, driver:INSTANCE, control, host."),
    ],
    storage: Annotated[bool, typer.Option("--storage", help="Of a zone: only its storage nodes.")] = False,
    data: DataOption = None,
) -> None:
    """Break something on purpose, to see that nothing is lost."""
    from borealis.cli.chaos import strike

    strike(region_paths(data), action.value, victims, storage)


# ---------------------------------------------------------------------- small parsers
def _setting(text: str) -> tuple[str, float]:
    name, equals, value = text.partition("=")
    try:
        if not name.isidentifier() or not equals:
            raise ValueError
        return name, float(value)
    except ValueError:
        raise typer.BadParameter(f"{text!r}: expected NAME=NUMBER, as in lease_seconds=3") from None


def _region_name(name: str | None) -> str | None:
    import re

    if name is not None and not re.fullmatch(r"[a-z]{2}(-[a-z]+)+-\d", name):
        raise typer.BadParameter(
            f"{name!r} does not look like a region of AWS, such as us-east-1 or eu-west-1"
        )
    return name


def main() -> None:
    """The entry point of the `borealis` command."""
    # A reader that goes away (`borealis logs | head`) ends the command quietly.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        app()
    except BorealisError as error:
        err.print(f"[bold red]error:[/] {_plain(error.message)}", soft_wrap=True)
        sys.exit(NOT_RUNNING if error.code == "NoRegion" else getattr(error, "exit_code", FAILED))
    except KeyboardInterrupt:
        sys.exit(130)


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)
