"""The server plugin that answers what Aurora MySQL's clients ask (`native/plugin`), in a server's settings.

Owns which settings load it and tell it who the instance is. Never decides what the cluster looks like: that
is in `aurora_topology.json` in the data directory, which the plugin reads at every query.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from borealis.nativelib import NATIVE_DIR

LIBRARY: Final = "libborealis_mariadb.so"


def plugin_settings(instance_id: str, version: str, directory: Path = NATIVE_DIR) -> dict[str, str]:
    """Options for the `[mariadbd]` section of a configuration file; none when the plugin is not built.

    `version` is what `@@aurora_version` and `AURORA_VERSION()` show. A server that cannot use the plugin
    starts without it (`loose_`) and says so in its log. `directory` must be readable by the engine's user; it
    becomes the only one from which the server loads plugins.
    """
    if not (directory / LIBRARY).is_file():
        return {}
    return {
        "plugin_dir": str(directory),
        "plugin_load_add": LIBRARY,
        "loose_aurora_server_id": instance_id,
        "loose_aurora_engine_version": version,
    }
