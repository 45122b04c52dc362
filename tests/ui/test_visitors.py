"""The cookie: signed, kept, and worth nothing when somebody else wrote it."""

import asyncio
import stat
from types import SimpleNamespace

from taskit.ui.visitors import COOKIE, VisitorCookie, account, read_secret, visitor_of


def visit(cookie=None, secret="s", scheme="http", headers=()):
    """(visitor, value of Set-Cookie) of one request."""
    seen, sent = {}, []

    async def app(scope, _, send):
        seen["visitor"] = scope["visitor"]
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message):
        sent.append(message)

    lines = [(b"cookie", f"{COOKIE}={cookie}".encode())] if cookie else []
    scope = {"type": "http", "scheme": scheme, "headers": [*lines, *headers]}
    asyncio.run(VisitorCookie(app, secret)(scope, None, send))
    set_cookie = dict(sent[0]["headers"]).get(b"set-cookie", b"").decode()
    return seen["visitor"], set_cookie


def value_of(set_cookie):
    return set_cookie.split(";")[0].split("=", 1)[1]


def test_a_newcomer_gets_a_cookie_and_is_known_by_it():
    visitor, cookie = visit()
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    again, nothing = visit(value_of(cookie))
    assert (again, nothing) == (visitor, "")


def test_two_newcomers_differ():
    assert visit()[0] != visit()[0]


def test_a_forged_cookie_counts_as_none():
    visitor, cookie = visit()
    forged = value_of(cookie).replace(visitor, "0" * 32)
    for value in (forged, visitor, "nonsense", value_of(visit(secret="other")[1])):
        assert visit(value)[0] not in (visitor, "0" * 32)


def test_behind_https_the_cookie_may_live_in_a_frame():
    assert "SameSite=None; Partitioned" in visit(headers=[(b"x-forwarded-proto", b"https")])[1]


def test_the_secret_is_made_once_and_for_the_owner_only(tmp_path):
    secret = read_secret(tmp_path)
    assert read_secret(tmp_path) == secret
    assert stat.S_IMODE((tmp_path / ".cookie-key").stat().st_mode) == 0o600


def request(**scope):
    return SimpleNamespace(request=SimpleNamespace(scope={"visitor": "cookie", **scope}))


def session(name, expires_at=2**40):
    return {"oauth_info": {"userinfo": {"preferred_username": name}, "expires_at": expires_at}}


def test_an_account_goes_before_the_cookie_until_it_expires():
    assert visitor_of(request(session=session("ada"))) == "hf-ada"
    assert visitor_of(request(session=session("ada", expires_at=1))) == "cookie"
    assert account(request()) is None


def test_a_name_that_is_no_folder_is_not_used():
    assert visitor_of(request(session=session("../../etc"))) == "cookie"
