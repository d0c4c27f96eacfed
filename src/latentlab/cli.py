"""The ``latentlab`` command: each verb imports what it needs when it is called."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from latentlab.config import ModelConfig, ObjectiveConfig

_RUN_HELP = 'a run: its folder, or "zoo:NAME" for one that ships with latentlab'


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line; returns the exit status: 0, 2 for what the user can mend, 130 after Ctrl-C.

    It is 1 where a recipe gave another file than it did before.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        if arguments[:1] == ["train"]:  # its options are the configuration's own, read by jsonargparse
            return train(arguments[1:])
        parsed = _parser().parse_args(arguments)
        return parsed.verb(parsed)
    except (ValueError, TypeError, OSError, FloatingPointError) as error:
        if os.environ.get("LATENTLAB_DEBUG"):
            raise
        if isinstance(error, BrokenPipeError):
            sys.stderr.close()
            return 0
        print(f"latentlab: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("latentlab: interrupted", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    from latentlab import __version__

    parser = argparse.ArgumentParser(
        prog="latentlab", description="Train, measure, open and explore deep generative models."
    )
    parser.add_argument("--version", action="version", version=f"latentlab {__version__}")
    verbs = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def verb(name: str, function: Callable | None, text: str) -> argparse.ArgumentParser:
        sub = verbs.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        sub.set_defaults(verb=function)
        return sub

    verb("train", None, "train a named experiment or a YAML file (see: latentlab train --help)")

    sub = verb("explore", explore, "open the explorer in a browser")
    sub.add_argument("--runs", default="runs", metavar="DIR", help="folder of your runs (default: ./runs)")
    sub.add_argument("--port", type=int, default=8501, help="port to serve on (default: 8501)")
    sub.add_argument("--browser", action="store_true", help="open a browser window too")
    sub.add_argument("--base-path", default="", metavar="PATH", help="path behind a reverse proxy: tools/lab")
    sub.add_argument(
        "--adapt",
        metavar="SOURCE",
        help="a model of your own too: FILE.py:FUNCTION that builds it, or FILE.onnx",
    )
    sub.add_argument(
        "--weights", metavar="FILE", help="checkpoint that FUNCTION is called with: safetensors, or tensors"
    )
    sub.add_argument("--data", metavar="NAME", help='its images: a data set\'s name, or "folder:PATH"')
    sub.add_argument(
        "--outputs", choices=("unit", "logits", "signed"), help="range of an ONNX decoder's images"
    )

    sub = verb("traverse", traverse, "draw what each latent does, as a PNG, GIF or MP4")
    sub.add_argument("run", help=_RUN_HELP)
    sub.add_argument("--dims", help="latents by name or number, comma-separated (default: all, by KL)")
    sub.add_argument("--grid", metavar="X,Y", help="a 2-D grid of two latents instead of strips")
    sub.add_argument("--swap", metavar="BLOCK", help="a swap grid: this block a column, the others a row")
    sub.add_argument("--steps", type=int, default=9, help="images a strip (default: 9)")
    sub.add_argument("--span", default="posterior", help='"posterior", "prior", or a number of sigmas')
    sub.add_argument(
        "--space", help='space whose coordinates move, such as "w" of a style GAN (default: the first)'
    )
    sub.add_argument("--image", type=int, help="start from this image of the run's data set, encoded")
    sub.add_argument("--seed", type=int, default=0, help="seed of the starting code (default: 0)")
    sub.add_argument("--at", type=int, metavar="STEP", help="use the weights kept at this training step")
    sub.add_argument("--out", type=Path, required=True, help="file to write: .png, .gif or .mp4")

    sub = verb("project", project, "draw a map of the encoded data set")
    sub.add_argument("run", help=_RUN_HELP)
    sub.add_argument("--method", choices=("pca", "umap", "tsne"), default="pca")
    sub.add_argument("--count", type=int, default=5000, help="how many images to encode (default: 5000)")
    sub.add_argument("--colour", metavar="FACTOR", help="factor that colours the points (default: the first)")
    sub.add_argument("--seed", type=int, default=0)
    sub.add_argument("--out", type=Path, required=True, help="PNG to write")
    sub.add_argument("--codes", type=Path, help="also save the result as FILE.npz and FILE.json")

    sub = verb(
        "export", export, "write files of a run: pictures, movies, codes, ONNX, a page without a server"
    )
    sub.add_argument("run", help=_RUN_HELP)
    for ending, text in (
        ("png", "an image, several of them (--count), strips (--dims) or a plane (--grid)"),
        ("gif", "a movie of the latents of --dims"),
        ("mp4", "the same as a video"),
        ("npz", "codes: prior draws, or those of images (--codes data)"),
        ("onnx", "the generator for other programs; where there is an encoder, it goes to FILE-encoder.onnx"),
    ):
        sub.add_argument(f"--{ending}", type=Path, metavar="FILE", help=text)
    sub.add_argument(
        "--dims", metavar="A,B", help='latents by name, number or the factor they know most of; or "all"'
    )
    sub.add_argument("--grid", metavar="X,Y", help="two latents for a plane")
    sub.add_argument("--steps", type=int, help="images along each range (default: 9, of a movie 24)")
    sub.add_argument("--span", default="posterior", help='"posterior", "prior", or a number of sigmas')
    sub.add_argument("--space", help='space of the codes, such as "w" of a style GAN (default: the first)')
    sub.add_argument("--seed", type=int, default=0, help="seed of the codes (default: 0)")
    sub.add_argument("--count", type=int, help="how many images or codes (default: 1 image, 1000 codes)")
    sub.add_argument("--image", type=int, help="start from this image of the run's data set, encoded")
    sub.add_argument("--z", type=Path, metavar="FILE", help="start from this code, a JSON list of numbers")
    sub.add_argument(
        "--edits", type=Path, metavar="FILE", help="edits of hidden units, JSON from the Layers page"
    )
    sub.add_argument("--codes", choices=("prior", "data"), help="which codes go to --npz (default: prior)")
    sub.add_argument("--scale", type=int, help="pixels of a picture for each pixel of an image")
    sub.add_argument("--fps", type=float, default=12, help="frames a second of a movie (default: 12)")
    sub.add_argument("--no-caption", action="store_true", help="no caption below strips and planes")
    sub.add_argument("--html", type=Path, metavar="FILE", help="the self-contained page")
    sub.add_argument(
        "--directions", type=Path, metavar="FILE", help="directions saved as JSON, a slider each on the page"
    )
    sub.add_argument(
        "--precision",
        choices=("f32", "f16", "int8"),
        default="f16",
        help="of the page's weights (default: f16)",
    )
    sub.add_argument("--at", type=int, metavar="STEP", help="use the weights kept at this training step")
    sub.add_argument("--runs", default="runs", metavar="DIR", help="workspace that keeps scores")
    sub.add_argument("--quiet", action="store_true", help="no progress bar")

    sub = verb("render", render, "make an exported file again from its recipe, bit for bit")
    sub.add_argument("recipe", type=Path, help="FILE.recipe.json, as export writes it")
    sub.add_argument(
        "--out", type=Path, metavar="FILE", help="file to write (default: the recipe's, beside it)"
    )
    sub.add_argument("--run", metavar="DIR", help="where the run is now, if it has moved")

    sub = verb("evaluate", evaluate, "score runs against the ground-truth factors, or their images")
    sub.add_argument("run", nargs="+", help=_RUN_HELP + "; several are compared")
    sub.add_argument(
        "--protocol",
        help="dlib, chen2018, infogan-cr, continuous, or images (default: dlib where there are factors)",
    )
    sub.add_argument("--seeds", type=int, default=3, help="draws of points behind each interval (default: 3)")
    sub.add_argument("--states", type=int, help="encode only so many states (default: all)")
    sub.add_argument("--measures", metavar="A,B", help="only these measures of the protocol")
    sub.add_argument("--no-references", action="store_true", help="skip noise, rotation and perfect codes")
    sub.add_argument(
        "--precision", default="auto", help="of the encoder: fp32, bf16, or auto (bf16 where there is any)"
    )
    sub.add_argument("--at", type=int, metavar="STEP", help="use the weights kept at this training step")
    sub.add_argument("--json", type=Path, metavar="FILE", help="also write the report, or a list of them")
    sub.add_argument("--runs", default="runs", metavar="DIR", help="workspace that keeps encodings")
    sub.add_argument("--quiet", action="store_true", help="no progress bar")

    sub = verb(
        "suggest", suggest, "propose likelihood, scale, beta and capacity for a data set, with reasons"
    )
    sub.add_argument("data", help='a data set that "latentlab datasets" lists, or "folder:PATH"')
    sub.add_argument("--latents", type=int, default=10, help="latents of the model (default: 10)")
    sub.add_argument("--steps", type=int, default=100_000, help="steps of the training (default: 100,000)")
    sub.add_argument("--seed", type=int, default=0, help="of the images that are looked at (default: 0)")

    sub = verb("models", models, "list shipped runs, your runs, experiments and model families")
    sub.add_argument("--runs", default="runs", metavar="DIR", help="folder of your runs (default: ./runs)")

    verb("datasets", datasets, "list the data sets with size, factors and source")
    verb("doctor", doctor, "print versions, device and what is missing for which extra")
    return parser


# -- train ---------------------------------------------------------------------------------------


def train(arguments: list[str]) -> int:
    """``latentlab train``: configuration -> training -> model card."""
    import dataclasses

    from jsonargparse import ArgumentError

    from latentlab.config import Experiment, named_experiment
    from latentlab.config.command import read_command

    first, claim = Experiment(), ""
    _check_resume(arguments)
    if arguments and not arguments[0].startswith("-"):
        name, arguments = arguments[0], arguments[1:]
        if Path(name).suffix in (".yaml", ".yml", ".json"):
            if not Path(name).is_file():
                raise OSError(f"No file {name}.")
            arguments = ["--config", name, *arguments]
        else:
            first, claim = named_experiment(name)
    try:
        values, notes = read_command(arguments, first, _factor_sizes)
    except ArgumentError as error:
        raise ValueError(f"{error} (see: latentlab train --help)") from None
    if values.resume:
        return _resume(values)
    experiment = Experiment(**{f.name: values[f.name] for f in dataclasses.fields(Experiment)})
    if values.smoke:
        experiment = dataclasses.replace(
            experiment, max_steps=20, log_every=10, preview_every=10, checkpoint_every=10
        )
    for note in notes:
        print(note)
    from latentlab.card import preview
    from latentlab.runs import FolderTaken
    from latentlab.training.fit import fit

    while True:
        out = Path(values.out) if values.out else _free_folder(Path(values.runs), experiment.name)
        try:
            run = fit(experiment, out, device=values.device, preview=preview, progress=not values.quiet)
        except FolderTaken:  # by another training, since we looked
            if values.out:
                raise
        else:
            return _finish(run, claim)


_WITH_RESUME = ("--resume", "--device", "--quiet", "--help")


def _check_resume(arguments: list[str]) -> None:
    """Refuses what a continued run would not follow: its configuration is its own.

    Raises:
        ValueError: naming the value.
    """
    options = [a.partition("=")[0] for a in arguments if a.startswith("--")]
    others = [o for o in options if o not in _WITH_RESUME]
    if arguments and not arguments[0].startswith("-"):
        others.insert(0, arguments[0])
    if "--resume" in options and others:
        raise ValueError(
            f"--resume continues a run as its own config.json says, so it takes no {others[0]}; "
            f"beside it go {' and '.join(_WITH_RESUME[1:3])}. Leave out --resume to train a new run."
        )


def _resume(values) -> int:
    from latentlab.card import preview
    from latentlab.runs import Run
    from latentlab.training.fit import resume

    ended = bool(Run.open(values.resume).card)  # a run's card is written when its training is over
    run = resume(values.resume, device=values.device, preview=preview, progress=not values.quiet)
    if ended:
        print(f"{run.path} was trained to its end already ({run.experiment.max_steps:,} steps).")
        return 0
    return _finish(run, "")


def _finish(run, claim: str) -> int:
    if run.stopped_by:
        print(f"Stopped by {run.stopped_by}. Continue with: latentlab train --resume {run.path}")
        return 130 if run.stopped_by == "Ctrl-C" else 0
    from latentlab.card import headline, write_card
    from latentlab.config import experiment_names, named_experiment

    if not claim and run.experiment.name in experiment_names():
        claim = named_experiment(run.experiment.name)[1]
    write_card(run, claim)
    print(f"Trained {run.path}: {headline(run)}.")
    runs = run.path.resolve().parent  # of "." the parent would be "." itself
    print(f"Card: {run.path / 'README.md'}. Explore it with: latentlab explore --runs {runs}")
    return 0


def _factor_sizes(name: str, options: dict) -> dict[str, int]:
    """A data set's factors and their numbers of values; none where it has none or can't be opened, said later."""
    from latentlab.data import open_dataset

    try:
        space = open_dataset(name, **options).factor_space
    except (ValueError, TypeError, OSError):
        return {}
    return dict(zip(space.names, space.sizes, strict=True)) if space else {}


def _free_folder(runs: Path, name: str) -> Path:
    folder, number = runs / name, 1
    while folder.exists():
        number += 1
        folder = runs / f"{name}-{number}"
    return folder


# -- look ----------------------------------------------------------------------------------------


def explore(options: argparse.Namespace) -> int:
    """``latentlab explore``: the Streamlit explorer on a port of this machine."""
    from latentlab.app.server import serve

    brought = []
    if options.adapt:
        from latentlab.brought import bring

        parts = {"weights": options.weights, "data": options.data, "outputs": options.outputs}
        brought = [bring(options.adapt, **parts, runs=options.runs)]
    elif options.weights or options.data or options.outputs:
        raise ValueError(
            "--weights, --data and --outputs say more about the model of --adapt; give that too."
        )
    serve(
        port=options.port,
        runs_dir=options.runs,
        headless=not options.browser,
        base_path=options.base_path,
        brought=brought,
    )
    return 0


def _encode(run, count: int, seed: int = 0):
    from latentlab.analysis import encode_dataset

    return encode_dataset(run.model, run.dataset(), count, seed=seed)


def traverse(options: argparse.Namespace) -> int:
    """``latentlab traverse``: strips, a 2-D grid or a swap grid as a picture."""
    import torch

    from latentlab import analysis, viz
    from latentlab.models.contract import is_inference_model
    from latentlab.runs import Run

    if sum(bool(o) for o in (options.dims, options.grid, options.swap)) > 1:
        raise ValueError("Choose one of --dims, --grid and --swap.")
    run = Run.open(options.run)
    run = run if options.at is None else run.at(options.at)
    model = run.model
    z = None
    span = options.span if options.span in ("posterior", "prior") else _number("--span", options.span)
    first = options.space in (None, model.latent_space.name)
    if span == "posterior" and not (is_inference_model(model) and first):
        span = "prior"
    encoding = _encode(run, 2000) if span == "posterior" and not options.swap else None
    if options.image is not None:
        z = analysis.encode_images(model, run.dataset().images([options.image]))[0]
        if not first:
            code = torch.from_numpy(z)[None].to(next(model.parameters()).device)
            z = model.map(code, model.latent_space.name, options.space)[0].detach().cpu().numpy()
    keywords = {"span": span, "encoding": encoding, "seed": options.seed, "steps": options.steps}
    if not first:
        keywords["space"] = options.space
    if options.swap:
        if not first:
            raise ValueError(
                "--swap draws its own codes of the first space; --space goes with strips and --grid."
            )
        if options.image is not None:
            raise ValueError("--swap draws its own codes; --image goes with strips and --grid.")
        result = analysis.swap_grid(
            model, block=tuple(options.swap.split(",")), rows=options.steps, seed=options.seed
        )
    elif options.grid:
        pair = tuple(options.grid.split(","))
        if len(pair) != 2:
            raise ValueError(f"--grid takes two latents, such as z0,z3; got {options.grid!r}.")
        result = analysis.traverse_grid(model, z, pair, **keywords)
    else:
        dims = options.dims.split(",") if options.dims else None
        result = analysis.traverse(model, z, dims, **keywords)
    return _save(viz.show(result), options.out)


def project(options: argparse.Namespace) -> int:
    """``latentlab project``: a map of the encoded data as a PNG."""
    from latentlab import analysis, viz
    from latentlab.runs import Run

    run = Run.open(options.run)
    result = analysis.project(_encode(run, options.count, options.seed), options.method, seed=options.seed)
    colour = options.colour or (result.factor_names[0] if result.factor_names else None)
    if options.codes:
        result.save(options.codes)
    return _save(viz.show(result, colour=colour), options.out)


def evaluate(options: argparse.Namespace) -> int:
    """``latentlab evaluate``: the scores of each run, and the leaderboard of several."""
    from latentlab import evaluation
    from latentlab.files import atomic_write
    from latentlab.metrics.leaderboard import leaderboard
    from latentlab.runs import Run, Workspace

    if options.seeds < 1:
        raise ValueError(f"--seeds takes at least 1; got {options.seeds}.")
    runs = [Run.open(address) for address in options.run]
    runs = runs if options.at is None else [run.at(options.at) for run in runs]
    home = Workspace(options.runs)
    reports = []
    for run in runs:
        with _Bar(run.name, options.quiet) as bar:
            report = evaluation.evaluate(
                run,
                options.protocol,
                seeds=range(options.seeds),
                states=options.states,
                measures=options.measures.split(",") if options.measures else None,
                references=not options.no_references,
                precision=options.precision,
                workspace=home,
                progress=bar.show,
            )
        reports.append(report)
        print(f"{report.subject} on {report.dataset}, protocol {report.protocol}: {report.summary}.")
        print(f"{report.table()}\n")
        for line in report.remarks:
            print(line)
        if options.measures is None:
            print(f"Report: {evaluation.save_report(run, report, home)}\n")
    if len(reports) > 1:
        print(leaderboard(reports))
        if all(report.factor_names for report in reports):
            found = evaluation.agreement(runs)
            each = ", ".join(
                f"{run.name} {value:.3f}" for run, value in zip(runs, found.details["per_model"], strict=True)
            )
            print(f"\nUDR, agreement with the others' codes: {each}")
    if options.json:
        text = ",\n".join(report.to_json() for report in reports)
        options.json.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(options.json, "w") as file:
            file.write(text if len(reports) == 1 else f"[\n{text}\n]")
        print(f"JSON: {options.json}")
    return 0


def export(options: argparse.Namespace) -> int:
    """``latentlab export``: a run away from Python."""
    from latentlab.runs import Run

    media = {ending: getattr(options, ending) for ending in _MEDIA if getattr(options, ending) is not None}
    if options.html is None and not media:
        raise ValueError(f"Say what to write: {', '.join(f'--{e} FILE' for e in ('html', *_MEDIA))}.")
    run = Run.open(options.run, "cpu" if media else "auto")
    run = run if options.at is None else run.at(options.at)
    if options.html is not None:
        _export_page(run, options)
    if media:
        _export_media(run, media, options)
    return 0


_MEDIA = ("png", "gif", "mp4", "npz", "onnx")


def _export_media(run, media: dict[str, Path], options: argparse.Namespace) -> None:
    from latentlab import rendering

    recipes = _recipes(run, media, options)
    for recipe, path in recipes:  # all of them, before the first is made
        rendering.check_ending(recipe, path)
    for recipe, path in recipes:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            made = rendering.write(recipe, path, run)
        except ValueError as error:
            if recipe.network != "encoder":
                raise
            print(f"latentlab: {path.name} is left out: {error}", file=sys.stderr)
            continue
        print(
            f"{path}: {(made.output or {})['bytes']:,} bytes, {recipe.kind}; recipe: {rendering.recipe_path(path)}"
        )


def _recipes(run, media: dict[str, Path], options: argparse.Namespace) -> list:
    """What is to be made, and where, in the order of the files' kinds."""
    from latentlab import rendering
    from latentlab.models.contract import is_inference_model
    from latentlab.models.edits import edits_from_json

    if options.dims and options.grid:
        raise ValueError("Choose one of --dims and --grid.")
    if options.grid and not options.png:
        raise ValueError("--grid draws a plane, which goes to --png; a movie takes --dims.")
    edits = edits_from_json(options.edits.read_text(encoding="utf-8")) if options.edits else ()
    generator, encoder = (
        [e for e in edits if (e.network == "encoder") is theirs] for theirs in (False, True)
    )
    if encoder and options.image is None and not options.onnx:
        raise ValueError(
            f"The edit of {encoder[0].stage!r} has no effect here; edits of the encoder go with --image or --onnx."
        )
    code = {"space": options.space, "seed": options.seed}
    if options.image is not None or options.z:
        code |= _start(run, options, encoder)
    found = []
    moving = [e for e in ("png", "gif", "mp4") if e in media]
    if {"gif", "mp4"} & set(moving) or options.dims or options.grid:
        ranges = _span(run, options)
        names = options.grid or ("all" if options.dims is None else options.dims)
        dims = None if names == "all" else _latents(run, names.split(","), options)
        shared = {
            **code,
            **ranges,
            "dims": dims,
            "edits": generator,
            "steps": options.steps,
            "scale": options.scale,
        }
    for ending in moving:
        if ending == "png" and not (options.dims or options.grid):
            recipe = rendering.image_recipe(
                run,
                **code,
                count=1 if options.count is None else options.count,
                edits=generator,
                scale=options.scale,
            )
        elif ending == "png":
            kind = "grid" if options.grid else "traversal"
            recipe = rendering.traversal_recipe(run, kind=kind, caption=not options.no_caption, **shared)
        else:
            recipe = rendering.traversal_recipe(run, kind="movie", file=ending, fps=options.fps, **shared)
        found.append((recipe, media[ending]))
    if "npz" in media:
        given = code if options.codes is None else {"space": options.space, "seed": options.seed}
        count = 1000 if options.count is None else options.count
        recipe = rendering.codes_recipe(run, **given, source=options.codes or "prior", count=count)
        found.append((recipe, media["npz"]))
    if "onnx" in media:
        path = media["onnx"]
        found.append((rendering.onnx_recipe(run, edits=generator, space=options.space), path))
        if is_inference_model(run.model):
            recipe = rendering.onnx_recipe(run, "encoder", edits=encoder)
            found.append((recipe, path.with_name(f"{path.stem}-encoder{path.suffix}")))
    return found


