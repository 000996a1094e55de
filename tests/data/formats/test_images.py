"""Images in and out: every kind of pixel means the value that its type says."""

import io
import logging
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin, TiffTags

import sparsefield as sf
from sparsefield.core.errors import InputError
from sparsefield.data.formats.images import decode_image, load_image, save_image

H, W = 4, 5
RAMP = np.linspace(0, 1, H * W).reshape(H, W)
BYTES = np.random.default_rng(0).integers(0, 256, (H, W, 4), dtype=np.uint8)


def test_saved_image_is_read_back(tmp_path):
    image = np.random.default_rng(0).random((5, 7, 3))
    save_image(tmp_path / "a.png", image)
    np.testing.assert_allclose(load_image(tmp_path / "a.png"), image, atol=0.5 / 255 + 1e-6)


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1)])
def test_grey_images_are_written_and_read_as_rgb(tmp_path, shape):
    save_image(tmp_path / "a.png", np.full(shape, 2.0))
    np.testing.assert_array_equal(load_image(tmp_path / "a.png"), np.ones((5, 7, 3)))


def test_what_is_no_image_is_an_error(tmp_path):
    with pytest.raises(InputError, match="shape"):
        save_image(tmp_path / "a.png", np.zeros((5, 7, 2)))
    with pytest.raises(InputError, match="unknown image suffix"):
        save_image(tmp_path / "a.xyz", np.zeros((5, 7)))
    with pytest.raises(InputError, match="no file at"):
        load_image(tmp_path / "absent.png")
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(InputError, match="not a readable image"):
        load_image(tmp_path / "text.png")


# Values -------------------------------------------------------------------------------------


def wide(highest, kind, suffix):
    """Return an image of integers from 0 to `highest`, and the values that they stand for."""
    stored = np.rint(RAMP * highest).astype(kind)
    return Image.fromarray(stored), suffix, stored[..., None] / highest


def plain(mode, suffix=".png"):
    """Return an image of 8 bits in a mode, and its values as Pillow's pixels say them."""
    image = Image.fromarray(BYTES[..., :3]).convert("L" if mode in ("1", "LA") else "RGB")
    image = image.convert(mode)
    if mode == "CMYK":
        image = Image.fromarray(BYTES, "CMYK")
        cyan, black = BYTES[..., :3] / 255, BYTES[..., 3:] / 255
        return image, suffix, (1 - cyan) * (1 - black)
    if mode == "P":
        palette = np.array(image.getpalette()).reshape(-1, 3)
        return image, suffix, palette[np.asarray(image)] / 255
    values = np.asarray(image).reshape(H, W, -1).astype(float)
    if mode in ("LA", "RGBA"):
        values = values[..., :-1]
    return image, suffix, values if mode == "1" else values / 255


KINDS = {
    "16-bit PNG": wide(65535, np.uint16, ".png"),
    "16-bit TIFF": wide(65535, np.uint16, ".tif"),
    "16-bit PPM": wide(65535, np.uint16, ".ppm"),
    "32-bit TIFF": wide(2**31 - 1, np.int32, ".tif"),
    "float TIFF": (
        Image.fromarray(RAMP.astype(np.float32)),
        ".tif",
        RAMP.astype(np.float32)[..., None],
    ),
    "grey": plain("L"),
    "grey with alpha": plain("LA"),
    "one bit": plain("1"),
    "palette": plain("P"),
    "RGB": plain("RGB"),
    "RGB BMP": plain("RGB", ".bmp"),
    "RGB PPM": plain("RGB", ".ppm"),
    "RGBA": plain("RGBA"),
    "CMYK": plain("CMYK", ".tif"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_pixel_means_the_value_of_its_type(tmp_path, kind):
    image, suffix, expected = KINDS[kind]
    image.save(tmp_path / f"a{suffix}")
    obs = sf.read(tmp_path / f"a{suffix}", density=1)
    order = np.lexsort(obs.coords.numpy().T[::-1])
    found = obs.values.numpy()[order].reshape(expected.shape)
    np.testing.assert_allclose(found, expected, atol=0.6 / 255 if kind == "CMYK" else 1e-6)
    assert obs.grid == (H, W)
    rgb = decode_image(tmp_path / f"a{suffix}", "a")
    np.testing.assert_allclose(rgb / 255, np.broadcast_to(found, rgb.shape), atol=0.51 / 255)


def test_white_may_be_zero_in_wide_greys(tmp_path):
    stored = np.rint(RAMP * 65535).astype(np.uint16)
    Image.fromarray(stored).save(tmp_path / "a.tif", tiffinfo={262: 0})
    assert Image.open(tmp_path / "a.tif").tag_v2[262] == 0
    expected = 255 - np.rint(RAMP * 255)
    np.testing.assert_allclose(decode_image(tmp_path / "a.tif", "a")[..., 0], expected, atol=1)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.full((H, W), 7.5, np.float32), "floating-point numbers from 0 to 7.5"),
        (np.full((H, W), np.inf, np.float32), "floating-point numbers from 0 to inf"),
        (np.full((H, W), -5, np.int32), "signed integers from -5 to 0"),
        (np.full((H, W), 255, np.int32), "32-bit integers up to 255 only"),
    ],
)
def test_numbers_without_a_known_range_are_refused(tmp_path, array, words):
    Image.fromarray(array).save(tmp_path / "a.tif")
    with pytest.raises(InputError, match=words) as error:
        sf.read(tmp_path / "a.tif", density=1)
    assert "\n" not in str(error.value)
    with pytest.raises(InputError, match=words):
        decode_image(tmp_path / "a.tif", "a")


