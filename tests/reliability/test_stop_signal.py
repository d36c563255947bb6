"""One rank is signalled, and all of them stop together."""


def test_all_ranks_stop_and_leave_together(run_ranks, tmp_path):
    first, second = run_ranks('stop_ranks.py', 2, tmp_path)
    for result in (first, second):
        assert result['said'] == [False, False, True]
        assert result[
            'saved'
        ]  # no process exits before the last one has saved
    assert first['name'] == 'SIGUSR1' and second['name'] is None
