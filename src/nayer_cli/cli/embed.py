"""`nayer embed`: flags, help, examples."""

import typer

from nayer_cli.cli import options, running, settings
from nayer_cli.cli.results import fact_rows
from nayer_cli.config import EmbedConfig

SCHEMA = EmbedConfig
EXAMPLES = (
    ("nayer embed --labels classes.txt", "embed the names in a text file, one a line, with CLIP"),
    ("nayer embed --labels cifar10 --encoder sbert --out cifar10.safetensors", "a known set, to a file of your own"),
    ("nayer embed --labels digits --encoder sbert --prompt 'the number {name}' --json", "for a script"),
)


@options.takes(also=options.of_every_command(options.PoolOut))
def command(
    ctx: typer.Context,
    labels: options.Labels = None,
    encoder: options.Encoder = None,
    prompt: options.Prompt = None,
    dedupe: options.Dedupe = None,
    cache_dir: options.CacheDir = None,
    **_: object,
) -> None:
    """Turn class names into a pool of label-text embeddings, and print where it is.

    nayer distill does this by itself, and finds what was made here. The pool is kept in a cache, so that the encoder
    is loaded only once for the same names, encoder and prompt.
    """
    given = settings.read(ctx, SCHEMA)
    output = running.output(ctx)
    with output.progress():
        from nayer_cli.runs.embed import embed

        result = vars(embed(given))
    document = {**result, "path": str(result["path"])}
    told = {name: value for name, value in document.items() if value is not None}
    output.result(document, fact_rows(told))
