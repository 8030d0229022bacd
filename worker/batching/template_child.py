"""The process that runs tenants' chat templates. Started by its path; imports nothing of ours.

Jinja has no bound of its own: a template may loop, or make a text of gigabytes. So it runs here, by
transformers' own sandbox, and the system bounds it: CPU time by a timer whose signal ends the
process, memory by a limit, files by another. One request at a time: a line of JSON in, one out.
"""

import json
import os
import resource
import signal
import sys
from typing import Any

NO_MEMORY = "MemoryError"  # what an answer's `error` says of it
PAGE = resource.getpagesize()


def main() -> None:
    """Serve requests until there are no more, or a limit ends the process."""
    cpu_seconds, spare_bytes, most_chars, words_chars = map(int, sys.argv[1:])
    from jinja2 import TemplateError  # noqa: PLC0415 - only where templates are run
    from transformers.utils.chat_template_utils import (  # noqa: PLC0415 - same
        render_jinja_template,
    )

    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what anything prints is no answer
    _limit(spare_bytes)
    _answer(answers, {"ready": True})
    for line in sys.stdin.buffer:
        request = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
        try:
            (text,), _ = render_jinja_template(
                [request["messages"]], chat_template=request["template"], **request["arguments"]
            )
            answer: dict[str, Any] = {"text": text}
            if len(text) > most_chars:
                answer = {"chars": len(text)}
        except MemoryError:
            answer = {"error": NO_MEMORY, "words": ""}
        except Exception as error:  # noqa: BLE001 - a template's code, on a tenant's values
            kind = "" if isinstance(error, TemplateError) else type(error).__name__
            words = " ".join(str(error).split())
            answer = {"error": kind, "words": words[: words_chars + 1]}
        signal.setitimer(signal.ITIMER_PROF, 0)
        _answer(answers, answer)
        if answer.get("error") == NO_MEMORY:
            return  # what it has left behind is anything


def _answer(answers: Any, answer: dict[str, Any]) -> None:
    answers.write(json.dumps(answer).encode() + b"\n")
    answers.flush()


def _limit(spare_bytes: int) -> None:
    """Take away what no template needs, once all is imported."""
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 - no more imports
            most = int(file.read().split()[0]) * PAGE + spare_bytes
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


if __name__ == "__main__":
    main()
