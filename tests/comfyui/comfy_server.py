"""A headless ComfyUI of our own, and a client that queues workflows on it."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.comfyui.comfy_python import ONE_THREAD

ROOT = Path(__file__).parents[2]
TINY = ROOT / "demo" / "tiny_wan.safetensors"
START_SECONDS = 300
RUN_SECONDS = 100
PROGRESS_TEXT = 3  # BinaryEventTypes.TEXT in ComfyUI's protocol.py


class RejectedError(Exception):
    """ComfyUI refused a workflow before running it; the message holds its reasons."""


@dataclass(frozen=True)
class Run:
    """One finished queue run."""

    status: str
    error: str
    outputs: dict[str, dict[str, Any]]
    executed: frozenset[str]

    def text(self, node: str) -> str:
        """Return what a node showed."""
        return "".join(self.outputs[node]["text"])

    def view(self, node: str) -> dict[str, Any]:
        """Return the view that a node sent to the page."""
        (sent,) = self.outputs[node]["nvfp4_view"]
        return json.loads(sent)


@dataclass
class ComfyServer:
    """A running ComfyUI with its own base directory."""

    python: Path
    comfyui: Path
    base: Path
    port: int = 0
    log: Path = Path()
    options: tuple[str, ...] = ()
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def start(self) -> None:
        """Start it and wait until it answers; RuntimeError with its log if it does not."""
        self.port = _free_port()
        self.log = self.base / f"server-{self.port}.log"
        command = [
            str(self.python), "main.py", "--cpu", "--listen", "127.0.0.1",
            "--port", str(self.port), "--base-directory", str(self.base),
            "--database-url", "sqlite:///:memory:", "--disable-auto-launch", *self.options,
        ]  # fmt: skip
        # another build of its page than the one that is installed
        if page := os.environ.get("COMFYUI_FRONTEND"):
            command += ["--front-end-root", page]
        environment = {
            **os.environ,
            **ONE_THREAD,
            "NVFP4_FOUNDRY_ROOT": str(ROOT),
            "PYTHONIOENCODING": "utf-8",
        }
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                command, cwd=self.comfyui, stdout=log, stderr=log, env=environment
            )
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                self.get("/system_stats")
                return
            except OSError:
                time.sleep(0.2)
        self.stop()
        raise RuntimeError(f"ComfyUI did not start:\n{self.log_text()[-4000:]}")

    @property
    def pid(self) -> int:
        """The id of the running process."""
        assert self._process is not None
        return self._process.pid

    def stop(self) -> None:
        """Stop it."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def log_text(self) -> str:
        """Return what it printed so far."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def get(self, path: str) -> Any:
        """GET JSON."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=30) as reply:
            return json.load(reply)

    def post(self, path: str, data: Any) -> bytes:
        """POST JSON."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}",
            json.dumps(data).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as reply:
            return reply.read()

    def queue(self, workflow: dict[str, Any]) -> str:
        """Queue a workflow in API form and return its id.

        ComfyUI runs the outputs that are valid and only mentions the others; here any node that
        is refused raises `RejectedError` with the reasons.
        """
        try:
            reply = json.loads(self.post("/prompt", {"prompt": workflow, "client_id": "test"}))
        except urllib.error.HTTPError as error:
            raise RejectedError(error.read().decode()) from None
        if reply["node_errors"]:
            self.post("/queue", {"clear": True})
            self.post("/interrupt", {})
            self.wait_idle()
            raise RejectedError(json.dumps(reply["node_errors"]))
        return reply["prompt_id"]

    def wait_idle(self) -> None:
        """Wait until nothing is queued or running."""
        deadline = time.monotonic() + RUN_SECONDS
        while time.monotonic() < deadline:
            queue = self.get("/queue")
            if not queue["queue_running"] and not queue["queue_pending"]:
                return
            time.sleep(0.1)
        raise TimeoutError("the queue did not empty")

    def wait(self, prompt_id: str) -> Run:
        """Wait for a queued workflow to end."""
        deadline = time.monotonic() + RUN_SECONDS
        while time.monotonic() < deadline:
            history = self.get(f"/history/{prompt_id}")
            if prompt_id in history:
                return _finished(history[prompt_id])
            time.sleep(0.1)
        raise TimeoutError(f"the workflow did not end:\n{self.log_text()[-3000:]}")

    def run(self, workflow: dict[str, Any]) -> Run:
        """Run a workflow to its end."""
        return self.wait(self.queue(workflow))

    def interrupt_when(
        self, workflow: dict[str, Any], moment: Callable[[dict[str, Any]], bool]
    ) -> Run:
        """Run a workflow, pressing Cancel at the first websocket message ``moment`` accepts."""
        return self.watch(workflow, moment)[0]

    def watch(
        self, workflow: dict[str, Any], cancel_at: Callable[[dict[str, Any]], bool] | None = None
    ) -> tuple[Run, list[dict[str, Any]]]:
        """Run a workflow and return the websocket's messages too; Cancel at the one accepted.

        Lines of progress text become messages of type ``progress_text`` with ``node`` and ``text``.
        """
        import websocket

        seen: list[dict[str, Any]] = []
        socket_ = websocket.create_connection(
            f"ws://127.0.0.1:{self.port}/ws?clientId=test", timeout=RUN_SECONDS
        )
        try:
            prompt_id = self.queue(workflow)
            while True:
                message = _decoded(socket_.recv())
                seen.append(message)
                kind = message.get("type", "")
                if kind in ("execution_error", "execution_success", "execution_interrupted"):
                    return self.wait(prompt_id), seen
                if cancel_at is not None and cancel_at(message):
                    self.post("/interrupt", {})
                    cancel_at = None
        finally:
            socket_.close()


def _decoded(received: str | bytes) -> dict[str, Any]:
    """Return a message of the websocket as JSON; an empty one for previews."""
    if isinstance(received, str):
        return json.loads(received)
    if int.from_bytes(received[:4], "big") != PROGRESS_TEXT:
        return {}
    end = 8 + int.from_bytes(received[4:8], "big")
    data = {"node": received[8:end].decode(), "text": received[end:].decode()}
    return {"type": "progress_text", "data": data}


def make_base(folder: Path) -> Path:
    """Lay out a base directory with our pack, the test's text encoder and the tiny model."""
    for name in ("models/diffusion_models", "output", "input", "user/default", "custom_nodes"):
        (folder / name).mkdir(parents=True)
    # a name that is neither ours nor a Python identifier, as a downloaded archive may have
    link_folder(ROOT, folder / "custom_nodes" / "nvfp4-foundry-main.v1")
    shutil.copytree(Path(__file__).parent / "digits_pack", folder / "custom_nodes" / "digits_pack")
    shutil.copy(TINY, folder / "models" / "diffusion_models")
    return folder


def link_folder(source: Path, target: Path) -> None:
    """Link a folder; a junction on Windows, where symbolic links need a privilege."""
    if sys.platform == "win32":
        subprocess.run(["cmd", "/c", "mklink", "/J", str(target), str(source)], check=True)
    else:
        target.symlink_to(source, target_is_directory=True)


def _finished(entry: dict[str, Any]) -> Run:
    messages = dict(entry["status"]["messages"])
    error = messages.get("execution_error", {}).get("exception_message", "")
    status = "interrupted" if "execution_interrupted" in messages else entry["status"]["status_str"]
    cached = set(messages.get("execution_cached", {}).get("nodes", []))
    executed = set(entry["prompt"][2]) - cached
    return Run(status, error, entry["outputs"], frozenset(executed))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