def _start(run, options: argparse.Namespace, edits: list) -> dict:
    """The code that an export leaves from, and where it comes from in words."""
    import json

    from latentlab import analysis
    from latentlab.analysis.inference import carry, to_numpy

    if options.image is not None and options.z:
        raise ValueError("Choose one of --image and --z.")
    if options.z:
        try:
            return {
                "z": json.loads(options.z.read_text(encoding="utf-8")),
                "start": f"the code of {options.z.name}",
            }
        except ValueError as error:
            raise ValueError(f"{options.z} should hold a JSON list of numbers ({error}).") from None
    z = analysis.encode_images(run.model, run.dataset().images([options.image]), edits=edits)
    if options.space not in (None, run.model.latent_space.name):
        import torch

        z = to_numpy(carry(run.model, torch.from_numpy(z), options.space))
    how = "encoded with edits" if edits else "encoded"
    return {"z": z[0], "start": f"image {options.image} of {run.config.data.name}, {how}"}


def _span(run, options: argparse.Namespace) -> dict:
    """How far latents move; without an encoder, or in another space, the data say nothing about that."""
    from latentlab.models.contract import is_inference_model

    span = options.span if options.span in ("posterior", "prior") else _number("--span", options.span)
    first = options.space in (None, run.model.latent_space.name)
    if span == "posterior" and is_inference_model(run.model) and first:
        return {"span": span, "encoding": _encode(run, 2000)}
    return {"span": "prior" if span == "posterior" else span}


