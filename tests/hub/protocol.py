"""How an endpoint is found, what it is given, and who may read and write what."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

from tests.hub.state import Account, File, Repo, State, as_json

ID = r"(?P<id>[^/]+/[^/]+)"


@dataclass
class Answer:
    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


class RefusedError(Exception):
    """An answer with an error code, as the Hub words it."""

    def __init__(self, status: int, message: str, code: str = "", **headers: str) -> None:
        more = {name.replace("_", "-"): value for name, value in headers.items()}
        more |= {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
        self.answer = Answer(status, as_json({"error": message}), more)


@dataclass
class Request:
    """One request; ``account`` is None without a token."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes
    account: Account | None


@dataclass
class World:
    """The state and where things are: what every endpoint works on."""

    state: State
    endpoint: str
    cdn: str
    store: Path  # the folder behind the Xet paths


Endpoint = Callable[..., Answer]
ENDPOINTS: list[tuple[str, re.Pattern, Endpoint]] = []


def endpoint(method: str, path: str) -> Callable[[Endpoint], Endpoint]:
    def add(function: Endpoint) -> Endpoint:
        ENDPOINTS.append((method, re.compile(path), function))
        return function

    return add


def answer(world: World, request: Request) -> Answer:
    """The hub's answer; the path is matched raw, so that a quoted revision stays one part."""
    for method, path, function in ENDPOINTS:
        match = path.fullmatch(request.path)
        if match and (method == request.method or (method == "GET" and request.method == "HEAD")):
            try:
                parts = {name: unquote(part) for name, part in match.groupdict().items() if part is not None}
                return function(world, request, **parts)
            except RefusedError as refusal:
                return refusal.answer
    return Answer(404, as_json({"error": f"no endpoint {request.method} {request.path}"}))


def readable(world: World, request: Request, id: str, kind: str = "model") -> Repo:
    repo = world.state.repos.get((kind, id))
    name = request.account.name if request.account else None
    if repo is None or (repo.private and id.split("/")[0] != name):
        raise RefusedError(404 if name else 401, "Repository not found", "RepoNotFound")
    return repo


def writable(world: World, request: Request, id: str, kind: str = "model") -> Repo:
    repo = readable(world, request, id, kind)
    require_writer(request, id.split("/")[0])
    return repo


def require_writer(request: Request, owner: str) -> None:
    if request.account is None:
        raise RefusedError(401, "Please log in")
    if not request.account.write or request.account.name != owner:
        raise RefusedError(403, f"You don't have the rights to create a model under the namespace {owner}")


def tree_at(repo: Repo, revision: str) -> dict[str, File]:
    tree = repo.tree(revision)
    if tree is None:
        raise RefusedError(404, "Invalid rev id", "RevisionNotFound")
    return tree


def ranged(request: Request, data: bytes, headers: dict[str, str]) -> Answer:
    match = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("range", ""))
    if match is None:
        return Answer(200, data, headers)
    start, stop = int(match[1]), int(match[2] or len(data) - 1) + 1
    if start >= len(data):
        return Answer(416, headers=headers | {"Content-Range": f"bytes */{len(data)}"})
    part = data[start:stop]
    span = f"bytes {start}-{start + len(part) - 1}/{len(data)}"
    return Answer(206, part, headers | {"Content-Range": span})
