"""The routes of the pack on ComfyUI's server, and what it does with every prompt."""

from __future__ import annotations

from aiohttp import web
from server import PromptServer

from ..prompts.migrations import MIGRATIONS, migrate
from ..prompts.validation import remember_prompt
from .store import read_report


def add_routes() -> None:
    """Add the routes and the handler of prompts. ComfyUI calls this once, before it serves."""
    server = PromptServer.instance
    server.routes.get("/nvfp4_foundry/reports/{id}")(_report)
    server.routes.get("/nvfp4_foundry/migrations")(_migrations)
    server.add_on_prompt_handler(migrate)
    server.add_on_prompt_handler(remember_prompt)


async def _report(request: web.Request) -> web.Response:
    text = read_report(request.match_info["id"])
    if text is None:
        return web.json_response({"error": "this report is no longer kept"}, status=404)
    return web.Response(text=text, content_type="application/json")


async def _migrations(_: web.Request) -> web.Response:
    return web.json_response({old: new.to_json() for old, new in MIGRATIONS.items()})