def _latents(run, names: list[str], options: argparse.Namespace) -> list[str]:
    """Latents by name; one given as a factor is the latent that knows most of it, by the run's kept scores."""
    from latentlab.evaluation import labels_of
    from latentlab.models.contract import space_of
    from latentlab.runs import Workspace

    space, best = space_of(run.model, options.space), {}
    home = Workspace(options.runs) if Path(options.runs).is_dir() else None
    known = labels_of(run, home) if space == run.model.latent_space else {}
    for latent, (factor, nats) in known.items():
        if nats > best.get(factor, ("", 0.0))[1]:
            best[factor] = (latent, nats)
    own = {*space.names, *space.block_names}
    return [n if n in own or n not in best else best[n][0] for n in map(str.strip, names)]


def render(options: argparse.Namespace) -> int:
    """``latentlab render``: an exported file once more."""
    from latentlab import rendering
    from latentlab.export.recipe import ENDING, Recipe
    from latentlab.files import atomic_write

    recipe = Recipe.read(options.recipe)
    if options.out is None and not options.recipe.name.endswith(ENDING):
        raise ValueError(
            f"{options.recipe.name} does not end in {ENDING}, so name the file to write with --out."
        )
    out = options.out or options.recipe.with_name(options.recipe.name.removesuffix(ENDING))
    rendering.check_ending(recipe, out)
    try:
        run = rendering.open_run(recipe, options.run)
    except OSError as error:
        raise OSError(f"{error} If the run has moved, say where it is with --run.") from None
    content = rendering.render(recipe, run)
    if options.out is None and out.exists() and out.read_bytes() != content:
        raise ValueError(
            f"{out} is there and is another file than the recipe makes here; choose one with --out."
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(out) as file:
        file.write(content)
    if recipe.output is None:
        print(f"{out}: {len(content):,} bytes; the recipe does not say what they should be.")
    elif recipe.output == rendering.digest_of(content):
        print(f"{out}: {len(content):,} bytes, the same bit for bit as when its recipe was written.")
    else:
        reasons = "; ".join(rendering.differences(recipe)) or "nothing that the recipe notes"
        told = (
            f"{len(content):,} bytes, other ones than when its recipe was written. What differs: {reasons}."
        )
        print(f"latentlab: {out}: {told}", file=sys.stderr)
        return 1
    return 0


def _export_page(run, options: argparse.Namespace) -> None:
    from latentlab import rendering
    from latentlab.analysis.direction import load_directions
    from latentlab.evaluation import labels_of
    from latentlab.runs import Workspace

    page = options.html
    recipe = rendering.page_recipe(
        run,
        **(_start(run, options, []) if options.image is not None or options.z else {}),
        precision=options.precision,
        labels=labels_of(run, Workspace(options.runs)) or None,
        directions=None if options.directions is None else load_directions(options.directions),
    )
    rendering.check_ending(recipe, page)
    page.parent.mkdir(parents=True, exist_ok=True)
    with _Bar(run.name, options.quiet) as bar:
        rendering.write(
            recipe, page, run, progress=lambda done, count: bar.show(done / count, "encoding images")
        )
    print(
        f"{page}: {page.stat().st_size / 1e6:.2f} MB; it opens from disk, without a server or a network. "
        f"Recipe: {rendering.recipe_path(page)}"
    )


class _Bar:
    """A progress bar that is told a share and what is being done."""

    def __init__(self, name: str, quiet: bool) -> None:
        from tqdm import tqdm

        self._bar = tqdm(
            total=1000,
            desc=name,
            disable=quiet,
            bar_format="{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}",
        )

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def show(self, share: float, doing: str) -> None:
        self._bar.set_postfix_str(doing, refresh=False)
        self._bar.update(round(1000 * share) - self._bar.n)


def _save(picture, path: Path) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)
    print(f"{path}: {picture.caption}")
    return 0


