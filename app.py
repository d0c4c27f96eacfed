"""The explorer as an ASGI app: ``streamlit run app.py`` and ``latentlab explore`` serve the same one."""

from latentlab.app.server import build_app

app = build_app()
