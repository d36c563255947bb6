default_scope = 'mmpretrain'
# raises the original error if fgc_mm or its stack cannot be imported
custom_imports = dict(imports=['fgc_mm'], allow_failed_imports=False)

default_hooks = dict(
    # reads values from a GPU only when they are logged
    runtime_info=dict(type='fgc_mm.LoggedValuesHook'),
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(
        type='fgc_mm.SafeCheckpointHook',
        interval=10,
        max_keep_ckpts=2,
        save_best='accuracy/top1',
    ),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='VisualizationHook', enable=False),
    exact_resume=dict(type='fgc_mm.ExactResumeHook'),
    sync_norms=dict(type='fgc_mm.SyncNormsHook'),
    joined_groups=dict(type='fgc_mm.JoinedGroupsHook'),
    finite_loss=dict(type='fgc_mm.FiniteLossHook'),
    training_steps=dict(type='fgc_mm.TrainingStepsHook'),
    compile=dict(type='fgc_mm.CompileHook'),
    config_check=dict(type='fgc_mm.ConfigCheckHook'),
)
env_cfg = dict(
    cudnn_benchmark=True,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'),
)
visualizer = dict(
    type='UniversalVisualizer', vis_backends=[dict(type='LocalVisBackend')]
)
randomness = dict(seed=None, deterministic=False)
log_level = 'INFO'
load_from = None
resume = False
