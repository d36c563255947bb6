"""The example in C, and the lines in C of the documentation."""

import ctypes
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from fgc_mm.runtime.build_options import NAME, SOURCES
from fgc_mm.runtime.building import cached_library
from fgc_mm.runtime.format import Act, Activation, encode
from fgc_mm.runtime.library import load_library, shipped_library

from .test_model import C, H, W, expected, program, some_images

ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.usefixtures('compiled'),
    pytest.mark.skipif(
        not all(map(shutil.which, ('make', 'cc'))), reason='no make or cc'
    ),
]
PROGRAM = """
#include <stdio.h>
#include "fgc.h"
int main(int argc, char **argv) {
  static float images[2 * %d], logits[2 * %d];
  int64_t count = 2;
  FILE *file = fopen("images.f32", "rb");
  if (fread(images, 4, 2 * %d, file) != 2 * %d) return 2;
  %s
  for (int k = 0; k < 2 * %d; ++k) printf("%%.9g\\n", logits[k]);
  return 0;
}
"""


@pytest.fixture
def folder(tmp_path):
    """A copy of the example, with the compiled library and a model."""
    folder = shutil.copytree(ROOT / 'examples' / 'c', tmp_path / 'an example')
    shutil.copy(shipped_library() or cached_library(), folder / NAME)
    (folder / 'model.fgc').write_bytes(encode(program()))
    some_images(2).tofile(folder / 'images.f32')
    some_images(1).tofile(folder / 'image.f32')
    return folder


def run(*command, folder):
    done = subprocess.run(
        [*map(str, command)], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_example_prints_the_largest_outputs(folder):
    image = folder / 'image.f32'
    printed = run(
        'make', '-s', 'run', f'ROOT={ROOT}', 'MODEL=model.fgc',
        f'IMAGE={image}', folder=folder,
    )  # fmt: skip
    largest = expected(some_images(1))[0].max()
    numbers = re.findall(r'-?\d+\.\d+', printed)
    assert any(abs(float(x) - largest) < 1e-2 for x in numbers), printed


def test_the_example_counts_masks(folder):
    """And not the logits, some of which are closed and above 0."""
    image, made = folder / 'image.f32', program()
    logits, masks = expected(some_images(1))[1:]
    made.ops[0].act = Activation(Act.GREATER, np.sort(logits.ravel())[-2])
    assert masks.sum() > 1
    (folder / 'model.fgc').write_bytes(encode(made))
    printed = run(
        'make', '-s', 'run', f'ROOT={ROOT}', 'MODEL=model.fgc',
        f'IMAGE={image}', folder=folder,
    )  # fmt: skip
    assert f'share of channels open: {1 / C:.3f}\n' in printed


def test_a_model_without_outputs_is_one_sentence(folder):
    made = program()
    made.outputs, made.records = [], 0
    (folder / 'model.fgc').write_bytes(encode(made))
    run('make', '-s', f'ROOT={ROOT}', folder=folder)
    done = subprocess.run(
        ['./classify', 'model.fgc', 'image.f32'],
        cwd=folder, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode > 0
    assert done.stderr == 'the model has no output 0\n'


def test_the_lines_of_the_documentation(folder):
    """Their array has a pointer for the logits, and none for decisions."""
    page = (ROOT / 'docs' / 'runtime.md').read_text('utf-8')
    (lines,) = re.findall(r'```c\n(.*?)```', page, re.DOTALL)
    sizes = 3 * H * W, 2 * H * W
    source = PROGRAM % (
        *sizes, sizes[0], sizes[0], lines, sizes[1]
    )  # fmt: skip
    (folder / 'lines.c').write_text(source)
    run(
        'cc', '-Wall', '-Werror', f'-I{SOURCES}', 'lines.c', '-o', 'lines',
        '-L.', '-lfgc', '-Wl,-rpath,$ORIGIN', folder=folder,
    )  # fmt: skip
    got = [*map(float, run('./lines', folder=folder).split())]
    wanted = expected(some_images(2))[0].ravel()
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)


def test_its_library_has_every_build(folder):
    """One rule, and not a second list of compiler options, makes it."""
    made = run('make', '-n', '-B', f'ROOT={ROOT}', NAME, folder=folder)
    assert f'-m fgc_mm.runtime.building {NAME}' in made
    code = ctypes.CDLL(str(folder / NAME))
    code.fgc_builds.restype = ctypes.c_char_p
    assert code.fgc_builds() == load_library().fgc_builds()
