"""The server through its addresses: what a browser sends, and what comes back."""

import asyncio
import io
import json
import threading
import time
from urllib.parse import quote

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("starlette")
pytest.importorskip("httpx")

from starlette.testclient import TestClient

import sparsefield as sf
from sparsefield.data import formats
from sparsefield.inference.loading import load
from sparsefield.web import app as web
from sparsefield.web.app import build_app
from sparsefield.web.aside import Aside
from sparsefield.web.models import Models
from sparsefield.web.samples import SAMPLES
from sparsefield.web.uploads import KEPT
from sparsefield.web.work import Tools

HEIGHT, WIDTH = 12, 17


@pytest.fixture(scope="module")
def application():
    return build_app()


@pytest.fixture(scope="module")
def client(application):
    with TestClient(application) as client:
        yield client


def png(known, seed=0):
    """Encode a smooth picture whose unknown pixels are transparent."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    colour = np.stack([rows * 20, columns * 14, rows * 9 + columns * 5], -1).astype(np.uint8)
    buffer = io.BytesIO()
    alpha = np.where(known, 255, 0).astype(np.uint8)
    Image.fromarray(np.dstack([colour, alpha]), "RGBA").save(buffer, "PNG")
    return buffer.getvalue()


def mask(share=0.4):
    return np.random.default_rng(1).random((HEIGHT, WIDTH)) < share


def submit(client, data, name="painted.png", **options):
    address = f"/api/jobs?name={name}&options={quote(json.dumps(options))}"
    return client.post(address, content=data)


def result(client, job):
    """Wait for a job as the page does: by its stream of events."""
    with client.stream("GET", f"/api/jobs/{job['id']}/events") as stream:
        events = [json.loads(line[6:]) for line in stream.iter_lines() if line.startswith("data:")]
    assert events[-1]["state"] in ("done", "failed", "cancelled")
    return events[-1]


def array(client, job, name, shape):
    data = client.get(f"/api/jobs/{job['id']}/arrays/{quote(name)}")
    assert data.status_code == 200
    return np.frombuffer(data.content, "<f4").reshape(shape)


def test_the_page_and_all_it_needs_come_from_here(client):
    page = client.get("/")
    assert page.status_code == 200
    assert "default-src 'self'" in page.headers["content-security-policy"]
    for kind in ("http://", "https://", "//"):
        assert f'src="{kind}' not in page.text and f'href="{kind}' not in page.text
    for path in web.STATIC.iterdir():
        assert client.get(f"/static/{path.name}").status_code == 200
        text = path.read_text()
        assert "http://" not in text.replace("http://www.w3.org/", "") and "https://" not in text


def test_options_say_what_there_is(client):
    options = client.get("/api/options").json()
    assert options["models"][:2] == ["photographs", "universal"]
    assert set(options["samples"]) == set(SAMPLES)


@pytest.fixture(scope="module")
def finished(client):
    """A painted picture, reconstructed with samples and baselines."""
    options = {"samples": 2, "seed": 3, "baselines": ["nearest", "tps"], "model": "default"}
    answer = submit(client, png(mask()), **options)
    assert answer.status_code == 202
    return result(client, answer.json())


def test_a_painted_picture_is_what_the_library_makes_of_it(client, finished, tmp_path):
    assert finished["state"] == "done", finished.get("error")
    facts = finished["result"]
    assert facts["shape"] == [HEIGHT, WIDTH] and facts["image"]
    assert facts["observed"] == mask().sum()
    (tmp_path / "painted.png").write_bytes(png(mask()))
    obs = sf.read(tmp_path / "painted.png")
    expected = sf.load("default").condition(obs).sample(sf.Grid(HEIGHT, WIDTH), 2, seed=3)
    shape = (HEIGHT, WIDTH, 3)
    wanted = {"mean": expected.mean, "std": expected.std, "sample 1": expected.samples[1]}
    for name, values in wanted.items():
        found = array(client, finished, name, shape)
        np.testing.assert_allclose(found, expected.on_grid(values), atol=1e-5)


def test_baselines_stand_beside_with_their_times(client, finished):
    facts = finished["result"]
    assert list(facts["methods"]) == ["default", "nearest", "tps"]
    assert all(each["seconds"] > 0 for each in facts["methods"].values())
    known = mask()
    near = array(client, finished, "nearest", (HEIGHT, WIDTH, 3))
    pixels = np.asarray(Image.open(io.BytesIO(png(known))).convert("RGB")) / 255
    np.testing.assert_allclose(near[known], pixels[known], atol=1e-6)
    assert {tuple(p) for p in near.reshape(-1, 3)} <= {tuple(p) for p in near[known]}


def test_steps_lead_to_the_sample(client, finished):
    count = finished["result"]["steps"]
    steps = array(client, finished, "steps", (count, HEIGHT, WIDTH, 3))
    sample = array(client, finished, "sample 0", (HEIGHT, WIDTH, 3))
    distances = [np.abs(step - sample)[~mask()].mean() for step in steps]
    assert count == 10 and distances[-1] < distances[0] / 2


@pytest.mark.parametrize("suffix", [".npz", ".png"])
def test_fields_are_downloaded_as_the_library_writes_them(client, finished, suffix):
    data = client.get(f"/api/jobs/{finished['id']}/field{suffix}")
    assert data.status_code == 200
    assert f'filename="field{suffix}"' in data.headers["content-disposition"]
    if suffix == ".npz":
        with np.load(io.BytesIO(data.content)) as arrays:
            assert arrays["samples"].shape == (2, HEIGHT, WIDTH, 3)
    else:
        assert Image.open(io.BytesIO(data.content)).size == (WIDTH, HEIGHT)
    assert client.get(f"/api/jobs/{finished['id']}/field.exe").status_code == 404


def test_an_upload_is_described_and_shown(client):
    answer = client.post("/api/uploads?name=my photo.png", content=png(mask()))
    facts = answer.json()
    assert (facts["kind"], facts["width"], facts["height"]) == ("image", WIDTH, HEIGHT)
    shown = client.get(f"/api/uploads/{facts['id']}/picture.png")
    alpha = np.asarray(Image.open(io.BytesIO(shown.content)))[..., 3]
    assert ((alpha > 0) == mask()).all()


def test_a_table_becomes_stations(client):
    table = b"y,x,value\n0.5,-0.25,3.5\n-0.75,0.125,4\n"
    facts = client.post("/api/uploads?name=t.csv", content=table).json()
    assert facts["kind"] == "points" and facts["columns"] == ["y", "x", "value"]
    assert facts["axes"] == ["y", "x"]
    assert facts["places"] == [[0.5, -0.25], [-0.75, 0.125]]
    assert facts["values"] == [[3.5], [4.0]]


def test_columns_may_be_named_afterwards(client):
    table = b"station,down,along,rain\n1,0.5,-0.25,3.5\n2,-0.75,0.125,4\n3,0,0,1\n"
    facts = client.post("/api/uploads?name=rain.csv", content=table).json()
    assert "rain.csv" in facts["hint"] and "/" not in facts["hint"].replace("and/or", "")
    options = quote(json.dumps({"coords": ["down", "along"], "value": ["rain"]}))
    found = client.get(f"/api/uploads/{facts['id']}/stations?options={options}").json()
    assert found["values"] == [[3.5], [4.0], [1.0]]
    options = quote(json.dumps({"coords": ["up", "along"], "value": ["rain"]}))
    answer = client.get(f"/api/uploads/{facts['id']}/stations?options={options}")
    assert answer.status_code == 400 and "no column 'up'" in answer.json()["error"]


SPHERE = b"lat,lon,rain\n50,170,3.5\n52,-175,4\n47,179,1\n49,-179,2\n"


def test_the_baselines_on_offer_are_those_that_can_run(client):
    """Cubics know the plane and no sphere; a grid of pixels alone has biharmonics."""
    plane = SPHERE.replace(b"lat,lon", b"y,x")
    offered = {
        name: set(client.post(f"/api/uploads?name={name}", content=data).json()["baselines"])
        for name, data in {"a.png": png(mask()), "plane.csv": plane, "sphere.csv": SPHERE}.items()
    }
    assert "cubic" in offered["a.png"] & offered["plane.csv"]
    assert offered["sphere.csv"] == {"nearest", "idw", "linear", "tps", "kriging"}
    assert "biharmonic" not in offered["plane.csv"] | offered["sphere.csv"]
    options = {"model": "universal", "size": [3, 4], "baselines": sorted(offered["sphere.csv"])}
    done = result(client, submit(client, SPHERE, "sphere.csv", **options).json())
    assert done["state"] == "done", done.get("error")
    assert set(done["result"]["methods"]) == {"universal", *offered["sphere.csv"]}


def test_a_baseline_that_cannot_run_is_refused_with_those_that_can(client):
    options = {"model": "universal", "size": [3, 4], "baselines": ["cubic"]}
    done = result(client, submit(client, SPHERE, "sphere.csv", **options).json())
    assert done["state"] == "failed"
    assert "no baseline 'cubic' here; there are nearest" in done["error"]


@pytest.mark.parametrize("name", SAMPLES)
def test_every_sample_is_read(client, name):
    if name != "stations":
        pytest.importorskip("skimage")
    facts = client.post(f"/api/samples/{name}").json()
    assert facts["kind"] in ("image", "points") and "error" not in facts


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("a.png", b"\x89PNG\r\n\x1a\n broken", "a.png"),
        ("a.png", b"", "empty"),
        ("a.exe", b"MZ", "suffix"),
        ("t.csv", b"y,x,v\n1,2\n", "line 2 has 2 cells"),
        ("t.npz", b"PK\x03\x04 broken", "t.npz"),
        ("../../etc/passwd.csv", b"\0\0", "passwd.csv"),
    ],
)
def test_files_that_cannot_be_read_are_refused_in_one_line(client, name, data, says):
    answer = client.post(f"/api/uploads?name={quote(name)}", content=data)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (
        says in error and "\n" not in error and "/tmp" not in error and "sparsefield-" not in error
    )


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"model": "nobody"}, "no bundled model 'nobody'"),
        ({"model": "../../x"}, "no bundled model"),
        ({"samples": 1000}, "samples go from 0 to"),
        ({"size": [0, 4]}, "a grid has 1 to"),
        ({"size": [5000, 5000]}, "a grid has 1 to"),
        ({"other": 1}, "cannot be understood"),
        ({"baselines": "tps"}, "cannot be understood"),
        ({"noise": [1]}, "noise is a number"),
    ],
)
def test_odd_requests_are_refused(client, options, says):
    answer = submit(client, png(mask()), **options)
    assert answer.status_code == 400
    assert says in answer.json()["error"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"size": [1000, 1000], "samples": 60}, "more than a page can show"),
        ({"baselines": ["magic"]}, "no baseline 'magic'"),
        ({"size": [8]}, "the data have 2 axes"),
    ],
)
def test_what_does_not_fit_the_data_fails_with_a_reason(client, options, says):
    done = result(client, submit(client, png(mask()), **options).json())
    assert done["state"] == "failed" and says in done["error"]


def test_an_intact_picture_says_what_to_do(client):
    done = result(client, submit(client, png(mask(2.0))).json())
    assert done["state"] == "failed"
    assert "painted.png" in done["error"] and "transparent" in done["error"]


def test_large_files_are_refused_while_they_come(client, monkeypatch):
    monkeypatch.setattr(web, "MOST_BYTES", 1000)
    answer = client.post("/api/uploads?name=a.png", content=b"x" * 1001)
    assert answer.status_code == 413 and "MiB" in answer.json()["error"]


def test_users_see_their_own_things_only(client, application, finished):
    other = TestClient(application)
    for path in ("", "/arrays/mean", "/field.npz", "/events"):
        assert other.get(f"/api/jobs/{finished['id']}{path}").status_code == 404
    mine = client.post("/api/uploads?name=a.png", content=png(mask())).json()
    assert other.get(f"/api/uploads/{mine['id']}/picture.png").status_code == 404
    assert other.post(f"/api/jobs/{finished['id']}/cancel").status_code == 404


def test_other_sites_and_other_names_are_refused(client):
    headers = {"origin": "http://evil.example"}
    answer = client.post("/api/uploads?name=a.png", content=png(mask()), headers=headers)
    assert answer.status_code == 403
    assert client.get("/", headers={"host": "evil.example"}).status_code == 400
    same = {"origin": "http://testserver"}
    assert client.post("/api/samples/stations", headers=same).status_code == 200


def test_a_running_job_is_cancelled(client):
    job = submit(client, png(mask()), size=[180, 180], samples=16).json()
    for _ in range(300):
        state = client.get(f"/api/jobs/{job['id']}").json()
        if state["state"] == "running" and state["share"] > 0:
            break
        time.sleep(0.02)
    client.post(f"/api/jobs/{job['id']}/cancel")
    assert result(client, job)["state"] == "cancelled"
    assert client.get(f"/api/jobs/{job['id']}/arrays/mean").status_code == 404


class Sleeper(Aside):
    """Sleeps for ten minutes instead of computing a baseline."""

    def call(self, check, function, *args):
        return super().call(check, time.sleep, 600)


def sleep_over(name):
    time.sleep(600)


@pytest.mark.parametrize(
    ("tools", "doing"),
    [
        (Tools(models=Models(sleep_over)), "loading default"),
        (Tools(aside=Sleeper()), "nearest"),
    ],
    ids=["loading", "baseline"],
)
def test_a_job_is_cancelled_at_once_in_what_takes_long(tools, doing):
    with TestClient(build_app(tools=tools)) as client:
        job = submit(client, png(mask()), baselines=["nearest"]).json()
        for _ in range(1500):
            if client.get(f"/api/jobs/{job['id']}").json()["doing"] == doing:
                break
            time.sleep(0.02)
        start = time.monotonic()
        client.post(f"/api/jobs/{job['id']}/cancel")
        assert result(client, job)["state"] == "cancelled"
        assert time.monotonic() - start < 5


@pytest.mark.parametrize("path", ["/api/uploads", "/api/jobs"])
def test_who_goes_away_while_they_send_leaves_nothing(path, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    app, sent = build_app(), []
    messages = [
        {"type": "http.request", "body": png(mask())[:50], "more_body": True},
        {"type": "http.disconnect"},
    ]

    async def receive():
        return messages.pop(0) if messages else {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": path, "query_string": b"name=a.png"}
    asyncio.run(app(scope | {"headers": [(b"host", b"localhost")]}, receive, send))
    assert all(message.get("status", 400) == 400 for message in sent)
    assert not list(tmp_path.rglob("*.png"))
    app.state.server.close()


def test_a_job_that_waits_keeps_its_file():
    gate = threading.Event()

    def wait(name):
        assert gate.wait(60)
        return load(name)

    with TestClient(build_app(tools=Tools(models=Models(wait)))) as client:
        first, second = (submit(client, png(mask())).json() for _ in range(2))
        for _ in range(KEPT + 1):
            client.post("/api/uploads?name=a.png", content=png(mask()))
        gate.set()
        assert [result(client, job)["state"] for job in (first, second)] == ["done", "done"]


def test_files_are_let_go_when_nobody_needs_them(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with TestClient(build_app()) as client:
        for _ in range(KEPT + 1):
            client.post("/api/uploads?name=a.png", content=png(mask()))
        for size in ([], [1, 2, 3]):  # done, failed
            result(client, submit(client, png(mask()), size=size).json())
        assert len(list(tmp_path.rglob("*.png"))) == KEPT


def test_only_what_can_be_written_is_offered(client, monkeypatch):
    offered = client.get("/api/options").json()["outputs"]
    assert ".npz" in offered and ".zarr" not in offered
    job = submit(client, png(mask())).json()
    result(client, job)
    for suffix in offered:
        assert client.get(f"/api/jobs/{job['id']}/field{suffix}").status_code == 200, suffix
    assert client.get(f"/api/jobs/{job['id']}/field.zarr").status_code == 404
    monkeypatch.setattr(formats, "find_spec", lambda package: package != "netCDF4")
    assert ".nc" not in client.get("/api/options").json()["outputs"]


def test_the_files_go_with_the_server(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with TestClient(build_app()) as client:
        client.post("/api/uploads?name=a.png", content=png(mask()))
        assert list(tmp_path.rglob("*.png"))
    assert not list(tmp_path.iterdir())
