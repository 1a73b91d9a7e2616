"""`mmpt push`: uploads a model to the Hugging Face Hub."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from mmpt.cli.main import Command
from mmpt.errors import DataError, LaunchError
from mmpt.utils.log import get_logger

# The functions below import these themselves, so that --help and argument errors do not wait.
if TYPE_CHECKING:
    from huggingface_hub import EvalResult

    from mmpt.inference.mmptmodel import MMPTModel

logger = get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of the command."""

    source: Annotated[
        str,
        Argument(
            metavar="MODEL", help="A run folder, checkpoint, YAML or saved folder."
        ),
    ]
    name: Annotated[str, Argument(metavar="USER/NAME", help="Name on the Hub.")]
    checkpoint: Annotated[
        str, Option(help="File name of the checkpoint in a run folder, or for a YAML.")
    ] = "checkpoint_best.pt"
    private: Annotated[
        bool, Option("--private", help="The repository must be private.")
    ] = False
    results: Annotated[
        list[Path] | None,
        Option(
            metavar="FILE",
            help="A results.json of the checkpoint, for the model card. May be repeated. "
            "Default: the one next to the checkpoint.",
        ),
    ] = None
    overwrite_card: Annotated[
        bool,
        Option("--overwrite-card", help="Replace a model card that you have changed."),
    ] = False
    dryrun: Annotated[
        bool,
        Option(
            "--dryrun", help="Write the folder and print its files; upload nothing."
        ),
    ] = False
    out: Annotated[
        Path | None,
        Option(metavar="DIR", help="Folder of --dryrun. Default: the name."),
    ] = None


def push(options: Options) -> None:
    """Upload a model to the Hugging Face Hub.

    Uploads weights, settings, tokenizer and a model card, and prints the address. Log in with
    `hf auth login` before, or set HF_TOKEN. `MMPTModel.from_pretrained("user/name")` loads the
    model.
    """
    if options.out is not None and not options.dryrun:
        raise LaunchError("`--out` is the folder of `--dryrun`. Give both or neither.")
    from mmpt.inference import hub

    hub.check_name(options.name)
    if not options.dryrun:
        hub.check_token(options.name)
    from mmpt.inference.mmptmodel import MMPTModel

    model = MMPTModel.from_pretrained(options.source, options.checkpoint)
    results = _read_results(options, model)
    if options.dryrun:
        _, _, name = options.name.rpartition("/")
        folder = options.out or Path(name)
        model.save_pretrained(
            folder,
            name=options.name,
            results=results,
            overwrite_card=options.overwrite_card,
        )
        for path in sorted(folder.iterdir()):
            print(f"{path.stat().st_size:>14,} {path}")
        return
    address = model.push_to_hub(
        options.name,
        private=options.private,
        results=results,
        overwrite_card=options.overwrite_card,
    )
    print(address)


def _read_results(options: Options, model: "MMPTModel") -> "list[EvalResult]":
    """Returns the results for the model card.

    Raises:
        LaunchError: results are given, but the model is not from a checkpoint.
        DataError: a file is not a results file, or has no row of the checkpoint.
    """
    from mmpt.evaluators.card_results import card_results

    checkpoint = model.origin.checkpoint
    if checkpoint is None:
        if options.results:
            raise LaunchError(
                "`--results` needs the run folder or the checkpoint, because results name the "
                f"checkpoint, but {options.source} is a saved folder. Its card keeps its results."
            )
        return []
    if options.results:
        return card_results(options.results, checkpoint)
    nearby = checkpoint.parent / "results.json"
    if not nearby.is_file():
        return []
    try:
        return card_results([nearby], checkpoint)
    except DataError as err:
        logger.info("the model card has no results: %s", err)
        return []


main = Command(push, options=Options, interrupt_message="run the same command again")


if __name__ == "__main__":
    sys.exit(main())
