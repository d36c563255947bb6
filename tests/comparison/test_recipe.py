"""What must not change between a comparison's run and its resumption."""

from fgc_mm.comparison import plan


def test_runs_from_before_the_groups_were_joined_go_on():
    recipe = dict(
        optim_wrapper=dict(
            constructor='fgc_mm.JoinedGroupsConstructor', optimizer=dict(lr=1)
        )
    )
    plan._leave_out_constructor(recipe)
    assert recipe == dict(optim_wrapper=dict(optimizer=dict(lr=1)))
    other = dict(optim_wrapper=dict(constructor='Layers'))
    plan._leave_out_constructor(other)
    assert other == dict(optim_wrapper=dict(constructor='Layers'))
    plan._leave_out_constructor(dict(optim_wrapper=None))
