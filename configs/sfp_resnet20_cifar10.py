_base_ = ['./dense_resnet20_cifar10.py', './_base_/methods/sfp.py']
