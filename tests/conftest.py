"""What every test may rely on: one thread, no hidden seed, and skips that say why."""

import os
from pathlib import Path

import pytest

# Two OpenMP threads and one busy neighbour make a decode ten times slower; set before torch is imported.
# No seed is set here: whatever is random takes its seed as an argument, and a test that needs luck is wrong.
os.environ.setdefault("OMP_NUM_THREADS", "1")

REPOSITORY = Path(__file__).resolve().parents[1]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what this machine cannot run, with the reason, so that no missing tool passes unseen."""
    reasons = {"gpu": _missing_gpu, "browser": _missing_browser}
    for marker, missing in reasons.items():
        marked = [item for item in items if item.get_closest_marker(marker)]
        reason = missing() if marked else None
        if reason:
            for item in marked:
                item.add_marker(pytest.mark.skip(reason=reason))


def _missing_gpu() -> str | None:
    import torch

    return None if torch.cuda.is_available() else "no CUDA device on this machine"


def _missing_browser() -> str | None:
    from latentlab.doctor import find_chromium

    return None if find_chromium() else "no Chromium found (apt-get install chromium)"


@pytest.fixture(scope="session")
def chromium_path() -> str:
    """Path of the Chromium that browser tests hand to Playwright as `executable_path`."""
    from latentlab.doctor import find_chromium

    path = find_chromium()
    if path is None:
        pytest.skip(_missing_browser() or "no Chromium found")
    return path


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the real data sets that lie beside the checkout on the development machines."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the real data sets (../shared/data) are not beside this checkout")
    return folder
