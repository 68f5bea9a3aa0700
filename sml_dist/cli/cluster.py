"""cluster: several Ray nodes on this machine."""

import shlex
import sys
from typing import Annotated

import typer

from sml_dist.cli.app import Json, app, err, out, print_json
from sml_dist.tabular import rich_table

Name = Annotated[str, typer.Option(help="Cluster name.")]
cluster = typer.Typer(no_args_is_help=True, help="A Ray cluster of several nodes on this machine, with a token.")
app.add_typer(cluster, name="cluster")


@cluster.command("up")
def cluster_up(
    name: Name = "local",
    nodes: Annotated[int, typer.Option(help="Worker nodes, in addition to the head.", min=1)] = 2,
    cpus: Annotated[int, typer.Option(help="Ray's CPUs of each node; may be more than the machine has.", min=1)] = 3,
    object_store_mb: Annotated[int, typer.Option(help="Shared memory for each node's objects.", min=80)] = 200,
    dashboard_host: Annotated[str, typer.Option(help="Where the dashboard and the jobs API listen.")] = "127.0.0.1",
    token: Annotated[bool, typer.Option(help="Ask for a token.")] = True,
    insecure: Annotated[bool, typer.Option(help="With --no-token: let anyone in.")] = False,
    namespaces: Annotated[bool, typer.Option(help="Each node with an address of its own (needs root).")] = False,
    as_json: Json = False,
) -> None:
    """Start the cluster and wait for its nodes."""
    from sml_dist.operations.local_cluster import ClusterConfig, up

    sizes = {"nodes": nodes, "cpus": cpus, "object_store_mb": object_store_mb}
    config = ClusterConfig(name=name, **sizes, dashboard_host=dashboard_host, token=token, namespaces=namespaces)
    with err.status("starting"):
        made = up(config, insecure=insecure)
    if as_json:
        print_json({"name": name, "address": made.address, "environment": made.environment()})
        return
    out.print(f"cluster {name}: a head and {nodes} nodes of {cpus} CPUs; dashboard {made.address}", soft_wrap=True, highlight=False)
    submit, down = ("", "") if name == "local" else (f" --address {name}", f" --name {name}")
    line = f"send it jobs with `sml-dist submit{submit}`, end it with `sml-dist cluster down{down}`; for other commands:"
    out.print(line, soft_wrap=True, highlight=False)
    for key, value in made.environment().items():
        out.print(f"  export {key}={shlex.quote(value)}", soft_wrap=True, highlight=False)


@cluster.command("status")
def cluster_status(name: Name = "local", as_json: Json = False) -> None:
    """The nodes, and which are alive; exit status 1 if there is no cluster or no node answers."""
    from sml_dist.operations.local_cluster import find, status

    made = find(name)
    found = status(made) if made else {"name": name, "address": None, "processes": 0, "nodes": []}
    if as_json:
        print_json(found)
    elif not found["nodes"]:
        out.print(f"cluster {name}: {'no node answers' if made else 'there is none'}")
    else:
        table = rich_table(f"{name}: {found['address']}", ("node", "state", "address", "CPUs", "object store"))
        for node in found["nodes"]:
            store = f"{node['object_store_mb']} MB"
            table.add_row(node["name"], "alive" if node["alive"] else "dead", node["address"] or "", f"{node['cpus']:g}", store)
        out.print(table)
    sys.exit(0 if any(node["alive"] for node in found["nodes"]) else 1)


@cluster.command("down")
def cluster_down(
    name: Name = "local", node: Annotated[str | None, typer.Option(help="Kill only this node, as if its machine had failed.")] = None
) -> None:
    """End the cluster, or lose one of its nodes."""
    from sml_dist.operations.local_cluster import end, lose, there

    if node is not None:
        lose(there(name), node)
    else:
        end(name)
    err.print(f"{node or f'cluster {name}'} is down")
