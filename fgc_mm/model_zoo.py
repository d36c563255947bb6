"""The models of the package that results are published for, by name."""

from functools import cache

from fgc_mm.config_files import configs_folder


@cache
def register_models() -> None:
    """Tells mmpretrain their names.

    Then ``mmpretrain.list_models``, ``get_model``, ``inference_model`` and
    the inferencers know them. Their weights are not published: give
    ``pretrained=CHECKPOINT``.

    Example:
        >>> import fgc_mm, mmpretrain
        >>> fgc_mm.register_models()
        >>> 'fgc_resnet20_folder16_55' in mmpretrain.list_models('fgc_')
        True
    """
    # 6 s to import
    from mmpretrain.apis import ModelHub

    ModelHub._register_mmpretrain_models()
    file = configs_folder().parent / 'model-index.yml'
    ModelHub.register_model_index(file, config_prefix=file.parent)
