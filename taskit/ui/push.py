"""Sharing from the page: sign-in, preview of the card, and push with the visitor's token, which is never stored.

On a Space the token is that of the sign-in.  Elsewhere there is no sign-in, and the visitor types one.
"""

import base64
import re
import tempfile
from pathlib import Path

import gradio as gr
from gradio.utils import get_space

from taskit.errors import HubError
from taskit.sharing.publishing import PICTURE, gather_files
from taskit.sharing.pushing import push, require_name
from taskit.terminal import show_bytes
from taskit.training.runs import Run
from taskit.ui.markup import panel, table, text
from taskit.ui.visitors import account

FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)


def sign_in() -> None:
    """The button of Hugging Face; only a Space can offer it."""
    if get_space() is not None:
        gr.LoginButton("Sign in with Hugging Face", size="sm", elem_classes="sign-in")


def token_of(request: gr.Request, typed: str | None, what: str = "Pushing") -> str:
    """The visitor's token; ``what`` needs it.

    Raises:
        HubError: he has not signed in, or no longer is, and typed none.
    """
    signed_in = account(request)
    token = signed_in["access_token"] if signed_in else (typed or "").strip()
    if token:
        return token
    how = "sign in with Hugging Face" if get_space() is not None else "paste a token with write access"
    raise HubError(f"{what} needs your own account; {how}, then try again: nothing was lost.")


def push_run(run: Run, repo: str, private: bool, token: str) -> str:
    """Push, and answer with a link (HTML)."""
    pushed = push(run.path, repo.strip(), private=private, token=token)
    who = "only you see it" if pushed.private else "everyone sees it"
    link = f'<a href="{text(pushed.url)}" target="_blank" rel="noreferrer">{text(pushed.repo)}</a>'
    return f'<div class="notice good" role="status">{link} is on the Hub; {who}.</div>'


def preview(run: Run, repo: str, token: str) -> tuple[str, str]:
    """What a push would publish, without sending it: the files (HTML) and the card without metadata (Markdown)."""
    repo = repo.strip()
    require_name(repo)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        gather_files(run.path, repo, token, folder)
        sizes = ((text(path.name), show_bytes(path.stat().st_size)) for path in sorted(folder.iterdir()))
        files = panel("What would be published", "Nothing was sent yet.", table(("file", "size"), list(sizes)))
        card = FRONT_MATTER.sub("", (folder / "README.md").read_text(encoding="utf-8"))
        picture = base64.b64encode((folder / PICTURE).read_bytes()).decode()
    return files, card.replace(f"]({PICTURE})", f"](data:image/png;base64,{picture})")
