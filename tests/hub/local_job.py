"""A Job that really runs: its command and environment in a process of this machine."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

NUMBERS = count()


@dataclass
class LocalJob:
    """One Job; ``spec`` is the body of the request that made it, ``machine`` what every Job here finds set."""

    spec: dict
    owner: str
    machine: dict[str, str]
    stage: str = "SCHEDULING"
    message: str | None = None
    lines: list[tuple[str, str]] = field(default_factory=list)  # (timestamp, text)
    id: str = field(default_factory=lambda: f"{next(NUMBERS):024x}")
    process: subprocess.Popen | None = None

    def start(self) -> None:
        """Run the command in an empty folder, as long as the timeout allows."""
        folder = tempfile.TemporaryDirectory(prefix="job-")
        home = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": folder.name, "TMPDIR": folder.name}
        self._say("===== Job started =====")
        self.stage = "RUNNING"
        self.process = subprocess.Popen(
            [*self.spec["command"], *self.spec["arguments"]],
            cwd=folder.name,
            env={**home, **self.machine, **self.spec["environment"], **self.spec.get("secrets", {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        limit = threading.Timer(self.spec["timeoutSeconds"], self.end, ("ERROR", "Job timeout"))
        limit.daemon = True
        limit.start()
        threading.Thread(target=self._follow, args=(folder, limit), daemon=True).start()

    def end(self, stage: str, message: str | None = None) -> None:
        """Kill all its processes at once, as the harshest service would."""
        if self.stage == "RUNNING":
            self.stage, self.message = stage, message
        if self.process:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def _follow(self, folder: tempfile.TemporaryDirectory, limit: threading.Timer) -> None:
        assert self.process
        assert self.process.stdout
        with self.process.stdout as lines:
            for line in lines:
                self._say(line.rstrip("\n"))
        status = self.process.wait()
        limit.cancel()
        if self.stage == "RUNNING":
            self.message = f"Job failed with exit code: {status}" if status else None
            self.stage = "ERROR" if status else "COMPLETED"
        folder.cleanup()

    def _say(self, text: str) -> None:
        self.lines.append((datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"), text))

    def info(self) -> dict:
        """What the service tells about it; of the secrets only their names."""
        owner = {"id": "1", "name": self.owner, "type": "user"}
        told = {name: self.spec[name] for name in ("command", "arguments", "environment", "flavor", "dockerImage")}
        told |= {"id": self.id, "createdAt": "2026-01-01T00:00:00.000Z", "owner": owner}
        told |= {"secrets": dict.fromkeys(self.spec.get("secrets", {})), "labels": self.spec.get("labels", {})}
        return told | {"status": {"stage": self.stage, "message": self.message}}
