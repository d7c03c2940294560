"""A plan follows from the data, is what is given where something is, and leaves nothing open."""

from dataclasses import fields, replace
from pathlib import Path

import pytest

from hymunet.data.case import Case, Dataset
from hymunet.data.preprocess import PreprocessConfig
from hymunet.data.survey import CaseSurvey, Intensities
from hymunet.errors import HyMUNetError
from hymunet.network.config import HyMUNetConfig
from hymunet.training.options import OPEN, TrainOptions
from hymunet.training.planning.effort import passes
from hymunet.training.planning.look import Origin
from hymunet.training.planning.plan import make_plan, settle


def row(index, size=(256, 256), **values):
    """A row of 8-bit pictures with one large structure, unless said otherwise."""
    grey = (Intensities(0.0, 90.0, 40.0, 250.0),)
    defaults = {
        "size": size,
        "channels": 3,
        "dtype": "uint8",
        "image": grey * 3,
        "inside": grey * 3,
        "counts": ((0, 1000), (1, 300)),
        "pieces": 1,
        "piece_area": 12000.0,
    }
    return CaseSurvey(f"case{index}", **(defaults | values))


def volume(index, size=(60, 64, 64), spacing=(1.0, 1.0, 1.0), **values):
    mri = (Intensities(0.0, 90.0, 40.0, 250.0),)
    mine = {"channels": 1, "dtype": "float32", "image": mri, "inside": mri, "pieces": 0}
    return row(index, size, spacing_mm=spacing, **(mine | values))


def dataset_of(rows, **values):
    cases = tuple(Case(one.id, (Path("image"),), Path("mask")) for one in rows)
    return Dataset("folder pairs", Path("data"), cases, **values)


def plan_of(rows, options=None, origin=None, on_gpu=False, teaching=None, **values):
    return make_plan(dataset_of(rows, **values), rows, options, on_gpu, origin, teaching)


def test_pictures_are_squeezed_whole_with_one_structure():
    plan = plan_of([row(i, (400, 600)) for i in range(20)])
    assert (plan["structures"], plan["activation"], plan["resize"]) == (1, "sigmoid", "squeeze")
    assert (plan["image_size"], plan["patch_size"], plan["normalisation"]) == (256, None, "dataset")
    assert plan_of([row(i, (90, 70)) for i in range(20)])["image_size"] == 96


def test_every_choice_has_a_reason_and_nothing_is_left_open():
    for rows in ([row(0), row(1)], [volume(0), volume(1)]):
        plan = plan_of(rows)
        assert [choice.name for choice in plan.choices if choice.name != "activation"] == list(OPEN)
        assert all(choice.reason for choice in plan.choices)
        assert plan.to_json()["epochs"]["value"] == plan["epochs"]
        settings = settle(TrainOptions(learning_rate=0.1), plan)
        assert settings.learning_rate == 0.1
        assert None not in (settings.structures, settings.epochs, settings.batch_size)


def test_what_is_given_goes_before_every_rule():
    given = {"batch_size": 3, "epochs": 7, "image_size": 64, "structures": 2, "preset": "base"}
    plan = plan_of([row(0), row(1)], TrainOptions(**given))
    assert {name: plan[name] for name in given} == given
    settings = settle(TrainOptions(**given), plan)
    assert {name: getattr(settings, name) for name in given} == given
    assert plan_of([row(0)], TrainOptions(patch_size=[64, 64]))["resize"] == "window"


def test_declared_classes_exclude_each_other_and_nested_regions_do_not():
    rows = [volume(i, counts=((0, 9), (1, 5), (2, 3))) for i in range(4)]
    names = {1: "edema", 2: "core"}
    exclusive = plan_of(rows, label_names=names)
    assert (exclusive["structures"], exclusive["activation"]) == (2, "softmax")
    nested = plan_of(rows, label_names=names, regions={"whole": (1, 2), "core": (2,)})
    assert (nested["structures"], nested["activation"]) == (2, "sigmoid")
    apart = plan_of(rows, label_names=names, regions={"edema": (1,), "core": (2,)})
    assert apart["activation"] == "softmax"


