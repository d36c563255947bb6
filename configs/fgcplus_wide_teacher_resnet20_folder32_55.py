_base_ = [
    './fgcplus_distilled_resnet20_folder32_55.py',
    './_base_/models/wide_teacher.py',
]

# the teacher is a dense network with twice as many channels, trained by
# dense_wide_resnet20_folder32.py: set its weights with teacher of a row in a
# plan, or with --cfg-options model.distillation.checkpoint=...
model = dict(distillation=dict(teacher=_base_.wide_teacher))
