"""What stands between the dashboard and the web: a page of somebody else must neither see nor change a study.

The dashboard has no passwords, so whoever can speak to it may delete. Other machines cannot, as it listens on
this one alone; but the person's own browser can, for any page that it shows. And what is shown may come from
somebody else: a study's names, notes and values are text, whatever is in them.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable
from io import BytesIO
from typing import TYPE_CHECKING, Any, TypeAlias

from sweeper.results.markup import JOINER, TAG
from sweeper.secret import hide_secrets

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

Answer: TypeAlias = "tuple[str, list[tuple[str, str]], Iterable[bytes]]"
"""Status, headers and body."""

_MAX_BYTES = 64 << 20
"""Of a request: a note or an artifact is smaller, and Python would make room for what a header promises."""

_OWN_HOST = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:[0-9]{1,5})?", re.IGNORECASE)
"""Our names, at any port, because a tunnel (``ssh -L 9000:localhost:8080``) has another one. A page that lets
its own name lead to 127.0.0.1 (DNS rebinding) cannot have one of them."""

_SAFE = ("GET", "HEAD", "OPTIONS")
"""Methods that change nothing, in optuna-dashboard as in RFC 9110."""

_FORMS = ("application/x-www-form-urlencoded", "multipart/form-data", "text/plain")
"""What a page may send anywhere without asking (HTML's ``enctype``)."""

_HEADERS = [
    # Besides optuna-dashboard's own policy: both hold.
    ("Content-Security-Policy", "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"),
    ("X-Frame-Options", "DENY"),
    ("X-Content-Type-Options", "nosniff"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Referrer-Policy", "same-origin"),
]
_NO_PAGE = ("Content-Security-Policy", "default-src 'none'; sandbox")
"""For what is no page of the dashboard, as data, files or artifacts: opened as one, it can do nothing."""

_NOT_OURS = (
    "The dashboard answers only to its own names: "
    "write localhost or 127.0.0.1 in the address, with the same port."
)
_NOT_FROM_OUR_PAGE = "A page of another origin may change nothing: do it in the dashboard's own page."
_FAILED = "The study could not be read or changed: the terminal says why."

_NO_TAG = re.compile(f"<{JOINER}(?=[/A-Za-z])".encode())
"""A tag that was shown as text, when it comes back."""


def guarded(app: WSGIApplication) -> WSGIApplication:
    """The app, under its own names, for requests of its own pages and of programs."""

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        status, headers, body = _answer(app, environ)
        is_page = any(name.lower() == "content-security-policy" for name, _ in headers)
        start_response(status, [*headers, *_HEADERS, *([] if is_page else [_NO_PAGE])])
        return body

    return answer


def _answer(app: WSGIApplication, environ: WSGIEnvironment) -> Answer:
    for name in ("HTTP_X_FORWARDED_HOST", "HTTP_X_FORWARDED_PROTO"):
        environ.pop(name, None)  # Bottle would redirect there
    if (refusal := _refusal(environ)) is not None:
        _read(environ, at_most=1 << 16)  # left unread, it could take the answer with it
        return say("403 Forbidden", refusal)
    if environ["REQUEST_METHOD"] not in _SAFE:
        if _length(environ) > _MAX_BYTES:
            return say("413 Content Too Large", f"No request may have more than {_MAX_BYTES:,} bytes.")
        sent = _NO_TAG.sub(b"<", _read(environ))
        environ |= {"wsgi.input": BytesIO(sent), "CONTENT_LENGTH": str(len(sent))}
    try:
        return _with_names_as_text(call(app, environ))
    except Exception as error:
        print(hide_secrets(f"dashboard: {[*str(error).splitlines(), repr(error)][0]}"), file=sys.stderr)
        return say("500 Internal Server Error", _FAILED)


def _refusal(environ: WSGIEnvironment) -> str | None:
    """Why the app must not see a request."""
    host = environ.get("HTTP_HOST", "")
    # A path that is none is a whole URL, whose host would count.
    if not _OWN_HOST.fullmatch(host) or not environ["PATH_INFO"].startswith("/"):
        return _NOT_OURS
    if environ["REQUEST_METHOD"] not in _SAFE and not _is_from_our_page(environ, f"http://{host.lower()}"):
        return _NOT_FROM_OUR_PAGE
    return None


def _is_from_our_page(environ: WSGIEnvironment, origin: str) -> bool:
    """Whether no foreign page can have made the request.

    Every browser says where a change comes from: today's by all three headers, older ones by one. What says
    nothing is a program of the person's, as curl, which could write to the storage itself.
    """
    site, sender = environ.get("HTTP_SEC_FETCH_SITE"), environ.get("HTTP_ORIGIN")
    referrer, content_type = environ.get("HTTP_REFERER"), environ.get("CONTENT_TYPE", "")
    is_empty = environ.get("CONTENT_LENGTH", "") in ("", "0")  # then wsgiref makes up a type
    return (
        site in (None, "same-origin")
        and sender in (None, origin)
        and (referrer is None or f"{referrer}/".startswith(f"{origin}/"))
        and (is_empty or content_type.partition(";")[0].strip().lower() not in _FORMS)
    )


def _length(environ: WSGIEnvironment) -> int:
    """Bytes of the body, or at least that it is far too long: Python reads no number of any length."""
    length = environ.get("CONTENT_LENGTH") or "0"
    return int(length[:20]) if length.isdecimal() else 0


def _read(environ: WSGIEnvironment, at_most: int | None = None) -> bytes:
    n = _length(environ)
    body: bytes = environ["wsgi.input"].read(n if at_most is None else min(n, at_most))
    return body


def say(status: str, text: str) -> Answer:
    """An answer of one line."""
    return status, [("Content-Type", "text/plain; charset=utf-8")], [f"{text}\n".encode()]


def call(app: WSGIApplication, environ: WSGIEnvironment) -> Answer:
    """What the app answers."""
    started: list[tuple[str, list[tuple[str, str]]]] = []

    def start(status: str, headers: list[tuple[str, str]], error: Any = None) -> Any:
        started.append((status, headers))

    body = app(environ, start)
    return *started[-1], body


def _with_names_as_text(answer: Answer) -> Answer:
    """What the pages show of a study."""
    status, headers, body = answer
    if ("content-type", "application/json") not in [(name.lower(), value) for name, value in headers]:
        return answer
    content = b"".join(body)
    if TAG.search(content.decode()):
        content = json.dumps(_as_text(json.loads(content))).encode()
        others = [(name, value) for name, value in headers if name.lower() != "content-length"]
        headers = [*others, ("Content-Length", str(len(content)))]
    return status, headers, [content]


def _as_text(value: Any) -> Any:
    if isinstance(value, str):
        return TAG.sub(f"<{JOINER}", value)
    if isinstance(value, list):
        return [_as_text(item) for item in value]
    if isinstance(value, dict):  # a note is shown without its tags being obeyed, and no plot has it
        return {_as_text(key): item if key == "note" else _as_text(item) for key, item in value.items()}
    return value
