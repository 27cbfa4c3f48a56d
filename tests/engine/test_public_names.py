import napari_affmae.engine


def test_all_names_can_be_imported():
    for name in napari_affmae.engine.__all__:
        assert getattr(napari_affmae.engine, name) is not None
    assert {*napari_affmae.engine._HOMES, "events"} == set(napari_affmae.engine.__all__)