def test_colours_of_another_kind_are_refused(tmp_path):
    Image.fromarray(BYTES[..., :3], "LAB").save(tmp_path / "a.tif")
    with pytest.raises(InputError, match="colours of the kind LAB; convert it to RGB"):
        sf.read(tmp_path / "a.tif", density=1)


def test_several_images_in_one_file_are_refused(tmp_path):
    page = Image.fromarray(BYTES[..., :3])
    page.save(tmp_path / "a.tif", save_all=True, append_images=[page])
    with pytest.raises(InputError, match="holds 2 images"):
        sf.read(tmp_path / "a.tif", density=1)


# Holes --------------------------------------------------------------------------------------


def known_cells(obs):
    """Return the observed cells of an image as a mask."""
    where = (obs.coords.numpy() + 1) / 2 * obs.grid
    mask = np.zeros(obs.grid, bool)
    mask[tuple(where.astype(int).T)] = True
    return mask


def test_holes_of_every_kind_are_unknown(tmp_path):
    hole = np.zeros((H, W), bool)
    hole[1, 2] = hole[3, 4] = True
    alpha = np.where(hole, 0, 255).astype(np.uint8)
    Image.fromarray(np.dstack([BYTES[..., :3], alpha])).save(tmp_path / "alpha.png")
    Image.fromarray(np.dstack([BYTES[..., 0], alpha]), "LA").save(tmp_path / "grey.png")
    palette = np.where(hole, 3, 1).astype(np.uint8)
    indexed = Image.fromarray(palette, "P")
    indexed.putpalette([0, 0, 0, 9, 8, 7, 1, 1, 1, 200, 0, 0])
    indexed.save(tmp_path / "palette.png", transparency=3)
    wide_grey = np.where(hole, 777, 30000).astype(np.uint16)
    Image.fromarray(wide_grey).save(tmp_path / "wide.png", transparency=777)
    Image.fromarray(np.where(hole, np.nan, 0.5).astype(np.float32)).save(tmp_path / "nan.tif")
    for name in ("alpha.png", "grey.png", "palette.png", "wide.png", "nan.tif"):
        assert np.array_equal(known_cells(sf.read(tmp_path / name)), ~hole), name


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif"])
def test_images_and_their_holes_come_out_upright(tmp_path, suffix, orientation):
    upright = BYTES.copy()
    upright[..., 3] = 255
    upright[0, 1, 3] = upright[2, 0, 3] = 0
    # How the camera stores what it saw, by the words of the EXIF standard (row 0, column 0).
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: upright.transpose(1, 0, 2)[::-1],
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: upright.transpose(1, 0, 2)[:, ::-1],
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a{suffix}"
    lossless = {"lossless": True, "exact": True} if suffix == ".webp" else {}
    Image.fromarray(np.ascontiguousarray(stored)).save(path, exif=exif, **lossless)
    obs = sf.read(path)
    assert np.array_equal(known_cells(obs), upright[..., 3] > 0)
    np.testing.assert_array_equal(decode_image(path, "a"), upright[..., :3])


