_base_ = ['./fgcplus_resnet20_folder32_55.py']

# the teacher is the trained network without gates; set its weights with
# teacher in a plan, or --cfg-options model.distillation.checkpoint=...
model = dict(distillation=dict(temperature=4.0, loss_weight=1.0))
