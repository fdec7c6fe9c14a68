"""Progress bars go where they are not red."""

import io
import sys

import pytest

from kdkit.common.progress import in_notebook, tqdm


class OutStream(io.StringIO):
    """Standard output of a Jupyter kernel, as far as its type says."""

    __module__ = "ipykernel.iostream"


@pytest.mark.parametrize(("stream", "where"), [(OutStream, 0), (io.StringIO, 1)])
def test_a_bar_is_on_standard_output_in_a_notebook_only(monkeypatch, stream, where):
    streams = stream(), io.StringIO()
    monkeypatch.setattr(sys, "stdout", streams[0])
    monkeypatch.setattr(sys, "stderr", streams[1])
    assert in_notebook() == (where == 0)
    assert list(tqdm(range(3), desc="counting")) == [0, 1, 2]
    assert "counting: 100%" in streams[where].getvalue() and not streams[1 - where].getvalue()
