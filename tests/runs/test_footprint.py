import pytest

from nayer_cli.runs import footprint
from nayer_cli.runs.footprint import BATCH, CODES, EVALUATION, STUDENT, WIDTH, Part, Sizes, fit, peak, peaks

MB, GB = 10**6, 10**9
RESNET = Part(47 * MB, 22 * MB, 3 * MB)
WANTED = {BATCH: 100, STUDENT: 100, EVALUATION: 250, WIDTH: 64, CODES: 1000}


def deep(batch, width, codes):
    """Like the generator for 224 pixels: mostly its first linear layer, and activations at full size."""
    return Part(100 * MB * width * codes // 64_000, 53 * MB * width // 64)


def sizes(network=RESNET, **more):
    return Sizes(image=602_112, teacher=network, student=network, **{"generator": deep, **more})


def test_what_fits_stays_as_it_is():
    assert fit(sizes(), WANTED, (), 16 * GB) == WANTED


@pytest.mark.parametrize("limit", [3 * GB, 4 * GB, 8 * GB])
def test_a_choice_keeps_within_the_limit_and_uses_it(limit):
    chosen = fit(sizes(), WANTED, (), limit)
    assert 0.85 * limit < peak(sizes(), chosen) <= limit
    assert (chosen[WIDTH], chosen[CODES]) == (64, 1000)
    assert all(chosen[key] < WANTED[key] or limit == 8 * GB for key in (BATCH, STUDENT))


def test_each_phase_gives_up_no_more_than_it_must():
    chosen = fit(sizes(), WANTED, (), 4 * GB)
    for key, phase in ((BATCH, "synthesis"), (STUDENT, "student"), (EVALUATION, "evaluation")):
        more = {**chosen, key: chosen[key] + footprint.FOUR}
        assert chosen[key] == WANTED[key] or peaks(sizes(), more)[phase] > 4 * GB
        assert chosen[key] % footprint.FOUR == 0 or chosen[key] == WANTED[key]


def test_the_generator_is_narrower_where_a_round_would_have_hardly_an_image():
    large = sizes(Part(100 * MB, 130 * MB, 10 * MB))
    chosen = fit(large, WANTED, (), 4 * GB)
    assert (chosen[WIDTH], chosen[CODES]) == (32, 500)
    assert footprint.ENOUGH <= chosen[BATCH] < 12


def test_what_was_given_is_never_changed():
    for key, value in WANTED.items():
        assert fit(sizes(), WANTED, (key,), 2 * GB)[key] == value
    assert fit(sizes(), WANTED, tuple(WANTED), GB) == WANTED


def test_a_given_batch_makes_the_generator_narrower():
    chosen = fit(sizes(), {**WANTED, BATCH: 36}, (BATCH,), 4 * GB)
    assert (chosen[BATCH], chosen[WIDTH], chosen[CODES]) == (36, 32, 500)


def test_nothing_fits_into_nothing():
    assert fit(sizes(), WANTED, (), 1) == {BATCH: 2, STUDENT: 2, EVALUATION: 2, WIDTH: 16, CODES: 250}


def test_a_method_without_a_batch_of_its_own_makes_as_many_images_as_are_learned():
    wanted = {key: value for key, value in WANTED.items() if key != BATCH}
    chosen = fit(sizes(), wanted, (), 4 * GB)
    assert chosen[STUDENT] == fit(sizes(), WANTED, (), 4 * GB)[BATCH]
    assert peak(sizes(), chosen) <= 4 * GB


def test_pixels_that_learn_and_real_images_have_no_generator():
    wanted = {BATCH: 64, STUDENT: 100, EVALUATION: 250}
    pixels, real = sizes(generator=None), sizes(generator=None, makes_images=False)
    assert fit(pixels, wanted, (), 4 * GB)[BATCH] < 64
    assert fit(real, {STUDENT: 100, EVALUATION: 250}, (), 4 * GB)[STUDENT] < 100
    assert "synthesis" not in peaks(real, wanted)


def test_images_in_memory_count():
    assert peak(sizes(bank=GB), WANTED) == peak(sizes(), WANTED) + GB


def test_where_nothing_learns_the_student_takes_no_part():
    still = sizes(learns=False)
    assert peaks(still, WANTED).keys() == {"synthesis", "evaluation"}
    chosen = fit(still, WANTED, (), 4 * GB)
    assert chosen[STUDENT] == WANTED[STUDENT]
    assert chosen[BATCH] > fit(sizes(), WANTED, (), 4 * GB)[BATCH]
