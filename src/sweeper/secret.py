"""Passwords never reach a message, a file or a command that is shown."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import unquote

HIDDEN = "***"

_IN_URL = re.compile(r"(?<=://)([^/\s:'\"]*):[^\s'\"]*@")
"""``user:password@``, up to the last @: people forget to quote one in a password."""
_NO_PORT = re.compile(
    r"(?<=://)(?<!grpc://)([^/\s:@'\"\[]*):(?!\*\*\*)(?!\d*(?:[/?\s'\",;)\]}]|$))[^\s/?'\"]+"
)
"""``user:password`` of which somebody forgot the host; gRPC knows no users."""
_BEGIN = re.compile(r"[A-Za-z][\w+.-]*:/{0,2}(?=[^/])")
"""Of a URL, also of one whose slashes somebody forgot."""
_IN_QUERY = re.compile(r"(?i)([?&]\w*(?:password|passwd|pwd|secret|token|key)\w*|\bpassword)=[^&\s'\",;)]+")
_SHORTEST = 4
"""Characters of a password that is looked for by itself; a shorter one would hide half of a text."""

_known: dict[str, str] = {}


def remember_secrets(url: str) -> None:
    """Let ``hide_secrets`` know the password of a URL, as drivers repeat it in other forms.

    Nothing follows the URL, so that a password may have spaces and quotes in it. One that the URL holds
    elsewhere too, as ``optuna:optuna@``, is a common word: by itself it stays.
    """
    passwords = [found[0].partition("=")[2] for found in _IN_QUERY.finditer(url)]
    if begin := _BEGIN.match(url):
        user, _, rest = url[begin.end() :].partition(":")
        password, at, _ = rest.rpartition("@")
        if not at and _NO_PORT.search(url):
            password = re.split("[/?]", rest)[0]
        passwords.append("" if "/" in user else password)
    hidden = url
    for password in filter(None, passwords):
        hidden = hidden.replace(f":{password}", f":{HIDDEN}").replace(f"={password}", f"={HIDDEN}")
        if len(password) >= _SHORTEST and unquote(password) not in hidden:
            _known[password] = _known[unquote(password)] = HIDDEN
    if (hidden := _hide_in_url(hidden)) != url:
        _known[url] = hidden


def knows_secrets() -> bool:
    """Whether there is anything to hide."""
    return bool(_known)


def hide_known_secrets(text: str) -> str:
    """Without the passwords that ``remember_secrets`` was told of."""
    for secret, hidden in sorted(_known.items(), key=lambda known: -len(known[0])):
        text = text.replace(secret, hidden)
    return text


def hide_known_secrets_in(content: Any) -> Any:
    """The same of each value in plain dicts and lists: what is dumped then is still YAML."""
    if not _known:
        return content
    if isinstance(content, dict):
        return {key: hide_known_secrets_in(value) for key, value in content.items()}
    if isinstance(content, list):
        return [hide_known_secrets_in(value) for value in content]
    if isinstance(content, str):
        return hide_known_secrets(content)
    return _known.get(str(content), content)  # a number may be one


def hide_secrets(text: str) -> str:
    """Without the passwords of all URLs, and without those that are known."""
    return _hide_in_url(hide_known_secrets(text))


def _hide_in_url(text: str) -> str:
    if not any(mark in text for mark in ("=", "@", "://")):
        return text
    text = _NO_PORT.sub(rf"\1:{HIDDEN}", _IN_URL.sub(rf"\1:{HIDDEN}@", text))
    return _IN_QUERY.sub(rf"\1={HIDDEN}", text)