def test_a_photograph_of_a_camera_is_upright(tmp_path):
    scene = np.zeros((16, 32, 3), np.uint8)
    scene[:, :16] = 255
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.fromarray(scene).save(tmp_path / "a.jpg", exif=exif, quality=95)
    found = decode_image(tmp_path / "a.jpg", "a")
    assert found[:, :14].max() < 30 and found[:, 18:].min() > 225


def test_damaged_metadata_turn_no_image(tmp_path):
    Image.fromarray(BYTES[..., :3]).save(tmp_path / "a.png", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    np.testing.assert_array_equal(decode_image(tmp_path / "a.png", "a"), BYTES[..., :3])


# What counts as observed ------------------------------------------------------------------------


def test_an_intact_image_loses_nothing_unasked(tmp_path):
    Image.fromarray(BYTES[..., :3]).save(tmp_path / "a.png")
    with pytest.raises(InputError, match="no transparent pixels.*--density") as error:
        sf.read(tmp_path / "a.png")
    assert "\n" not in str(error.value)
    assert sf.read(tmp_path / "a.png", density=0.5, seed=3).count == H * W // 2


def test_density_is_not_used_where_pixels_are_transparent(tmp_path, caplog):
    pixels = BYTES.copy()
    pixels[..., 3] = 255
    pixels[0, 0, 3] = 0
    Image.fromarray(pixels).save(tmp_path / "a.png")
    with caplog.at_level(logging.INFO, logger="sparsefield"):
        assert sf.read(tmp_path / "a.png", density=0.2).count == H * W - 1
    assert "density is not used" in caplog.text


def test_nothing_known_is_an_error(tmp_path):
    pixels = BYTES.copy()
    pixels[..., 3] = 0
    Image.fromarray(pixels).save(tmp_path / "a.png")
    with pytest.raises(InputError, match="all pixels are transparent"):
        sf.read(tmp_path / "a.png")


def test_columns_of_an_image_are_refused(tmp_path):
    Image.fromarray(BYTES).save(tmp_path / "a.png")
    for options in ({"coords": "x"}, {"value": "red"}, {"noise": "sd"}):
        with pytest.raises(InputError, match="an image"):
            sf.read(tmp_path / "a.png", density=1, **options)
    assert sf.read(tmp_path / "a.png", density=1, noise=0.1).noise.unique().item() == np.float32(
        0.1
    )


# Hostile files ------------------------------------------------------------------------------


def test_formats_that_are_not_named_are_not_opened(tmp_path, monkeypatch):
    monkeypatch.setattr("subprocess.Popen", None)  # Ghostscript would be one
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n"
    (tmp_path / "a.png").write_bytes(postscript)
    buffer = io.BytesIO()
    Image.fromarray(BYTES[..., :3]).save(buffer, "GIF")
    (tmp_path / "b.png").write_bytes(buffer.getvalue())
    for name in ("a.png", "b.png"):
        with pytest.raises(InputError, match="not one of PNG, JPEG"):
            sf.read(tmp_path / name, density=1)


def png_that_claims(side):
    """Return a PNG of side x side pixels whose data end after a few rows."""
    header = struct.pack(">IIBBBBB", side, side, 8, 6, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(10**6))), (b"IEND", b""))
    parts = (
        struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("side", [13_000, 60_000])
@pytest.mark.filterwarnings("error")
def test_a_small_file_with_huge_pixels_is_refused_before_they_are_made(tmp_path, side):
    (tmp_path / "a.png").write_bytes(png_that_claims(side))
    tracemalloc.start()
    with pytest.raises(InputError, match=r"would (expand|take)|too many pixels") as error:
        sf.read(tmp_path / "a.png", density=0.2)
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", [np.float32, np.uint16, np.int32])
def test_a_geotiff_of_measurements_is_no_picture(tmp_path, kind):
    """Its places would be lost without a word; one of 8 bits is a picture."""
    keys = TiffImagePlugin.ImageFileDirectory_v2()
    keys[34735] = (1, 1, 0, 1, 2048, 0, 1, 4326)
    keys.tagtype[34735] = TiffTags.SHORT
    path = tmp_path / "dem.tif"
    Image.fromarray(np.eye(4, 5).astype(kind)).save(path, tiffinfo=keys)
    with pytest.raises(InputError, match="is a GeoTIFF.*gdal_translate -of netCDF"):
        sf.read(path, density=0.5)
    Image.fromarray(np.eye(4, 5).astype(np.uint8)).save(path, tiffinfo=keys)
    assert sf.read(path, density=0.5).grid == (4, 5)
