"""Files that cannot be written."""

import pytest

from fgc_mm.reliability.atomic_file import check_writable, write_atomically


def test_the_error_names_the_file(tmp_path):
    file = tmp_path / 'a.pkl'
    file.mkdir()  # which no file can replace
    (file / 'x').write_text('')
    with pytest.raises(OSError) as caught:
        write_atomically(b'x', file)
    assert str(file) in (caught.value.filename, caught.value.filename2)
    assert [path.name for path in tmp_path.iterdir()] == ['a.pkl']


def test_a_check_leaves_nothing(tmp_path):
    check_writable(tmp_path / 'new' / 'folder' / 'a.pkl')
    assert list(tmp_path.iterdir()) == []


def test_a_check_names_the_file(tmp_path):
    (tmp_path / 'file').write_text('')
    path = tmp_path / 'file' / 'folder' / 'a.pkl'
    with pytest.raises(NotADirectoryError) as caught:
        check_writable(path)
    assert caught.value.filename == str(path)
