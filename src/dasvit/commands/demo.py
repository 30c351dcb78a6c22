"""`dasvit demo`: a trained model in the browser."""

from __future__ import annotations

from dasvit.commands.options import DemoOptions
from dasvit.errors import UserError
from dasvit.inference.demo import open_app, serve


def demo_command(options: DemoOptions) -> None:
    if not 0 <= options.port < 2**16:
        raise UserError(f"--port must lie between 0 (any that is free) and 65535, not {options.port}.")
    app = open_app(options.model, options.device)
    print(f"{serve(app, options.host, options.port)} (Ctrl-C ends it)", flush=True)
    app.block_thread()