def _number(option: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f'{option} takes "posterior", "prior" or a number; got {text!r}.') from None


# -- list ----------------------------------------------------------------------------------------


def models(options: argparse.Namespace) -> int:
    """``latentlab models``: what can be opened and what can be trained."""
    from latentlab.config import MODELS, OBJECTIVES, experiment_names, named_experiment, objectives_of
    from latentlab.runs import Workspace, zoo_runs

    for title, runs in (
        ("Shipped runs", zoo_runs()),
        (f"Runs in {options.runs}", Workspace(options.runs).runs()),
    ):
        print(f"{title}:" if runs else f"{title}: none")
        for run in runs:
            made = run.experiment
            what = f"{made.model.family}, {made.objective!r}, {made.data.name}" if made else run.error
            print(f"  {run.name:28} {what}")
    print("Experiments (latentlab train NAME):")
    for name in experiment_names():
        claim = named_experiment(name)[1].splitlines()[0].split(": ", 1)[-1]
        print(f"  {name:28} {claim}")
    print("Model families (latentlab train NAME --model CLASS):")
    for name, family in MODELS.items():
        _print_kind(
            name, family, f"latents: {family.structure}", f"trained by: {', '.join(objectives_of(family()))}"
        )
    print("Objectives (latentlab train NAME --objective CLASS --objective.COEFFICIENT VALUE):")
    for name, objective in OBJECTIVES.items():
        _print_kind(name, objective)
    return 0


