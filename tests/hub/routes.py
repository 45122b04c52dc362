"""What the hub answers: one function for each endpoint."""

import base64
import hashlib
import json
import time
from urllib.parse import urlencode

from tests.hub.cards import card_errors
from tests.hub.protocol import (
    ID,
    Answer,
    RefusedError,
    Request,
    World,
    endpoint,
    ranged,
    readable,
    require_writer,
    tree_at,
    writable,
)
from tests.hub.state import File, as_json, small_file
from tests.hub.xet import xet_hash

PAGE = 100
LARGE = (".safetensors", ".bin", ".png", ".pt", ".zip")


@endpoint("GET", "/api/whoami-v2")
def whoami(_: World, request: Request) -> Answer:
    if request.account is None:
        raise RefusedError(401, "Invalid username or password.")
    name = request.account.name
    return Answer(body=as_json({"type": "user", "name": name, "fullname": name, "avatarUrl": "", "orgs": []}))


@endpoint("POST", "/api/validate-yaml")
def validate_yaml(_: World, request: Request) -> Answer:
    errors = [{"message": message} for message in card_errors(json.loads(request.body)["content"])]
    return Answer(400 if errors else 200, as_json({"errors": errors, "warnings": []}))


@endpoint("POST", "/api/repos/create")
def create_repo(world: World, request: Request) -> Answer:
    wanted = json.loads(request.body)
    owner = wanted["organization"] or (request.account.name if request.account else "")
    require_writer(request, owner)
    id = f"{owner}/{wanted['name']}"
    kind = wanted.get("type", "model")
    url = {"url": f"{world.endpoint}/{'' if kind == 'model' else f'{kind}s/'}{id}", "name": id}
    if (kind, id) in world.state.repos:
        return Answer(409, as_json(url | {"error": f"You already created this {kind} repo"}))
    world.state.add_repo(id, kind=kind, private=wanted.get("visibility") == "private")
    return Answer(body=as_json(url))


@endpoint("DELETE", "/api/repos/delete")
def delete_repo(world: World, request: Request) -> Answer:
    wanted = json.loads(request.body)
    kind, id = wanted.get("type", "model"), f"{wanted['organization']}/{wanted['name']}"
    writable(world, request, id, kind)
    del world.state.repos[kind, id]
    return Answer()


@endpoint("GET", "/api/models")
def list_models(world: World, request: Request) -> Answer:
    query, name = request.query, request.account.name if request.account else None
    wanted, authors = set(query.get("filter", [])), query.get("author")
    found = []
    for (kind, id), repo in sorted(world.state.repos.items()):
        owner = id.split("/")[0]
        seen = kind == "model" and (not repo.private or owner == name) and (not authors or owner in authors)
        if seen and wanted <= set(repo.tags()) and all(words in id for words in query.get("search", [])):
            found.append(repo)
    start, size = int(query.get("cursor", ["0"])[0]), min(PAGE, int(query.get("limit", [str(PAGE)])[0]))
    rows = [repo.info("main") for repo in found[start : start + size]]
    more = {}
    if start + size < len(found):
        following = urlencode(query | {"cursor": [str(start + size)]}, doseq=True)
        more = {"Link": f'<{world.endpoint}/api/models?{following}>; rel="next"'}
    return Answer(body=as_json(rows), headers=more)


@endpoint("GET", rf"/api/(?P<kind>model|dataset)s/{ID}(?:/revision/(?P<revision>[^/]+))?")
def repo_info(world: World, request: Request, kind: str, id: str, revision: str = "main") -> Answer:
    repo = readable(world, request, id, kind)
    revision = revision if revision != "None" else "main"
    tree_at(repo, revision)
    return Answer(body=as_json(repo.info(revision, sizes="blobs" in request.query)))


@endpoint("GET", r"/api/collections/(?P<slug>[^/]+/[^/]+)")
def collection(world: World, _: Request, slug: str) -> Answer:
    if slug not in world.state.collections:
        raise RefusedError(404, "Collection not found")
    items = [
        {"_id": f"{n:024x}", "id": id, "repoType": "model", "type": "model", "position": n}
        for n, id in enumerate(world.state.collections[slug])
    ]
    owner = {"name": slug.split("/")[0], "fullname": "", "avatarUrl": "", "type": "user"}
    facts = {"slug": slug, "title": slug, "owner": owner, "items": items, "private": False, "theme": "blue"}
    facts |= {"lastUpdated": "2026-01-01T00:00:00.000Z", "position": 0, "upvotes": 0, "gating": False}
    return Answer(body=as_json(facts))


@endpoint("GET", rf"/api/(?P<kind>model|dataset)s/{ID}/tree/(?P<revision>[^/]+)")
def tree(world: World, request: Request, kind: str, id: str, revision: str) -> Answer:
    rows = []
    for path, file in sorted(tree_at(readable(world, request, id, kind), revision).items()):
        row: dict = {"type": "file", "oid": file.oid[:40], "size": file.size, "path": path}
        if file.large:
            row["lfs"] = {"oid": file.sha256, "size": file.size, "pointerSize": 130}
        if file.xet_hash:
            row["xetHash"] = file.xet_hash
        rows.append(row)
    return Answer(body=as_json(rows))


@endpoint("POST", rf"/api/(?P<kind>model|dataset)s/{ID}/preupload/(?P<revision>[^/]+)")
def preupload(world: World, request: Request, kind: str, id: str, revision: str) -> Answer:
    repo = writable(world, request, id, kind)
    present, rows = tree_at(repo, revision), []
    for file in json.loads(request.body)["files"]:
        mode = "lfs" if file["path"].endswith(LARGE) else "regular"
        row = {"path": file["path"], "uploadMode": mode, "shouldIgnore": False}
        if file["path"] in present:
            row["oid"] = present[file["path"]].oid
        rows.append(row)
    return Answer(body=as_json({"files": rows}))


