"""Passwords never reach a message, a file or a command that is shown."""

from __future__ import annotations

import re
from urllib.parse import unquote

HIDDEN = "***"

_IN_URL = re.compile(r"(?<=://)([^/\s:@'\"]*):[^\s'\"]*@")
"""``user:password@``, up to the last @: people forget to quote one in a password."""
_IN_QUERY = re.compile(r"(?i)([?&]\w*(?:password|passwd|pwd|secret|token|key)\w*|\bpassword)=[^&\s'\",;)]+")
_SHORTEST = 4
"""Characters of a password that is looked for by itself; a shorter one would hide half of a text."""

_known: dict[str, str] = {}


def remember_secrets(url: str) -> None:
    """Let ``hide_secrets`` know the password of a URL, as drivers repeat it in other forms."""
    if (hidden := _hide_in_url(url)) == url:
        return
    _known[url] = hidden
    passwords = [found[0].partition(":")[2][:-1] for found in _IN_URL.finditer(url)]
    passwords += [found[0].partition("=")[2] for found in _IN_QUERY.finditer(url)]
    for password in passwords:
        if len(password) >= _SHORTEST:
            _known[password] = _known[unquote(password)] = HIDDEN


def hide_known_secrets(text: str) -> str:
    """Without the passwords that ``remember_secrets`` was told of."""
    for secret, hidden in _known.items():
        text = text.replace(secret, hidden)
    return text


def hide_secrets(text: str) -> str:
    """Without the passwords of all URLs, and without those that are known."""
    return _hide_in_url(hide_known_secrets(text))


def _hide_in_url(text: str) -> str:
    if "=" not in text and "@" not in text:
        return text
    return _IN_QUERY.sub(rf"\1={HIDDEN}", _IN_URL.sub(rf"\1:{HIDDEN}@", text))