def _print_kind(name: str, kind: type[ModelConfig] | type[ObjectiveConfig], *more: str) -> None:
    print(f"  {name:16} {kind.__name__:22} {kind.year}  {kind.paper}")
    for line in (_first_line(kind), f"use: {kind.use}", *more):
        print(f"  {'':16} {line}")


def _first_line(documented: type) -> str:
    return (documented.__doc__ or "").strip().splitlines()[0]


def suggest(options: argparse.Namespace) -> int:
    """``latentlab suggest``: where to start with a data set."""
    from latentlab.analysis import suggest as suggest_for
    from latentlab.data import open_dataset

    print(suggest_for(open_dataset(options.data), options.latents, options.steps, seed=options.seed))
    return 0


def datasets(options: argparse.Namespace) -> int:
    """``latentlab datasets``: every data set that can be opened by name."""
    from latentlab.data import list_datasets

    for entry in list_datasets():
        size = f"{entry.size:,} images" if entry.size else "your images"
        shape = " x ".join(map(str, entry.image_shape)) if entry.image_shape else ""
        print(f"{entry.name:14} {', '.join(filter(None, (size, shape)))}")
        if entry.factors:
            print(f"{'':14} factors: {', '.join(entry.factors)}")
        print(f"{'':14} {entry.source}")
        print(f"{'':14} {'available' if entry.available else 'not here'}: {entry.how}")
    return 0


def doctor(options: argparse.Namespace) -> int:
    """``latentlab doctor``: what this machine has."""
    from latentlab.doctor import report

    print(report())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
