"""Every test starts with an empty site cache."""

import pytest

from fgc_mm.sites import site_cache
from fgc_mm.sites.image_size import expect_images


@pytest.fixture(autouse=True)
def fresh():
    """No cached sites and no expected image size."""
    site_cache.clear_cache()
    expect_images(None)
    yield
    site_cache.clear_cache()
    expect_images(None)