def test_volumes_are_read_in_windows_of_the_strides_multiples_within_the_budget_of_voxels():
    plan = plan_of([volume(i, (155, 240, 240)) for i in range(4)])
    patch = plan["patch_size"]
    assert plan["resize"] == "window"
    assert all(side % 16 == 0 for side in patch)
    assert 0.5 * 64**3 < patch[0] * patch[1] * patch[2] < 1.6 * 64**3
    larger = plan_of([volume(i, (155, 240, 240)) for i in range(4)], on_gpu=True)["patch_size"]
    assert all(a >= b for a, b in zip(larger, patch, strict=True))
    assert plan["patches"] == 8


def test_small_volumes_are_seen_whole_and_not_halved_by_the_stem():
    plan = plan_of([volume(i, (36, 50, 35)) for i in range(4)])
    assert plan["stem_stride"] == 1
    assert all(s <= p < s + 8 for p, s in zip(plan["patch_size"], (36, 50, 35), strict=True))
    assert all(side % 8 == 0 for side in plan["patch_size"])
    assert plan["patches"] == 1


def test_the_target_spacing_is_the_median_but_finer_along_coarse_slices():
    fine = [volume(i, spacing=(1.0, 0.5 + 0.1 * i, 1.0)) for i in range(5)]
    assert plan_of(fine)["spacing_mm"] == (1.0, 0.7, 1.0)
    thick = [volume(i, spacing=(4.0 + i, 1.0, 1.0)) for i in range(5)]
    assert plan_of(thick)["spacing_mm"] == (4.4, 1.0, 1.0)
    assert plan_of([volume(0), volume(1)])["spacing_mm"] is None
    assert plan_of([volume(0), volume(1, spacing=None)])["spacing_mm"] is None


def test_many_small_structures_are_looked_for_at_full_resolution():
    cells = {"pieces": 40, "piece_area": 300.0}
    varied = [row(i, (256 if i % 2 else 1024,) * 2, **cells) for i in range(6)]
    assert plan_of(varied)["resize"] == "window"
    assert plan_of([row(i, (1024, 1024), **cells) for i in range(6)])["resize"] == "window"
    assert plan_of([row(i, (256, 256), **cells) for i in range(6)])["resize"] == "squeeze"


def test_ct_is_clipped_to_what_is_in_the_structures_and_skull_stripped_mri_scaled_where_it_is():
    air = (Intensities(-1000.0, -300.0, 400.0, 900.0),)
    organ = (Intensities(-20.0, 60.0, 30.0, 150.0),)
    ct = plan_of([volume(i, image=air, inside=organ) for i in range(3)])
    assert (ct["normalisation"], ct["intensity_range"]) == ("dataset", (-20.0, 150.0))
    named = plan_of([volume(i, inside=organ) for i in range(3)], channel_names=("CT",))
    assert named["normalisation"] == "dataset"
    assert plan_of([volume(i, zeros=0.7) for i in range(3)])["normalisation"] == "nonzero"
    mri = plan_of([volume(i, zeros=0.01) for i in range(3)])
    assert (mri["normalisation"], mri["intensity_range"]) == ("image", None)


def test_a_model_brings_its_architecture_and_how_it_reads_images():
    read = PreprocessConfig((128, 128), "letterbox", multiple=32)
    origin = Origin("moles", HyMUNetConfig(stem_stride=4), read)
    plan = plan_of([row(0), row(1)], TrainOptions(init="moles"), origin)
    assert (plan["preset"], plan["stem_stride"]) == (None, 4)
    assert (plan["resize"], plan["image_size"]) == ("letterbox", 128)
    windows = PreprocessConfig(None, "window", patch_size=(32, 64), spacing_mm=(1, 2), multiple=32)
    plan = plan_of([row(0)], TrainOptions(init="m"), replace(origin, preprocess=windows))
    assert (plan["patch_size"], plan["spacing_mm"]) == ((32, 64), (1, 2))
    # another kind of image: nothing is taken over, and its weights are refused where they are read
    assert plan_of([volume(0)], TrainOptions(init="m"), origin)["resize"] == "window"


