_base_ = ['./cifar10.py']
dataset_type = 'CIFAR100'
data_root = 'data/cifar100'
data_preprocessor = dict(num_classes=100)

train_dataloader = dict(
    batch_size=128, dataset=dict(type=dataset_type, data_root=data_root)
)
val_dataloader = dict(dataset=dict(type=dataset_type, data_root=data_root))
test_dataloader = val_dataloader
