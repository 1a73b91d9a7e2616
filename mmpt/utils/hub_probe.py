"""Asks the Hugging Face hub for one answer, within seconds.

Without a network, huggingface_hub repeats every request for 23 seconds.
"""

from queue import Empty, SimpleQueue
from threading import Thread

from mmpt.errors import first_line

SERVER_ERRORS = 500
"""The smallest HTTP status of an error of the server, or of a proxy before it."""


def hub_problem(timeout_s: float) -> str:
    """Returns why the hub cannot be reached, or "" if it answers.

    Args:
        timeout_s: longest time of an answer.
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
            # A mirror may have no page at this address, but its models.
            is_down = answer.status_code >= SERVER_ERRORS
            answers.put(f"status {answer.status_code}" if is_down else "")

    # httpx2 does not limit the time to look up a host name, so it is limited here.
    Thread(target=ask, daemon=True).start()
    try:
        return answers.get(timeout=timeout_s)
    except Empty:
        return f"no answer within {timeout_s:g} s"
