"""`edgefleet export`: projects and packages in the form of other systems."""

from pathlib import Path

import click

from edgefleet.errors import ConfigError


@click.group()
def export() -> None:
    """Hand a project or a package to another system."""


@export.command("kfp")
@click.argument("project_dir", type=click.Path(path_type=Path, file_okay=False))
@click.option("--image", required=True, metavar="NAME@sha256:DIGEST", help="Image with edgefleet and the project folder, pinned by digest.")
@click.option("--project-path", default="/project", show_default=True, help="Where the project folder lies in the image.")
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), required=True, help="The YAML file to write.")
def export_kfp(project_dir: Path, image: str, project_path: str, output: Path) -> None:
    """Write PROJECT_DIR as a Kubeflow pipeline: check the rows, train, convert.

    Exit codes: 0 written, 3 bad project, an image that is not pinned, or a file that cannot be written.
    """
    from edgefleet.files import write_durably
    from trainer import load_project
    from trainer.kfp import check_image, pipeline_ir

    check_image(image)
    text = pipeline_ir(load_project(project_dir), image, project_path)
    try:
        write_durably(output, text.encode())
    except OSError as err:
        raise ConfigError(f"{output}: cannot be written: {err.strerror}; name another file with --output") from err
    click.echo(f"pipeline: {output}")


@export.command("mlflow")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--url", required=True, help="The MLflow server; a password goes into MLFLOW_TRACKING_PASSWORD.")
@click.option("--name", required=True, help="Name of the registered model.")
@click.option("--alias", default="champion", show_default=True, help="What the promoted version is called.")
def export_mlflow(folder: Path, url: str, name: str, alias: str) -> None:
    """Register FOLDER, a model package or a bundle, at an MLflow server, and let the alias point to it.

    A folder that is registered already is found again: promoting it once more, or going back to it, only moves the alias.

    Exit codes: 0 registered, 3 no package or bundle, 4 the server does not answer, 78 mlflow-skinny is not installed.
    """
    from edgefleet.registry import check_url, register

    check_url(url, "--url")
    version = register(folder, name, url, alias)
    click.echo(f"registered: {name} version {version} as {name}@{alias} at {url}")
