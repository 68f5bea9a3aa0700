"""Secrets belong in the environment or a mounted file. This finds them where they do not: in arguments, configuration and logs.

A secret is: the value of an environment variable whose name says so (WANDB_API_KEY, AWS_SECRET_ACCESS_KEY, ...), the
password in a URL, and what is assigned to a name like api_key or token.
"""

import os
import re
from typing import Any

from sml_dist.spec import InputError

NAMES = r"(?:api_?key|token|secret|passw(?:or)?d|passphrase|credentials?|access_key|private_key)"
VARIABLE = re.compile(rf"(?i)(?:^|_){NAMES}(?:$|_)|passw(?:or)?d$")  # PGPASSWORD too
NO_SECRET = re.compile(r"(?i)_(?:path|file|dir|mode|url)$")
URL = re.compile(r"(?<=://)[^/\s:@]*:[^/\s@]+(?=@)")
ASSIGNED = re.compile(rf"(?i)\b([\w.-]*(?<![a-z]){NAMES}(?![a-z])[\w.-]*)['\"]?\s*[=:]\s*['\"]?([^\s'\",]+)")
SHORTEST = 8  # length of a variable's value that is looked for; shorter ones would be found everywhere
SHOWN = "***"


def secrets_here() -> dict[str, str]:
    """The secrets in this process' environment, by variable."""
    named = {name: value for name, value in os.environ.items() if VARIABLE.search(name) and not NO_SECRET.search(name)}
    return {name: value for name, value in named.items() if len(value) >= SHORTEST}


def refuse(text: str, where: str) -> None:
    """Raises InputError if the text holds a secret; names the place and the kind of secret, never the secret itself."""
    way_out = "give it through the environment or a mounted file: this is shown in logs and kept"
    for name, value in secrets_here().items():
        if value in text:
            raise InputError(f"{where} holds the value of {name}; {way_out}")
    if URL.search(text):
        raise InputError(f"{where} holds a URL with a password; {way_out}")
    if found := ASSIGNED.search(text):
        raise InputError(f"{where} holds a secret ({found[1]}); {way_out}")


def refuse_in(value: Any, where: str) -> None:
    """The same for every text in a configuration; `where` is the dotted key of `value` in it, "" for all of it."""
    if isinstance(value, dict):
        for key, part in value.items():
            refuse_in(part, f"{where}.{key}" if where else str(key))
    elif isinstance(value, list | tuple):
        for part in value:
            refuse_in(part, where)
    elif isinstance(value, str):
        refuse(value, where)


def scrub(text: str) -> str:
    """The text with *** for each secret in it."""
    for value in secrets_here().values():
        text = text.replace(value, SHOWN)
    text = URL.sub(SHOWN, text)
    return ASSIGNED.sub(lambda found: found[0].removesuffix(found[2]) + SHOWN, text)
