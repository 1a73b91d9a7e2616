"""Loads models of the Hugging Face hub, without long waits if there is no network.

A model is looked up in the local cache first. A machine without a connection then neither waits nor
fails if the files are there. If they are not, a single request checks that the Hub answers before
anything is downloaded, because huggingface_hub retries each download request for 23 seconds.
"""

from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any

from mmpt.errors import first_line
from mmpt.utils.hub_names import is_hub_name
from mmpt.utils.log import get_logger

logger = get_logger(__name__)

TIME_LIMIT_S = 10
"""Longest time until the hub answers."""
SERVER_ERRORS = 500
"""The smallest HTTP status of an error of the server, or of a proxy before it."""


def load_from_hub(
    name: str,
    load: Callable[..., Any],
    absent: tuple[type[Exception], ...] = (OSError,),
) -> Any:
    """Returns `load(name)` of transformers, from the local cache or else from the hub.

    Args:
        name: a name on the hub. It must not be a folder.
        load: called with the name, and perhaps with `local_files_only=True`.
        absent: the exceptions of `load` if the local cache lacks files.
    Raises:
        OSError: the files are not in the cache, and the hub does not answer, or `name` cannot be a
            name of the hub. The message is the reason.
    """
    with suppress(*absent):
        return load(name, local_files_only=True)
    if not is_hub_name(name):
        raise OSError("this cannot be a name of the hub")
    logger.info("%s: not in the local cache; asking the Hugging Face hub", name)
    if problem := hub_problem(TIME_LIMIT_S):
        raise OSError(problem)
    return load(name)


def hub_problem(timeout_s: float) -> str:
    """Returns why the hub cannot be reached, or "" if it answers.

    Args:
        timeout_s: timeout of the request, in seconds.
    """
    # Deferred: importing it takes a second.
    from huggingface_hub import constants, get_session

    answers: SimpleQueue[str] = SimpleQueue()

    def ask() -> None:
        try:
            answer = get_session().head(constants.ENDPOINT, timeout=timeout_s)
        except Exception as err:  # an error of httpx2, or offline mode
            answers.put(first_line(err))
        else:
            # A mirror may serve models without a page at this address, so 4xx counts as an answer.
            is_down = answer.status_code >= SERVER_ERRORS
            answers.put(f"status {answer.status_code}" if is_down else "")

    # httpx2 does not limit the time to look up a host name, so it is limited here.
    Thread(target=ask, daemon=True).start()
    try:
        return answers.get(timeout=timeout_s)
    except Empty:
        return f"no answer within {timeout_s:g} s"