def test_options_for_pictures_are_refused_for_volumes_and_sizes_need_all_axes():
    for given in ({"image_size": 64}, {"resize": "letterbox"}):
        with pytest.raises(HyMUNetError, match="these are volumes"):
            plan_of([volume(0)], TrainOptions(**given))
    with pytest.raises(HyMUNetError, match="has 2 numbers, and these images have 3 axes"):
        plan_of([volume(0)], TrainOptions(patch_size=(32, 32)))
    with pytest.raises(HyMUNetError, match="class_weights has 2 numbers, and there are 3 classes"):
        plan_of([row(0)], TrainOptions(class_weights=(1, 2), structures=2))


def test_more_cases_need_fewer_passes_and_unreadable_ones_do_not_count():
    few, many = plan_of([row(i) for i in range(20)]), plan_of([row(i) for i in range(900)])
    assert few["epochs"] > many["epochs"] >= 10
    with pytest.raises(HyMUNetError, match="no case of the data set can be read"):
        plan_of([CaseSurvey("a", problem="broken")])


def test_settings_repeat_every_option():
    names = {field.name for field in fields(TrainOptions)}
    settings = settle(TrainOptions(), plan_of([row(0), row(1)]))
    assert names <= {field.name for field in fields(settings)}


def test_cases_that_judge_have_no_say():
    air = (Intensities(-1000.0, -300.0, 400.0, 900.0),)

    def organ(high):
        return (Intensities(-20.0, 60.0, 30.0, high),)

    teach = [volume(i, image=air, inside=organ(150.0)) for i in range(4)]
    others = [volume(i, (90, 90, 90), (3.0, 1.0, 1.0), image=air, inside=organ(900.0))
              for i in range(4, 9)]  # fmt: skip
    ids = {one.id for one in teach}
    alone = plan_of(teach, teaching=ids)
    with_others = plan_of([*teach, *others], teaching=ids)
    assert with_others.choices == alone.choices
    by_split = plan_of(
        [*teach, *others],
        split={r.id: "train" if r.id in ids else "test" for r in [*teach, *others]},
    )
    assert by_split.choices == alone.choices


def test_a_model_brings_its_intensities_along_where_they_are_not_the_images_own():
    read = PreprocessConfig((64, 64), "squeeze", normalisation="image", clip=(5.0, 90.0))
    origin = Origin("scans", HyMUNetConfig(), read)
    plan = plan_of([row(0)], TrainOptions(init="scans"), origin)
    assert (plan["normalisation"], plan["intensity_range"]) == ("image", (5.0, 90.0))


def test_sizes_for_windows_and_for_squeezing_exclude_each_other():
    for given in (
        {"resize": "window", "image_size": 64},
        {"resize": "squeeze", "patch_size": (32, 32)},
        {"image_size": 64, "patch_size": (32, 32)},
    ):
        with pytest.raises(HyMUNetError, match=r"leave one of them out|give one of them"):
            plan_of([row(0)], TrainOptions(**given))


def test_smaller_batches_need_fewer_passes():
    assert passes(96, 8, False)[0] == 2 * passes(96, 4, False)[0]
    assert passes(96, 8, True)[0] < passes(96, 8, False)[0]


def test_a_spacing_is_refused_where_pictures_are_seen_whole():
    rows = [row(i, (400, 600)) for i in range(20)]
    with pytest.raises(HyMUNetError, match=r"--spacing-mm 0.5 0.5 .* seen whole.*--resize window"):
        plan_of(rows, TrainOptions(spacing_mm=(0.5, 0.5)))
    windows = TrainOptions(spacing_mm=(0.5, 0.5), resize="window")
    assert plan_of(rows, windows)["spacing_mm"] == (0.5, 0.5)


def test_structures_without_names_are_called_as_everywhere():
    one = plan_of([row(i) for i in range(3)]).to_json()["structures"]
    assert one["reason"] == "the masks hold 0, 1: foreground"
    several = plan_of([row(i, counts=((0, 9), (1, 3), (2, 1))) for i in range(3)])
    assert several.to_json()["structures"]["reason"] == "the masks hold 0, 1, 2: class 1, class 2"
