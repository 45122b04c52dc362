"""A small OpenID provider in place of huggingface.co: it signs in whoever comes, as one account."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlparse

from joserfc import jwt
from joserfc.jwk import RSAKey

CLIENT = "taskit-space"


class Provider:
    """The provider while it runs; ``scopes`` are what the app asked for, ``token`` is what it hands out."""

    def __init__(self, name, token):
        self.name, self.token, self.scopes, self.nonce = name, token, [], None
        self.key = RSAKey.generate_key(2048, {"kid": "one"})
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                provider.get(self)

            def do_POST(self):
                self.rfile.read(int(self.headers["content-length"]))
                provider.answer(self, provider.tokens())

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def env(self):
        """What a Space with ``hf_oauth: true`` finds in its environment."""
        return {
            "SYSTEM": "spaces",
            "SPACE_ID": f"{self.name}/taskit",
            "OAUTH_CLIENT_ID": CLIENT,
            "OAUTH_CLIENT_SECRET": "secret",
            "OAUTH_SCOPES": "openid profile contribute-repos jobs",
            "OPENID_PROVIDER_URL": self.url,
        }

    def get(self, handler):
        path, query = urlparse(handler.path).path, parse_qs(urlparse(handler.path).query)
        if path == "/authorize":
            self.scopes, self.nonce = query["scope"][0].split(), query.get("nonce", [None])[0]
            back = query["redirect_uri"][0]
            handler.send_response(302)
            handler.send_header("location", f"{back}{'&' if '?' in back else '?'}code=1&state={query['state'][0]}")
            handler.end_headers()
        elif path == "/keys":
            self.answer(handler, {"keys": [self.key.as_dict(private=False)]})
        else:
            self.answer(handler, self.configuration())

    def configuration(self):
        return {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "jwks_uri": f"{self.url}/keys",
            "id_token_signing_alg_values_supported": ["RS256"],
        }

    def tokens(self):
        now = int(time.time())
        person = {"name": self.name, "preferred_username": self.name, "profile": "", "picture": ""}
        claims = {
            "iss": self.url,
            "aud": CLIENT,
            "sub": "1",
            "iat": now,
            "exp": now + 600,
            "nonce": self.nonce,
            **person,
        }
        signed = jwt.encode({"alg": "RS256", "kid": "one"}, claims, self.key)
        return {"access_token": self.token, "token_type": "bearer", "expires_in": 28800, "id_token": signed}

    def answer(self, handler, value):
        body = json.dumps(value).encode()
        handler.send_response(200)
        handler.send_header("content-type", "application/json")
        handler.send_header("content-length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    def close(self):
        self.server.shutdown()
        self.server.server_close()
