"""Whatever goes wrong in a handler becomes one sentence, and the rest of the page stays."""

import errno
import os

import gradio as gr
import pytest
import torch

from taskit.errors import DataError
from taskit.ui.decorators import report_errors


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (DataError("There is no <b>label</b>; name one."), "There is no &lt;b&gt;label&lt;/b&gt;; name one."),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "(No space left on device); nothing was lost"),
        (MemoryError(), "ran out of memory"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "GPU is busy"),
        (ZeroDivisionError("secret"), "did not foresee (ZeroDivisionError)"),
    ],
)
def test_an_error_is_one_sentence_and_nothing_else_changes(error, says):
    @report_errors(outputs=2)
    def handler():
        raise error

    said, *rest = handler()
    assert says in said
    assert said.count('role="alert"') == 1
    assert "secret" not in said
    assert rest == [gr.skip(), gr.skip()]


def test_where_all_went_well_the_notice_is_empty():
    assert report_errors(outputs=1)(lambda: (7,))() == ("", 7)
