"""The master user and the first database: their rules, and the password's way into a verifier.

Owns AWS's rules and words. A password is turned into what the engine stores as soon as it is found valid; it
is never stored, logged or shown, and no message repeats it.
"""

from __future__ import annotations

import asyncio
import re

from borealis.api.context import Context
from borealis.api.errors import invalid_value
from borealis.api.rds.engine_profiles import EngineProfile, profile

PASSWORD_MIN = 8
_PASSWORD = re.compile(r"""[!-~]*""")
_PASSWORD_FORBIDDEN = frozenset("/'\"@ ")
_NAME = re.compile("[A-Za-z][A-Za-z0-9_]*", re.ASCII)


def check_username(engine: str, username: str) -> str:
    """A master user's name. Raises ApiError InvalidParameterValue."""
    rules = profile(engine)
    return _checked_name(rules, username, rules.username_max, "MasterUsername")


def check_database_name(engine: str, name: str) -> str:
    """The name of a cluster's first database. Raises ApiError InvalidParameterValue."""
    rules = profile(engine)
    return _checked_name(rules, name, rules.database_max, "DatabaseName")


def _checked_name(rules: EngineProfile, name: str, longest: int, parameter: str) -> str:
    if not 1 <= len(name) <= longest:
        raise invalid_value(f"The parameter {parameter} must be 1 to {longest} characters long.")
    if not _NAME.fullmatch(name):
        raise invalid_value(
            f"{parameter} {name} is not valid: it must begin with a letter and contain only letters, "
            "digits and underscores."
        )
    if name.lower() in rules.reserved_names or name.lower().startswith(rules.reserved_prefixes):
        raise invalid_value(f"{parameter} {name} cannot be used as it is a reserved word used by the engine")
    return name


async def verifier(context: Context, engine: str, username: str, password: str) -> str:
    """What the engine stores for a password. Raises ApiError InvalidParameterValue when it breaks a rule."""
    _check_password(profile(engine), password)
    adapter = context.engines[engine]
    return await asyncio.to_thread(adapter.password_verifier, username, password)


def _check_password(rules: EngineProfile, password: str) -> None:
    name = "The parameter MasterUserPassword is not a valid password"
    if len(password) < PASSWORD_MIN:
        raise invalid_value(f"{name} because it is shorter than {PASSWORD_MIN} characters.")
    if len(password) > rules.password_max:
        raise invalid_value(f"{name} because it is longer than {rules.password_max} characters.")
    if not _PASSWORD.fullmatch(password) or _PASSWORD_FORBIDDEN & set(password):
        raise invalid_value(
            f"{name}. Only printable ASCII characters besides '/', ''', '@', '\"', ' ' may be used."
        )
