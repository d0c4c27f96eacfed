"""`latentlab doctor`: what this machine has, what is missing, and what each missing piece is for."""

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys

_PACKAGES = (
    "latentlab",
    "torch",
    "torchvision",
    "pytorch-lightning",
    "streamlit",
    "numpy",
    "scikit-learn",
    "umap-learn",
    "numba",
    "altair",
    "jsonargparse",
    "safetensors",
    "pillow",
)

# extra -> (modules it brings, what it is for)
_EXTRAS = {
    "video": (("av",), "saving traversals as MP4"),
    "onnx": (("onnx", "onnxscript", "onnxruntime"), "writing models as ONNX"),
    "notebook": (("ipykernel", "nbclient", "nbformat"), "running the notebooks"),
    "widget": (("anywidget",), "the sliders as a notebook widget"),
    "h5": (("h5py",), "reading the original 3D Shapes file (.h5)"),
    "tensorboard": (("tensorboard",), "TensorBoard logs beside the CSV log"),
    "surrogates": (("interpret",), "additive surrogate models (explainable boosting)"),
}

_CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find_chromium() -> str | None:
    """Find the Chromium that the browser tests drive.

    Returns:
        Path of the executable (`$LATENTLAB_CHROMIUM` if set, else the first on the search path), or None.
    """
    chosen = os.environ.get("LATENTLAB_CHROMIUM")
    if chosen:
        return shutil.which(chosen)
    return next((path for path in map(shutil.which, _CHROMIUM_NAMES) if path), None)


def missing_extras() -> dict[str, str]:
    """List the optional extras that are not installed, as {extra: what it is for}."""
    return {
        extra: purpose
        for extra, (modules, purpose) in _EXTRAS.items()
        if any(importlib.util.find_spec(module) is None for module in modules)
    }


def cpu_supports_bf16() -> bool:
    """Tell whether this CPU multiplies bfloat16 in hardware, so that autocast gains time."""
    import torch

    from latentlab.models.precision import supports_bf16

    return supports_bf16(torch.device("cpu"))


def report() -> str:
    """Describe this installation: versions, device, threads, bf16, memory, extras, Chromium, advice.

    Returns:
        Text of several sections, one fact a line, ready to print or to paste into a bug report.
    """
    advice: list[str] = []
    machine = _machine_lines(advice)
    missing, chromium = missing_extras(), find_chromium()
    if missing:
        advice.append(f"To add what is missing: pip install 'latentlab[{','.join(missing)}]'.")
    if chromium is None:
        advice.append(
            "For the browser tests: apt-get install chromium, or set LATENTLAB_CHROMIUM to its path."
        )
    sections = {
        "Versions": _version_lines(),
        "Machine": machine,
        "Extras": [
            _row(extra, f"{'missing' if extra in missing else 'installed'}, for {purpose}")
            for extra, (_, purpose) in _EXTRAS.items()
        ],
        "Browser tests": [_row("chromium", chromium or "not found, so browser tests are skipped")],
        "Advice": [f"  {line}" for line in advice] or ["  Nothing to do."],
    }
    return "\n\n".join("\n".join([title, *lines]) for title, lines in sections.items())


def _row(label: str, value: str) -> str:
    return f"  {label:<18} {value}"


def _version_lines() -> list[str]:
    lines = [
        _row("python", f"{platform.python_version()} ({sys.executable})"),
        _row("system", platform.platform()),
    ]
    for package in _PACKAGES:
        try:
            lines.append(_row(package, importlib.metadata.version(package)))
        except importlib.metadata.PackageNotFoundError:
            lines.append(_row(package, f"missing (pip install {package})"))
    return lines


def _machine_lines(advice: list[str]) -> list[str]:
    """Describe processors and memory; add what the user could do about them to `advice`."""
    try:
        import torch
    except (ImportError, OSError) as error:  # the doctor must still speak when torch is what is broken
        advice.append("Install torch again: pip install --force-reinstall torch.")
        return [_row("torch", f"does not import: {error}"), *_host_memory_lines()]

    lines = []
    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info(0)
        lines.append(
            _row("device", f"cuda, {torch.cuda.get_device_name(0)}, {torch.cuda.device_count()} found")
        )
        lines.append(_row("GPU memory", f"{total / 2**30:.1f} GiB, {free / 2**30:.1f} GiB free"))
        lines.append(_row("bf16 on the GPU", "yes" if torch.cuda.is_bf16_supported() else "no"))
    else:
        build = (
            f"this torch is for CUDA {torch.version.cuda}" if torch.version.cuda else "this torch is for CPUs"
        )
        lines.append(_row("device", f"cpu, no CUDA device found; {build}"))
        if shutil.which("nvidia-smi"):
            advice.append(
                "There is an NVIDIA driver, yet torch sees no GPU: compare `nvidia-smi` with torch's CUDA."
            )
    lines.append(
        _row("bf16 on the CPU", "yes" if cpu_supports_bf16() else "no, so training there uses float32")
    )

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    setting = os.environ.get("OMP_NUM_THREADS", "not set")
    lines.append(_row("threads", f"{torch.get_num_threads()} on {cores} cores (OMP_NUM_THREADS {setting})"))
    if torch.get_num_threads() > cores:
        advice.append(f"torch runs more threads than there are cores: set OMP_NUM_THREADS={cores}.")
    return [*lines, *_host_memory_lines()]


def _host_memory_lines() -> list[str]:
    lines = []
    if hasattr(os, "sysconf") and "SC_AVPHYS_PAGES" in os.sysconf_names:
        page = os.sysconf("SC_PAGE_SIZE")
        total, free = os.sysconf("SC_PHYS_PAGES") * page, os.sysconf("SC_AVPHYS_PAGES") * page
        lines.append(_row("memory", f"{total / 2**30:.1f} GiB, {free / 2**30:.1f} GiB unused"))
    lines.append(_row("disk here", f"{shutil.disk_usage('.').free / 2**30:.1f} GiB free"))
    return lines