@endpoint("POST", rf"/(?:(?P<kind>dataset)s/)?{ID}\.git/info/lfs/objects/batch")
def lfs_batch(world: World, request: Request, id: str, kind: str = "model") -> Answer:
    writable(world, request, id, kind)
    objects = []
    for wanted in json.loads(request.body)["objects"]:
        row = {"oid": wanted["oid"], "size": wanted["size"]}
        if wanted["oid"] not in world.state.blobs:
            upload = {"href": f"{world.cdn}/upload/{wanted['oid']}", "header": {}}
            verify = {"href": f"{world.endpoint}{request.path.removesuffix('objects/batch')}verify"}
            row["actions"] = {"upload": upload, "verify": verify}
        objects.append(row)
    return Answer(body=as_json({"transfer": "basic", "objects": objects}))


@endpoint("POST", rf"/(?:(?P<kind>dataset)s/)?{ID}\.git/info/lfs/verify")
def lfs_verify(world: World, request: Request, id: str, kind: str = "model") -> Answer:
    writable(world, request, id, kind)
    wanted = json.loads(request.body)
    stored = world.state.blobs.get(wanted["oid"])
    return Answer(200 if stored is not None and len(stored) == wanted["size"] else 404)


@endpoint("PUT", r"/upload/(?P<oid>[0-9a-f]{64})")
def cdn_upload(world: World, request: Request, oid: str) -> Answer:
    if "authorization" in request.headers or hashlib.sha256(request.body).hexdigest() != oid:
        return Answer(403)
    world.state.blobs[oid] = request.body
    return Answer()


@endpoint("GET", r"/blob/(?P<oid>[0-9a-f]{64})")
def cdn_blob(world: World, request: Request, oid: str) -> Answer:
    if "authorization" in request.headers:
        return Answer(403)
    return ranged(request, world.state.blobs[oid], {})


@endpoint("GET", rf"/api/models/{ID}/xet-(?P<right>read|write)-token/[^/]+")
def xet_token(world: World, request: Request, id: str, right: str) -> Answer:
    (writable if right == "write" else readable)(world, request, id)
    expires, cas = int(time.time()) + 3600, f"local://{world.store}"
    headers = {"X-Xet-Cas-Url": cas, "X-Xet-Access-Token": "xet", "X-Xet-Token-Expiration": str(expires)}
    return Answer(body=as_json({"accessToken": "xet", "exp": expires, "casUrl": cas}), headers=headers)


@endpoint("POST", rf"/api/(?P<kind>model|dataset)s/{ID}/commit/(?P<revision>[^/]+)")
def commit(world: World, request: Request, kind: str, id: str, revision: str) -> Answer:
    repo = writable(world, request, id, kind)
    files, title = dict(tree_at(repo, revision)), ""
    for line in filter(None, request.body.split(b"\n")):
        item = json.loads(line)
        key, value = item["key"], item["value"]
        if key == "header" and value.get("parentCommit") not in (None, repo.head):
            raise RefusedError(
                412, "The branch was updated since you opened this page. Please refresh and try again."
            )
        if key == "header":
            title = value["summary"]
        elif key == "file":
            files[value["path"]] = small_file(base64.b64decode(value["content"]))
        elif key == "lfsFile":
            files[value["path"]] = _large(world, value["oid"], value["size"])
        elif key == "deletedFile":
            files.pop(value["path"], None)
    sha = repo.commit(files, title)
    return Answer(
        body=as_json({"commitUrl": f"{world.endpoint}/{id}/commit/{sha}", "commitOid": sha, "success": True})
    )


@endpoint("GET", rf"/api/models/{ID}/commits/main")
def commits(world: World, request: Request, id: str) -> Answer:
    repo, date = readable(world, request, id), "2026-01-01T00:00:00.000Z"
    rows = [
        {"id": sha, "title": repo.titles[sha], "message": "", "authors": [], "date": date}
        for sha, _ in reversed(repo.commits)
    ]
    return Answer(body=as_json(rows))


def _large(world: World, oid: str, size: int) -> File:
    data = world.state.blobs.get(oid)
    found = None if data is not None else xet_hash(world.store, oid)
    if data is None and found is None:
        raise RefusedError(400, f"The LFS file {oid} was never uploaded")
    return File(data, size, oid, large=True, xet_hash=found)


@endpoint("GET", rf"/(?:(?P<kind>dataset)s/)?{ID}/resolve/(?P<revision>[^/]+)/(?P<path>.+)")
def resolve(world: World, request: Request, id: str, revision: str, path: str, kind: str = "model") -> Answer:
    repo = readable(world, request, id, kind)
    files = tree_at(repo, revision)
    if repo.gated and (request.account is None or request.account.name != id.split("/")[0]):
        raise RefusedError(403 if request.account else 401, "Access to this model is restricted", "GatedRepo")
    sha = repo.head if revision == "main" else revision
    if path not in files:
        raise RefusedError(404, "Entry not found", "EntryNotFound", X_Repo_Commit=sha)
    file, headers = files[path], {"X-Repo-Commit": sha}
    if not file.large:
        return ranged(request, file.data or b"", headers | {"ETag": f'"{file.oid}"'})
    headers |= {"X-Linked-Etag": f'"{file.sha256}"', "X-Linked-Size": str(file.size)}
    headers["Location"] = f"{world.cdn}/blob/{file.sha256}"
    if file.xet_hash:
        headers["X-Xet-Hash"] = file.xet_hash
        headers["Link"] = f'<{world.endpoint}/api/models/{id}/xet-read-token/{sha}>; rel="xet-auth"'
    return Answer(302, headers=headers)
