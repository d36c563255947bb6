"""Configs that cannot be read."""

import pytest

from fgc_mm.engine.config_file import load_config
from fgc_mm.errors import FGCError
from fgc_mm.type_name import type_name

BROKEN = {
    'cut.json': ('{"model": [1,', 'JSONDecodeError: Expecting value'),
    'list.json': ('[1]', 'AttributeError: '),
    'broken.yaml': ('model: [1\nhead: }', 'ParserError: '),
    'empty.yaml': ('', 'AttributeError: '),
    'twice.py': ("_base_ = ['one.py', 'one.py']", 'KeyError: .*Duplicate key'),
    'name.py': ('x = unknown_name', "NameError: name 'unknown_name' is not"),
    'value.py': ("x = int('a')", 'ValueError: invalid literal'),
    'bytes.py': ('x = "\udcff"', 'UnicodeDecodeError: '),
}


@pytest.mark.parametrize('name', BROKEN)
def test_a_broken_config_is_one_sentence(name, tmp_path):
    text, words = BROKEN[name]
    (tmp_path / 'one.py').write_text('x = 1\n')
    file = tmp_path / name
    file.write_bytes(text.encode(errors='surrogateescape'))
    with pytest.raises(FGCError) as caught:
        load_config(str(file))
    told = str(caught.value)
    assert told.startswith(f'{file} cannot be read as a config (')
    assert '\n' not in told and told.endswith(' that has this fault.')
    with pytest.raises(FGCError, match=words):
        load_config(str(file))


def test_what_the_commands_report_is_not_changed(tmp_path):
    file = tmp_path / 'config.py'
    file.write_text("_base_ = 'missing.py'\n")
    with pytest.raises(FileNotFoundError):
        load_config(str(file))
    file.write_text("_base_ = [__import__('fgc_mm').config_file('no.py')]\n")
    with pytest.raises(FGCError, match=r'no\.py is not a file'):
        load_config(str(file))


def test_the_class_of_pretrained_weights_is_named(tmp_path):
    # its path, which mmengine writes, is not what mmengine looks for
    text = """
from mmengine.model import NormalInit, PretrainedInit
model = dict(
    init_cfg=[
        dict(type=NormalInit, layer='Conv2d'),
        dict(type=PretrainedInit, checkpoint='a.pth'),
    ],
    backbone=dict(init_cfg=dict(type='Pretrained', checkpoint='b.pth')),
)
"""
    path = tmp_path / 'lazy.py'
    path.write_text(text)
    cfg = load_config(str(path))
    cfg.dump(tmp_path / 'dumped.py')
    for read in (cfg, load_config(str(tmp_path / 'dumped.py'))):
        normal, pretrained = read.model.init_cfg
        assert pretrained == dict(type='Pretrained', checkpoint='a.pth')
        assert read.model.backbone.init_cfg.type == 'Pretrained'
        assert type_name(normal) == 'NormalInit'
    path = tmp_path / 'written_by_mmengine.py'
    path.write_text("model = dict(type='mmengine.model.PretrainedInit')")
    assert load_config(str(path)).model.type == 'Pretrained'


def test_reading_a_config_imports_nothing_that_it_names(tmp_path):
    path = tmp_path / 'lazy.py'
    path.write_text(
        'from absent_package import Hook\ncustom_hooks = [dict(type=Hook)]\n'
    )
    cfg = load_config(str(path))
    with pytest.raises(ImportError, match='absent_package'):
        assert cfg.custom_hooks[0].type
