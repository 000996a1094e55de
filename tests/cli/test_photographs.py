"""What a photographer asks of the command line."""

import numpy as np
import pytest
from PIL import Image, ImageCms

RNG = np.random.default_rng(3)
COLOURS = RNG.integers(0, 250, (12, 17, 3), dtype=np.uint8)
MISSING = RNG.random((12, 17)) < 0.3


def masked(how):
    """Write a mask in one of several ways; return its options."""
    if how == "white":
        Image.fromarray(np.where(MISSING, 255, 0).astype(np.uint8)).save("mask.png")
        return ["--mask", "mask.png"]
    if how == "transparent":
        alpha = np.dstack([np.zeros_like(COLOURS), np.where(MISSING, 0, 255)]).astype(np.uint8)
        Image.fromarray(alpha).save("mask.png")
        return ["--mask", "mask.png"]
    red = np.where(MISSING[..., None], np.array([255, 0, 0]), COLOURS).astype(np.uint8)
    Image.fromarray(red).save("mask.png")
    return ["--mask", "mask.png", "--mask-colour", "red"]


@pytest.mark.parametrize("how", ["white", "transparent", "colour"])
def test_what_a_mask_leaves_is_kept_to_the_bit(cli, checkpoint, how):
    Image.fromarray(COLOURS).save("in.png")
    call = ("reconstruct", "in.png", "--model", checkpoint(), *masked(how))
    seen = cli(*call, "--out", "out.png")
    assert seen.code == 0, seen.err
    assert f"from {(~MISSING).sum()} points" in seen.out
    out = np.asarray(Image.open("out.png"))
    assert np.array_equal(out[~MISSING], COLOURS[~MISSING])
    assert not np.array_equal(out[MISSING], COLOURS[MISSING])


def test_a_colour_of_the_image_may_say_what_is_missing(cli, checkpoint):
    painted = np.where(MISSING[..., None], np.array([255, 0, 255], np.uint8), COLOURS)
    Image.fromarray(painted.astype(np.uint8)).save("in.png")
    call = ("reconstruct", "in.png", "--model", checkpoint(), "--mask-colour", "#ff00ff")
    assert cli(*call, "--out", "out.png").code == 0
    out = np.asarray(Image.open("out.png"))
    assert np.array_equal(out[~MISSING], COLOURS[~MISSING])


@pytest.mark.parametrize(
    ("mask", "options", "message"),
    [
        (np.zeros((12, 17), np.uint8), [], "nothing is missing; a mask is white or transparent"),
        (np.full((12, 17), 255, np.uint8), [], "transparent or masked, so nothing is known"),
        (np.zeros((17, 12), np.uint8), [], "the mask has 17 x 12 pixels, the image 12 x 17"),
        (np.zeros((12, 17), np.uint8), ["--mask-colour", "red"], "no pixel has the colour red"),
        (np.zeros((12, 17), np.uint8), ["--mask-colour", "rot"], "'rot' is no colour"),
    ],
)
def test_a_mask_that_says_nothing_is_refused(cli, checkpoint, mask, options, message):
    Image.fromarray(COLOURS).save("in.png")
    Image.fromarray(mask).save("mask.png")
    call = ("reconstruct", "in.png", "--model", checkpoint(), "--mask", "mask.png", *options)
    seen = cli(*call, "--out", "out.png")
    assert seen.code == 2
    assert message in seen.err


def test_profile_metadata_and_orientation_are_kept(cli, checkpoint):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 3, "a camera"
    image = Image.fromarray(COLOURS[::-1, ::-1])
    image.save("in.png", icc_profile=profile, exif=exif)
    call = ("reconstruct", "in.png", "--model", checkpoint(), *masked("white"))
    for name in ("out.png", "out.jpg"):
        assert cli(*call, "--out", name).code == 0
        out = Image.open(name)
        assert out.info["icc_profile"] == profile
        assert out.getexif().get(0x010F) == "a camera"
        assert out.getexif().get(0x0112, 1) == 1
    out = np.asarray(Image.open("out.png"))
    assert np.array_equal(out[~MISSING], COLOURS[~MISSING])


def test_greys_keep_their_bits(cli, checkpoint):
    wide = RNG.integers(0, 65536, (12, 17), dtype=np.uint16)
    Image.fromarray(wide).save("wide.png")
    Image.fromarray(COLOURS[..., 0]).save("grey.png")
    model = checkpoint("grey.safetensors", channels=1)
    for name, kept in (("wide", wide), ("grey", COLOURS[..., 0])):
        options = ("--model", model, *masked("white"), "--out", "out.png")
        assert cli("reconstruct", f"{name}.png", *options).code == 0
        out = np.asarray(Image.open("out.png"))
        assert out.dtype == kept.dtype
        assert np.array_equal(out[~MISSING], kept[~MISSING])


def test_transparency_stays_where_it_was_partial(cli, checkpoint):
    alpha = np.where(MISSING, 0, 200).astype(np.uint8)
    Image.fromarray(np.dstack([COLOURS, alpha])).save("in.png")
    assert cli("reconstruct", "in.png", "--model", checkpoint(), "--out", "out.png").code == 0
    out = np.asarray(Image.open("out.png"))
    assert np.array_equal(out[..., 3], np.where(MISSING, 255, 200))
    assert np.array_equal(out[~MISSING][:, :3], COLOURS[~MISSING])


def test_several_photographs_go_into_a_folder(cli, checkpoint):
    for name in ("a.png", "b.png"):
        Image.fromarray(COLOURS).save(name)
    call = ("reconstruct", "a.png", "b.png", "--model", checkpoint(), *masked("white"))
    seen = cli(*call, "--out", "mended")
    assert seen.code == 0, seen.err
    assert np.array_equal(*(np.asarray(Image.open(f"mended/{n}.png")) for n in "ab"))
    seen = cli(*call, "--out", ".")
    assert seen.code == 2
    assert "a.png" in seen.err
