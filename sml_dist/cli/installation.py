"""config, doctor: what a command would run with."""

import json
import sys

from sml_dist.cli.app import Json, Set, app, out, print_json


@app.command("config")
def show_config(config: str, overrides: Set = None, as_json: Json = False) -> None:
    """Print the resolved configuration."""
    from sml_dist.config.run import dump, load
    from sml_dist.spec import to_dict

    run = load(config, overrides)
    sys.stdout.write(json.dumps(to_dict(run)) + "\n" if as_json else dump(run))


@app.command()
def doctor(as_json: Json = False) -> None:
    """Check the installation, with a fix for each fault."""
    from sml_dist.doctor import diagnose, render

    checks = diagnose()
    if as_json:
        print_json([vars(check) for check in checks])
    else:
        out.print(render(checks))
    if not all(check.ok for check in checks):
        sys.exit(2)
