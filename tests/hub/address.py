"""The local hub's address, reserved when tests start: huggingface_hub reads HF_ENDPOINT once, at its import."""

import socket

LISTENER = socket.socket()
LISTENER.bind(("127.0.0.1", 0))  # bound, not yet listening: until a hub is started, connections are refused
ENDPOINT = f"http://127.0.0.1:{LISTENER.getsockname()[1]}"
