_base_ = ['./fgcplus_resnet20_folder32_55.py']

# the teacher is the network without gates, with trained weights: teacher of a
# row of tools/compare.py, or --cfg-options model.distillation.checkpoint=...
model = dict(distillation=dict(temperature=4.0, loss_weight=1.0))
