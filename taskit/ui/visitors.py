"""The identity of a visitor: a signed cookie, or the Hugging Face name after a sign-in.

It names the visitor's folder of runs; a cookie with a wrong signature counts as none.
"""

import re
import secrets
import time
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any

import gradio as gr
from itsdangerous import BadSignature, Signer

COOKIE = "taskit_visitor"
YEAR = 365 * 24 * 3600
_NAME = re.compile(r"[\w.-]{1,96}")


def read_secret(root: Path) -> str:
    """The key that signs the cookies, made at the first start and kept beside the runs: both live equally long."""
    path = root / ".cookie-key"
    root.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("x", encoding="ascii") as file:
            path.chmod(0o600)
            file.write(secrets.token_hex(32))
    except FileExistsError:
        pass
    return path.read_text(encoding="ascii")


class VisitorCookie:
    """ASGI middleware: notes the visitor in ``scope["visitor"]`` and gives a newcomer his cookie."""

    def __init__(self, app: Any, secret: str) -> None:
        self.app, self.signer = app, Signer(secret, salt=COOKIE)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        headers = dict(scope["headers"])
        known = self._known(headers.get(b"cookie", b"").decode("latin-1"))
        scope["visitor"] = known or secrets.token_hex(16)

        async def send_with_cookie(message: Any) -> None:
            if known is None and message["type"] == "http.response.start":
                secure = scope["scheme"] == "https" or headers.get(b"x-forwarded-proto", b"").startswith(b"https")
                message = {**message, "headers": [*message["headers"], self._cookie(scope["visitor"], secure)]}
            await send(message)

        return await self.app(scope, receive, send_with_cookie)

    def _known(self, header: str) -> str | None:
        try:
            morsel = SimpleCookie(header).get(COOKIE)
            return self.signer.unsign(morsel.value).decode() if morsel else None
        except (BadSignature, UnicodeDecodeError):
            return None

    def _cookie(self, visitor: str, secure: bool) -> tuple[bytes, bytes]:
        # a Space is shown inside a frame of huggingface.co, where only such a cookie is kept
        rules = "Secure; SameSite=None; Partitioned" if secure else "SameSite=Lax"
        value = self.signer.sign(visitor).decode()
        return b"set-cookie", f"{COOKIE}={value}; Path=/; Max-Age={YEAR}; HttpOnly; {rules}".encode()


def account(request: gr.Request) -> dict[str, Any] | None:
    """The signed-in account, with ``access_token`` and ``userinfo``; None for a guest or after it has expired."""
    info = _scope(request).get("session", {}).get("oauth_info")
    return info if info and info.get("expires_at", 0) > time.time() else None


def visitor_of(request: gr.Request) -> str:
    """The name of the visitor's folder."""
    signed_in = account(request)
    name = str(signed_in["userinfo"]["preferred_username"]) if signed_in else ""
    if _NAME.fullmatch(name):
        return f"hf-{name}"
    return _scope(request)["visitor"]


def _scope(request: gr.Request) -> dict[str, Any]:
    inner: Any = request.request  # Starlette's, whose scope the middleware wrote into
    return inner.scope
