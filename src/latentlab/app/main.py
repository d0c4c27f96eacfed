"""The explorer's router: what Streamlit, ``latentlab explore`` and the page tests run."""

from __future__ import annotations

import logging

import streamlit as st

from latentlab.app import controls, engine, links, sharing, state, theme
from latentlab.app.components import paper

logger = logging.getLogger("latentlab.app")

theme.apply()
gallery = st.Page("views/gallery.py", title="Gallery", url_path="gallery", default=True)
traverse = st.Page("views/traverse.py", title="Traverse", url_path="traverse")
compare = st.Page("views/compare.py", title="Compare", url_path="compare")
train = st.Page("views/train.py", title="Train", url_path="train")
page = st.navigation(
    [
        gallery,
        traverse,
        st.Page("views/layers.py", title="Layers", url_path="layers"),
        st.Page("views/map.py", title="Map", url_path="map"),
        st.Page("views/scores.py", title="Scores", url_path="scores"),
        compare,
        train,
    ]
)
if engine.serving():
    state.warm_up()
links.follow_link()
sharing.follow()
sharing.leave(page.url_path)
with st.sidebar:
    # The gallery has no picker: its cards choose the run; a training is a run to be.
    picks = page not in (gallery, train)
    controls.sidebar(picker=picks, live=page in (traverse, compare))
    if picks:
        sharing.button(page.url_path)
    paper.watch("turned")
sharing.refusal()
try:
    page.run()
except Exception:
    if not engine.serving():  # a test must see it
        raise
    logger.exception("A page failed")
    st.error("Something went wrong on this page; the details are in the terminal that runs latentlab.")
