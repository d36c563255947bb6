"""Every test searches as a process does that has just begun."""

import pytest

from fgc_mm.sites import reuse
from fgc_mm.sites.image_size import expect_images


@pytest.fixture(autouse=True)
def fresh():
    """Nothing is known of any network, nor of the images."""
    reuse.forget()
    expect_images(None)
    yield
    reuse.forget()
    expect_images(None)
