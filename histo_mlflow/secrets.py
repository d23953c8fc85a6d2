"""Passwords and keys, hidden in whatever is said, written or logged; knows nothing of where that goes."""

import os
import re
from collections.abc import Iterator
from urllib.parse import quote, unquote

HIDDEN = "***"

_DATABASES = r"(?:postgres(?:ql)?|mysql|mariadb|mssql|oracle)(?:\+\w+)?"
_IN_ADDRESS = (
    # A password may hold a slash where SQLAlchemy reads the address, and an @ where nobody minds.
    re.compile(rf"({_DATABASES}://[^\s:/@]*:)[^\s@]*(?=@)"),
    re.compile(r"(://[^\s:/@]*:)[^\s/]*(?=@)"),
)
_NAMED = re.compile(
    r"(?i)([\w-]*(?:password|passwd|pwd|token|secret|api[_-]?key|access[_-]?key)=)(\"[^\"]*\"|'[^']*'|[^\s&;,'\"]+)"
)
_BEARER = re.compile(r"(?i)(\b(?:bearer|basic) )[\w.~+/=-]{8,}")
_SECRET_VARIABLE = re.compile(r"(?i)(?:^|_)(?:password|passwd|token|secret|api_?key|access_?key|secret_?key|credentials?)$")
_SHORTEST = 6  # a shorter value is as likely a word of the text


def hide_secrets(text: str) -> str:
    """Return `text` with passwords in addresses, ``password=...`` and the like, and values of secret variables as ``***``."""
    for pattern in (*_IN_ADDRESS, _NAMED, _BEARER):
        text = pattern.sub(rf"\g<1>{HIDDEN}", text)
    for secret in sorted(set(_known_secrets()), key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return text


def _known_secrets() -> Iterator[str]:
    for name, value in os.environ.items():
        found = [value] if _SECRET_VARIABLE.search(name) else re.findall(r"://[^\s:/@]*:([^\s/]+)@", value)
        for secret in found:
            if len(secret) >= _SHORTEST:
                yield from (secret, unquote(secret), quote(secret, safe=""))
