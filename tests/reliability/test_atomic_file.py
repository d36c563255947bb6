"""Files that cannot be written."""

import pytest

from fgc_mm.reliability.atomic_file import check_writable, write_atomically


def test_the_error_names_the_file(tmp_path):
    file = tmp_path / ('a' * 250)  # the temporary file has a longer name
    with pytest.raises(OSError) as caught:
        write_atomically(b'x', file)
    assert caught.value.filename == str(file)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(IsADirectoryError) as caught:
        check_writable(tmp_path)
    assert caught.value.filename == str(tmp_path)


def test_a_check_leaves_nothing(tmp_path):
    check_writable(tmp_path / 'new' / 'folder' / 'a.pkl')
    assert list(tmp_path.iterdir()) == []


def test_a_check_names_the_file(tmp_path):
    (tmp_path / 'file').write_text('')
    path = tmp_path / 'file' / 'folder' / 'a.pkl'
    with pytest.raises(NotADirectoryError) as caught:
        check_writable(path)
    assert caught.value.filename == str(path)
