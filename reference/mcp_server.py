"""The dashboard's manager over the Model Context Protocol, on standard input and output.

Clients start it so:

    python mcp_server.py --snapshots snapshots
"""

import argparse
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError

from dashboard import requests
from dashboard.manager import ModelManager


def build_server(manager: ModelManager | None = None) -> MCPServer:
    """An MCP server whose tools are the operations of a manager, by default of a new one."""
    manager = manager or ModelManager()
    server = MCPServer("BitTransformerLM")

    @server.tool()
    @explains
    def status() -> dict[str, Any]:
        """Say what model there is, and how far its training has come."""
        return manager.status()

    @server.tool()
    @explains
    def init(text: str, config: dict[str, Any] | None = None, plan: dict[str, Any] | None = None) -> dict[str, Any]:
        """Make a model, to be trained on a text.

        config holds parameters of BitTransformerLM; plan may hold batch_size, epochs, extra_steps, lr
        and weight_decay.
        """
        return requests.init(manager, text, config, plan)

    @server.tool()
    @explains
    def train() -> dict[str, Any]:
        """Carry the training plan out."""
        return requests.train(manager)

    @server.tool()
    @explains
    def train_step(text: str) -> dict[str, Any]:
        """Make one update on a text."""
        return requests.train_step(manager, text)

    @server.tool()
    @explains
    def scale_up(dimension: str, plan: dict[str, Any] | None = None) -> dict[str, Any]:
        """Double the model's "width", "layers" or "length", keeping what it computes."""
        return requests.scale_up(manager, dimension, plan)

    @server.tool()
    @explains
    def infer(text: str) -> dict[str, Any]:
        """Predict the bit that follows a text."""
        return requests.infer(manager, text)

    @server.tool()
    @explains
    def save(name: str) -> dict[str, Any]:
        """Write a snapshot of the model."""
        return requests.save(manager, name)

    @server.tool()
    @explains
    def download(name: str, text: str | None = None, plan: dict[str, Any] | None = None) -> dict[str, Any]:
        """Go on from a snapshot, with a text to train on if there is one."""
        return requests.download(manager, name, text, plan)

    return server


def explains(tool: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """Let the client read why a request was refused; of other errors it learns only that there was one."""

    @wraps(tool)
    def explained(*args: Any, **kwargs: Any) -> dict[str, Any]:
        try:
            return tool(*args, **kwargs)
        except requests.REFUSALS as error:
            raise ToolError(str(error)) from error

    return explained


def main(argv: Sequence[str] | None = None) -> None:
    """Serve until the client hangs up."""
    parser = argparse.ArgumentParser(prog="mcp_server", description="Serve a model over MCP.")
    parser.add_argument("--snapshots", type=Path, default=Path("snapshots"), help="folder of snapshots")
    build_server(ModelManager(parser.parse_args(argv).snapshots)).run()


if __name__ == "__main__":
    main()
