"""The commands `train`, `convert`, `export`, `verify` and `info`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from visdeploy.cli.console import facts, stages, stdout, table
from visdeploy.cli.outputs import Overwrite, check_outputs
from visdeploy.errors import ConfigError
from visdeploy.optional import require
from visdeploy.outputs import Output
from visdeploy.space import least_of_weights

BundlePath = Annotated[Path, typer.Argument(metavar="BUNDLE", help="Bundle folder (NAME.vis).")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Classes = Annotated[
    str | None,
    typer.Option(help="Class names in label order (a,b,c) or a public list (ytvis2019), if the file has none."),
]
Tf32 = Annotated[bool, typer.Option("--tf32", help="Allow TF32 on CUDA: faster, less exact than fp32.")]
Key = Annotated[
    Path | None,
    typer.Option(metavar="PUBLIC", help="Public key (PEM); a bundle that is not signed with it is refused."),
]
Threads = Annotated[int | None, typer.Option(help="CPU threads of the engine; default: all cores.", min=1)]


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the application."""
    for command in (train, convert, export, verify, info):
        app.command()(command)


def train(
    config: Annotated[str, typer.Argument(metavar="RECIPE", help="Recipe: YAML file, or name of a shipped one.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Fields of the recipe to change.")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Train a method as described by a recipe. KEY=VALUE changes single fields (optim.lr=1e-4)."""
    training = require("visdeploy_training", extra="train", purpose="training")
    written = training.train(config, overrides or [], overwrite=overwrite)
    stdout.print(f"wrote {written}", highlight=False)


def convert(
    checkpoint: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="Checkpoint, own or official.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="File to write; default: NAME.safetensors.")] = None,
    method: Annotated[str | None, typer.Option(help="Method; default: recognised.")] = None,
    variant: Annotated[str | None, typer.Option(help="Variant; default: recognised.")] = None,
    classes: Classes = None,
    overwrite: Overwrite = False,
) -> None:
    """Convert a checkpoint to the layout of visdeploy, and report missing, unexpected and misshapen keys."""
    target = out or checkpoint.with_suffix(".safetensors")
    if target.suffix.lower() != ".safetensors":
        raise ConfigError(f"cannot write {target}", seen=f"ending {target.suffix!r}", expected=".safetensors")
    check_outputs([Output(target, least=least_of_weights(checkpoint))], [checkpoint], overwrite=overwrite)
    training = require("visdeploy_training", extra="train", purpose="converting a checkpoint")
    made = training.convert_checkpoint(checkpoint, method=method, variant=variant, classes=_names(classes))
    report = made.report
    stdout.print(
        table(
            f"{checkpoint.name}: {made.method} {made.variant}, {len(made.classes)} classes",
            ("keys", "count"),
            [(kind, len(getattr(report, kind))) for kind in ("loaded", "missing", "unexpected", "misshapen")],
        )
    )
    for kind in ("missing", "unexpected", "misshapen"):
        for key in getattr(report, kind):
            stdout.print(f"{kind}: {key}", highlight=False)
    report.raise_on_problem()
    written = training.save_checkpoint(made, target)
    stdout.print(f"wrote {written}", highlight=False)


def export(
    checkpoint: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="Checkpoint, own or official.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Bundle folder; default: NAME.vis.")] = None,
    method: Annotated[str | None, typer.Option(help="Method; default: recognised.")] = None,
    variant: Annotated[str | None, typer.Option(help="Variant; default: recognised.")] = None,
    classes: Classes = None,
    precision: Annotated[str, typer.Option(help="Precision of the graph.")] = "fp32",
    height: Annotated[int | None, typer.Option(help="Network input height; default: the variant's.")] = None,
    width: Annotated[int | None, typer.Option(help="Network input width; default: the variant's.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Setting of the method (window=60); repeatable."),
    ] = None,
    certify_on: Annotated[str | None, typer.Option(help="Video for the certificate; default: synthetic clip.")] = None,
    certify_frames: Annotated[int, typer.Option(help="Number of frames for the certificate.", min=1)] = 30,
    overwrite: Overwrite = False,
) -> None:
    """Export a checkpoint to a bundle, and compare the bundle with PyTorch."""
    from visdeploy.exporting import export as run
    from visdeploy.video import local_files

    target = out or checkpoint.with_suffix(".vis")
    inputs = (checkpoint, *(() if certify_on is None else local_files(certify_on)))
    written = Output(target, folder=True, least=least_of_weights(checkpoint))
    check_outputs([written], inputs, overwrite=overwrite)
    with stages() as show:
        bundle = run(
            checkpoint,
            target,
            method=method,
            variant=variant,
            classes=_names(classes),
            precision=precision,
            height=height,
            width=width,
            overrides=_settings(settings),
            certify_on=certify_on,
            certify_frames=certify_frames,
            overwrite=overwrite,
            on_stage=show,
        )
    _print_certificate(bundle.certificate(), title=f"parity certificate of {bundle.path.name}")
    stdout.print(f"wrote {bundle.path}", highlight=False)


def verify(
    bundle: BundlePath, device: Device = "auto", threads: Threads = None, tf32: Tf32 = False, key: Key = None
) -> None:
    """Run the self-test of a bundle on this machine, and compare with the outputs of PyTorch.

    With --key, check the signature of the bundle first.
    """
    from visdeploy.parity.verification import verify as run

    report = run(bundle, device=device, threads=threads, tf32=tf32, key=key)
    _print_certificate(report.model_dump(), title=f"{bundle.name} on this machine")


def info(bundle: BundlePath, key: Key = None) -> None:
    """Print the description of a bundle: method, classes, tensors, provenance, certificate."""
    from visdeploy.bundle import Bundle

    opened = Bundle.open(bundle, key=key)
    manifest = opened.manifest
    size, window = manifest.preprocessing, manifest.window
    clips = f"clips of {window.length} frames that share {window.overlap}"
    stdout.print(
        facts(
            opened.path.name,
            {
                "method": f"{manifest.method} {manifest.variant}, {manifest.precision}, opset {manifest.opset}",
                "classes": f"{len(manifest.classes)}: {', '.join(manifest.classes)}" + _made_up(manifest.classes),
                "window": clips if window.mode == "clip" else window.mode,
                "input size": f"{size.height}x{size.width} ({size.resize})",
                "sizes": "; ".join(f"{name} {dim}" for name, dim in manifest.dims.items()),
                "checkpoint": f"{manifest.provenance.checkpoint} {manifest.provenance.checkpoint_sha256[:12]}",
                "made": f"{manifest.provenance.created} by visdeploy {manifest.provenance.visdeploy}, "
                f"torch {manifest.provenance.torch}, onnx {manifest.provenance.onnx}",
                "custom ops": ", ".join(f"{o.domain}::{o.name}" for o in manifest.custom_ops) or "none",
                "size": f"{sum(f.size for f in manifest.files.values()) / 1e6:.1f} MB in {len(manifest.files)} files",
            },
        )
    )
    tensors = [("input", t.name, t.dtype, list(t.shape)) for t in manifest.inputs]
    tensors += [("state", s.input, s.dtype, list(s.shape)) for s in manifest.state]
    tensors += [("output", t.name, t.dtype, list(t.shape)) for t in manifest.outputs]
    stdout.print(table("tensors", ("kind", "name", "dtype", "shape"), tensors))
    _print_certificate(opened.certificate(), title="parity certificate")


def _made_up(classes: Sequence[str]) -> str:
    """Return a remark if the names of the classes are those of a checkpoint that has none."""
    made_up = list(classes) == [f"class_{i}" for i in range(len(classes))]
    return " (made up, because the checkpoint had no class names)" if made_up else ""


def _names(classes: str | None) -> str | list[str] | None:
    """Parse `--classes`: names separated by commas (a comma after a single one), or the name of a public list."""
    return [name.strip() for name in classes.rstrip(",").split(",")] if classes and "," in classes else classes


def _settings(texts: list[str] | None) -> dict[str, Any]:
    """Parse the values of `--set`."""
    if not texts:
        return {}
    module = require("visdeploy_training.overrides", extra="export", purpose="exporting a checkpoint")
    found: dict[str, Any] = module.parse_overrides(texts)
    return found


def _print_certificate(certificate: dict[str, Any], *, title: str) -> None:
    from visdeploy.parity.certificate import certificate_rows

    stdout.print(table(title, ("check", "value", "allowed"), certificate_rows(certificate)))
