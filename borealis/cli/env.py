"""`borealis env`: the settings that point AWS's tools at a region."""

from __future__ import annotations

import os
import shlex

from borealis.cli.common import print_json
from borealis.cli.link import AWS_RDS, environment
from borealis.paths import RegionPaths

# Left over from other credentials these would be sent along, and refused.
_FOREIGN = ("AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN")

# The last line: `eval $(borealis env)` without quotes makes one line of it all.
_HINT = f"# {AWS_RDS} ...  is the form that works with every version of the aws CLI"


def show_environment(paths: RegionPaths, as_json: bool) -> None:
    """Prints shell commands for `eval`, or JSON. The region need not run. Raises NoRegion."""
    variables = environment(paths)
    if as_json:
        print_json(variables)
        return
    for name, value in variables.items():
        print(f"export {name}={shlex.quote(value)}")
    left = [name for name in _FOREIGN if name in os.environ]
    if left:
        print("unset", *left)
    print(_HINT)
