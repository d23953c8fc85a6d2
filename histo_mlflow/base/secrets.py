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
    re.compile(r"(://)[^\s:/@]{20,}(?=@)"),  # a token in the place of the user, as for git
)
_NAMES = r"password|passwd|pwd|token|secret|signature|(?:api|access|account)[_-]?key"
_NAMED = re.compile(rf"(?i)([\w-]*(?:{_NAMES}|\bsig)=)(\"[^\"]*\"|'[^']*'|[^\s&;,'\"]+)")
_QUOTED = re.compile(rf"(?i)((?P<q>['\"])[\w-]*(?:{_NAMES})(?P=q): *(?P<v>['\"]))(?:(?!(?P=v)).)*")
_BEARER = re.compile(r"(?i)(\b(?:bearer|basic) )[\w.~+/=-]{8,}")
_SECRET_VARIABLE = re.compile(
    r"(?i)(?:password|passwd|_pwd|token|secret|(?:api|access|secret|account)_?key|credentials?|connection_string)$"
)
_SHORTEST = 6  # a shorter value is as likely a word of the text


def hide_secrets(text: str) -> str:
    """Return `text` with passwords in addresses, ``password=...`` and the like, and values of secret variables as ``***``."""
    for pattern in (*_IN_ADDRESS, _NAMED, _QUOTED, _BEARER):
        text = pattern.sub(rf"\g<1>{HIDDEN}", text)
    for secret in sorted(set(_known_secrets()), key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return text


def _known_secrets() -> Iterator[str]:
    for name, value in os.environ.items():
        is_secret = _SECRET_VARIABLE.search(name) and not os.path.exists(value)  # noqa: PTH110 - a name may be too long for a Path
        found = [value] if is_secret else re.findall(r"://[^\s:/@]*:([^\s/]+)@", value)
        for secret in found:
            if len(secret) >= _SHORTEST:
                yield from (secret, unquote(secret), quote(secret, safe=""))
