"""The name of the CPU in reports."""

from pathlib import Path

from fgc_mm.runtime.cpu import cpu_name


def test_cpus_are_named_by_family(monkeypatch):
    """Virtual machines call several generations by one name."""
    text = (
        'processor : 0\ncpu family\t: 26\nmodel\t\t: 2\n'
        'model name\t: AMD EPYC\nflags : fpu\n\nprocessor : 1\n'
    )
    monkeypatch.setattr(Path, 'read_text', lambda _: text)
    assert cpu_name() == 'AMD EPYC, family 26, model 2'

    def none(_):
        raise FileNotFoundError

    monkeypatch.setattr(Path, 'read_text', none)
    assert cpu_name()
