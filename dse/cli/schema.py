"""`dse schema`: JSON Schema for editors."""

from __future__ import annotations

import click


@click.command("schema", short_help="Print the JSON Schema of configurations.")
@click.argument("family", required=False)
def command(family: str | None) -> None:
    """Print the JSON Schema of a run configuration, or of a FAMILY's hardware parameters.

    In an editor with a YAML language server, the first line of a configuration
    '# yaml-language-server: $schema=run.schema.json' makes it complete and check keys.
    """
    import json

    from dse.config import schema
    from dse.core import registry

    document = (
        schema() if family is None else registry.load(registry.BACKENDS, family).hardware_model.model_json_schema()
    )
    click.echo(json.dumps(document, indent=2))
