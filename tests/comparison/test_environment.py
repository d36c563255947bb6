import platform
from pathlib import Path

import pytest

from fgc_mm.comparison.environment import cpu_name, environment

CORE = """processor\t: 0
vendor_id\t: AuthenticAMD
cpu family\t: 25
model\t\t: 17
model name\t: AMD EPYC
stepping\t: 1

"""


@pytest.mark.parametrize(
    ('info', 'name'),
    [
        (CORE * 2, 'AMD EPYC (family 25, model 17)'),
        ('model name : ARMv7 rev 2\n', 'ARMv7 rev 2'),
        (
            'processor : 0\nCPU part : 0xd0c\n',
            platform.processor() or platform.machine(),
        ),
    ],
)
def test_name_of_a_cpu(monkeypatch, info, name):
    monkeypatch.setattr(Path, 'read_text', lambda _: info)
    assert cpu_name() == name


def test_the_environment_names_a_cpu():
    name, _, cores = environment()['CPU'].rpartition(', ')
    assert name and cores.endswith(' cores')
