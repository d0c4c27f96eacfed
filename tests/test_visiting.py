"""What counts as trouble in a server's log."""

from pathlib import Path

import pytest
from visiting import tracebacks

import latentlab

LEFT = """Exception in ASGI application
Traceback (most recent call last):
  File "/env/streamlit/web/server/starlette/starlette_websocket.py", line 516, in _websocket_endpoint
    data = await websocket.receive_bytes()
starlette.websockets.WebSocketDisconnected: WebSocket is not connected. Need to call "accept" first.

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "/env/starlette/middleware/errors.py", line 151, in __call__
    await self.app(scope, receive, send)
  File "/env/streamlit/web/server/starlette/starlette_websocket.py", line 524, in _websocket_endpoint
    await websocket.close()
starlette.websockets.WebSocketDisconnected: Cannot call "send" once a close message has been sent.
"""
OURS = f'  File "{Path(latentlab.__file__).parent / "app" / "main.py"}", line 1, in <module>\n    run()\n'


def test_a_page_that_left_is_no_trouble():
    assert tracebacks("serving\n" + LEFT) == []


@pytest.mark.parametrize(
    "log",
    [
        LEFT.replace("    await websocket.close()\n", "    await websocket.close()\n" + OURS),
        LEFT.replace("starlette.websockets.WebSocketDisconnected: Cannot", "ValueError: Cannot"),
        LEFT.replace("starlette_websocket.py", "starlette_routes.py"),
        LEFT + "Traceback (most recent call last):\n" + OURS + "ZeroDivisionError: division by zero\n",
    ],
    ids=["our code in it", "another error", "elsewhere", "a further one"],
)
def test_anything_else_is(log):
    assert tracebacks(log)
