"""gitmodel.serving.web: what uvicorn logs, in the journal."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from gitmodel.serving.journal import Journal
from gitmodel.serving.web import say_in


@pytest.fixture
def said() -> Iterator[list[str]]:
    lines: list[str] = []
    logger = logging.getLogger("uvicorn")
    before = list(logger.handlers)
    say_in(Journal(lines.append))
    yield lines
    logger.handlers = before


def test_what_uvicorn_warns_of_is_told_and_the_same_again_is_not(said: list[str]) -> None:
    for text in ("ASGI is hard", "ASGI is hard", "and harder"):
        logging.getLogger("uvicorn.error").warning(text)
    assert said == ["warning: ASGI is hard", "warning: and harder"]


def test_of_a_request_that_is_none_the_answer_tells_more(said: list[str]) -> None:
    logging.getLogger("uvicorn.error").warning("Invalid HTTP request received.")
    assert said == []
