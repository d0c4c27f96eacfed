"""The panel beside the map for a selection: a gallery, what sets it apart, and a name to keep it by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import streamlit as st

from latentlab.app import attempts, controls, state
from latentlab.app.mapping import groups as kept
from latentlab.app.mapping.colours import named
from latentlab.app.mapping.spots import pull_link
from latentlab.app.mapping.statistics import factor_shares, latent_shifts
from latentlab.app.mapping.view import remember

if TYPE_CHECKING:
    from PIL import Image

    from latentlab.app.mapping.view import MapView

SHOWN = 48
COLUMNS = 8
_GAP = 2
_COUNT, _PLACE = "groups-kept", "groups"


def show_selection(view: MapView, rows: np.ndarray, title: str) -> None:
    """A gallery of selected points, what sets them apart, and what can be made of them.

    Args:
        view: the map.
        rows: of the selected points.
        title: what selected them.
    """
    if not len(rows):
        st.info("No point lies inside. Draw around some points.")
        return
    st.markdown(f"**{title}: {len(rows):,} of {view.n:,} images** ({100 * len(rows) / view.n:.2g} %)")
    some = rows
    if len(rows) > SHOWN:
        some = np.sort(np.random.default_rng(0).choice(rows, SHOWN, replace=False))
    picture = contact_sheet(view.data.images(view.store.order[some]).cpu().numpy())
    by_chance = f"{SHOWN} of them, drawn by chance" if len(rows) > SHOWN else None
    controls.show(picture, f"{len(some)} of {len(rows)} selected images", by_chance)
    apart(view, rows)
    mean = state.nearest(view.at, view.store.mean[rows].mean(axis=0, dtype=np.float64)[None])[0]
    with st.container(horizontal=True, vertical_alignment="bottom"):
        pull_link(view, mean)
    save_form(view, rows)


def contact_sheet(images: np.ndarray) -> Image.Image:
    """Images (k, channels, height, width) in rows of eight, transparent between."""
    from PIL import Image

    count, channels, height, width = images.shape
    columns = min(COLUMNS, count)
    lines = -(-count // columns)
    size = (lines * (height + _GAP) - _GAP, columns * (width + _GAP) - _GAP)
    sheet = np.zeros((*size, 4), np.uint8)
    pixels = (
        np.moveaxis(images[:, :3] if channels >= 3 else images[:, :1], 1, -1).clip(0, 1) * 255 + 0.5
    ).astype(np.uint8)
    for i, image in enumerate(pixels):
        top, left = i // columns * (height + _GAP), i % columns * (width + _GAP)
        sheet[top : top + height, left : left + width, :3] = image
        sheet[top : top + height, left : left + width, 3] = 255
    picture = Image.fromarray(sheet)
    scale = max(1, 480 // picture.width)
    return picture.resize((picture.width * scale, picture.height * scale), 0)


def apart(view: MapView, rows: np.ndarray) -> None:
    """What sets a selection apart: factors, latents, KL and error."""
    store, n = view.store, view.n
    shares = factor_shares(store.factors(n), rows, view.data.labels, view.data.categories)
    table = [
        (share.factor, share.value, f"{100 * share.inside:.0f} %", f"{100 * share.overall:.0f} %")
        for share in shares[:5]
    ]
    if table:
        _table(("factor", "mostly", "here", "in all"), table)
    shifts = latent_shifts(store.mean[:n], rows, view.at.model.latent_space.names)
    moved = [shift for shift in shifts[:3] if abs(shift.by) >= 0.1]
    figures = {shift.latent: f"{shift.by:+.1f} sd".replace("-", "−") for shift in moved}
    figures["KL"] = f"{float(store.kl[rows].mean()):.1f} nats (all {float(store.kl[:n].mean()):.1f})"
    errors = store.errors[rows]
    if np.isfinite(errors).any():
        figures["Error"] = f"{float(np.nanmean(errors)):.4f} (all {float(np.nanmean(store.errors[:n])):.4f})"
    controls.figures(figures)
    st.caption(
        "The value of each factor that is most over-represented here, the factor that differs most first; latents "
        "whose mean lies furthest from that of all points, in standard deviations (sd)."
    )


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    import html

    cells = "".join(f"<th>{html.escape(head)}</th>" for head in heads)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows
    )
    st.html(
        "<style>.ll-apart{border-collapse:collapse;font-size:.86rem;width:100%;font-variant-numeric:tabular-nums}"
        ".ll-apart th{text-align:left;font-weight:400;opacity:.62;padding:0 .6rem .1rem 0}"
        ".ll-apart td{padding:.08rem .6rem .08rem 0}</style>"
        f'<table class="ll-apart"><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table>'
    )


def save_form(view: MapView, rows: np.ndarray) -> None:
    """Keeps the selection as a named group."""
    count = int(st.session_state.get(_COUNT, 0))
    with st.form("group-form", border=False):
        with st.container(horizontal=True, vertical_alignment="bottom"):
            name = st.text_input(
                "Name of the group",
                placeholder="such as: thin sevens",
                max_chars=kept.LONGEST_NAME,
                key=f"group-name-{count}",  # another widget, so empty, once a group was kept
            )
            given = st.form_submit_button("Keep as a group")
    if given:
        group = kept.ImageGroup(name, view.store.order[rows])
        kept.keep_group(kept.groups_file(state.workspace(), state.data_key(view.run)), group)
        st.session_state[_COUNT] = count + 1
        st.rerun()


def show_groups(view: MapView) -> None:
    """The groups that were kept: shown, forgotten, or two of them made a direction."""
    groups = named(view.run)
    attempts.say_what_went_wrong(_PLACE)
    if not groups:
        return
    path = kept.groups_file(state.workspace(), state.data_key(view.run))
    with st.expander(f"Groups ({len(groups)})", expanded=False):
        for i, group in enumerate(groups):
            with st.container(horizontal=True, vertical_alignment="center"):
                st.text(f"{group.name} · {len(group.images):,}", width="stretch")
                st.button(
                    "Show",
                    key=f"group-show-{i}",
                    on_click=remember,
                    args=(view.identity,),
                    kwargs={"group": group.name},
                )
                st.button(
                    "Forget",
                    key=f"group-drop-{i}",
                    on_click=attempts.attempt,
                    args=(_PLACE, kept.forget_group, path, group.name),
                )
        if len(groups) > 1:
            direction_form(view, groups)


def direction_form(view: MapView, groups: Sequence[kept.ImageGroup]) -> None:
    """The way from one group's mean code to another's, kept as a direction for the other pages."""
    names = [group.name for group in groups]
    with st.container(horizontal=True, vertical_alignment="bottom"):
        a = st.selectbox("Direction from", names, index=0, key="group-a")
        b = st.selectbox("to", names, index=1, key="group-b")
        made = st.button("Keep the direction", disabled=a == b)
    if not made:
        return
    from latentlab.analysis import group_direction

    by_name = {group.name: group for group in groups}
    codes = [kept.codes_of(view.run.model, view.data, by_name[name]) for name in (a, b)]
    found = group_direction(view.run.model, *codes, name=f"{a} to {b}"[: kept.LONGEST_NAME])
    state.save_direction(view.run, found.direction(0))
    numbers = found.certificate
    st.success(
        f"Kept as “{controls.plainly(found.names[0])}”: the means lie {numbers['distance']:.2f} apart "
        f"(groups mixed at random: {numbers['shuffled_distance'][0]:.2f}, p = {numbers['p_value']:.3f})."
    )
