"""The ComfyUI these tests run against; without one they are skipped, with the reason once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.comfyui import comfy_workflows as wf
from tests.comfyui.comfy_python import ComfyUI, comfyui_path, comfyui_python, why_not
from tests.comfyui.comfy_server import ComfyServer, Run, make_base


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without ComfyUI say so in one loud line instead of once per test."""
    reason = why_not()
    ours = [item for item in items if Path(__file__).parent in item.path.parents]
    if reason is None or not ours:
        return
    text = f"NOT TESTED AGAINST COMFYUI ({len(ours)} tests): {reason}"
    ours[0].add_marker(pytest.mark.skip(reason=text))
    config.hook.pytest_deselected(items=ours[1:])
    items[:] = [item for item in items if item not in ours[1:]]


@pytest.fixture(scope="session")
def comfyui() -> ComfyUI:
    """The ComfyUI to test against."""
    path = comfyui_path()
    assert path is not None
    return ComfyUI(path, comfyui_python(path))


@pytest.fixture(scope="session")
def server(comfyui: ComfyUI, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyServer]:
    """A running headless ComfyUI with the pack, the test's text encoder and the tiny model."""
    base = make_base(tmp_path_factory.mktemp("comfyui") / "base")
    running = ComfyServer(comfyui.python, comfyui.path, base)
    running.start()
    yield running
    running.stop()


@pytest.fixture(scope="session")
def first_run(server: ComfyServer) -> Run:
    """The shipped calibrate workflow, run once, with the latents it sampled saved."""
    workflow = wf.calibrate(seed=1)
    observed = [wf.node(workflow, "NVFP4FoundryCalibrationResult"), 1]
    wf.save_latent(workflow, observed, "observed")
    run = server.run(workflow)
    assert run.status == "success", run.error
    return run
