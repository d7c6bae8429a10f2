"""The local server: what it gives, what it refuses."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import re
import socket
import subprocess
import sys
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from caffe_fcn.cli import call
from caffe_fcn.conversion import convert
from caffe_fcn.errors import CaffeError
from caffe_fcn.segment import Segmenter
from caffe_fcn.serve import MIB, Limits, Refused, application, decode, is_loopback
from tests.conftest import HERE
from tests.small_nets import NETS

pytest.importorskip("starlette", reason="Starlette is not installed: pip install 'caffe-fcn[serve]'")
uvicorn = pytest.importorskip("uvicorn", reason="uvicorn is not installed: pip install 'caffe-fcn[serve]'")
NET = NETS / "fcn8s-thin-1px.prototxt"
LIMITS = Limits(upload=MIB, pixels=100_000, waiting=8, whole=5_000)


@contextlib.contextmanager
def serving(segmenter: Segmenter, limits: Limits = LIMITS):
    """The server in a thread; gives its port."""
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen()  # so that whoever asks at once is let in
    config = uvicorn.Config(application(segmenter, limits), log_level="error", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        yield listening.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(10)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("serve") / "net.onnx"
    convert(NET, NET.with_suffix(".caffemodel"), path, verify=False)
    return path


@pytest.fixture(scope="module")
def segmenter(model):
    return Segmenter(model, "cpu")


@pytest.fixture(scope="module")
def port(segmenter):
    with serving(segmenter) as number:
        yield number


def ask(port: int, path: str, body: object = None, headers: dict | None = None, method: str = ""):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request(method or ("POST" if body is not None else "GET"), path, body, headers or {})
    answer = connection.getresponse()
    return answer.status, answer.read(), answer.headers


def picture(height: int = 40, width: int = 53, kind: str = "PNG") -> bytes:
    rgb = np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(rgb).save(out, kind)
    return out.getvalue()


def test_the_page(port):
    status, body, headers = ask(port, "/")
    assert status == 200
    assert b"Drop an image here" in body
    assert b"net.onnx" in body
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert not re.findall(rb"""(?:src|href)=["'](?!#|data:)""", body)


def test_an_image_comes_back_labelled(port, segmenter):
    status, body, _ = ask(port, "/segment?name=a.png", picture())
    assert status == 200
    found = json.loads(body)
    assert found["size"] == [40, 53]
    assert found["name"] == "a.png"
    (output,) = found["outputs"]
    image = np.asarray(Image.open(io.BytesIO(picture())))
    expected = segmenter(image)[0]
    assert {c["name"]: c["pixels"] / 2120 for c in output["classes"]} == expected.areas()
    assert 0 < output["sure"] <= 1


def test_sixteen_bits_a_pixel_are_not_cut_off():
    deep = np.linspace(0, 65535, 40 * 50).reshape(40, 50).astype(np.uint16)
    out = io.BytesIO()
    Image.fromarray(deep).save(out, "PNG")
    np.testing.assert_array_equal(decode(out.getvalue(), 10_000)[..., 0], deep >> 8)


def test_large_images_go_in_tiles(port):
    status, body, _ = ask(port, "/segment", picture(70, 80))
    assert status == 200
    assert json.loads(body)["tiled"] is True


def bomb() -> bytes:
    """A PNG whose head says 8,000 x 8,000; a few hundred bytes."""
    small = picture(2, 2)
    head = b"IHDR" + (8_000).to_bytes(4, "big") * 2 + small[24:29]
    return small[:12] + head + zlib.crc32(head).to_bytes(4, "big") + small[33:]


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        (b"\x00" * (MIB + 1), 413, "larger than 1 MiB"),
        (b"", 400, "no file"),
        (b"name: 'net' layer { }", 415, "no image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415, "no image"),
        (picture()[:200], 422, "damaged"),
        (picture(400, 300), 413, "100,000 pixels"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", 415, "no image"),
    ],
    ids=["large", "empty", "text", "svg", "cut off", "many pixels", "postscript"],
)
def test_refusals(port, body, status, told):
    got, answer, _ = ask(port, "/segment", body)
    assert got == status
    assert told in json.loads(answer)["error"]


def test_a_bomb_is_not_unpacked():
    with pytest.raises(Refused) as refused:
        decode(bomb(), 16_000_000)
    assert refused.value.status == 413
    assert "8000 x 8000" in refused.value.told


def test_a_stream_that_tells_no_end_is_cut_off(port):
    def pieces():
        for _ in range(1024):
            yield b"\x00" * 65536

    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request(
            "POST", "/segment", pieces(), encode_chunked=True, headers={"Transfer-Encoding": "chunked"}
        )
        assert connection.getresponse().status == 413
    except (BrokenPipeError, ConnectionResetError):
        pass  # cut off while we still sent


@pytest.mark.parametrize(
    "path",
    [
        "/../../etc/passwd",
        "/..%2f..%2fetc/passwd",
        "/net.onnx",
        "/static/x",
        "//etc/passwd",
        "/docs",
        "/segment/x",
    ],
)
def test_no_other_path(port, path):
    assert ask(port, path)[0] == 404


def test_other_methods(port):
    assert ask(port, "/segment")[0] == 405
    assert ask(port, "/", b"x", method="PUT")[0] == 405


def test_other_sites_are_refused(port):
    status, body, _ = ask(port, "/segment", picture(), {"Origin": "http://evil.example"})
    assert (status, "another site" in json.loads(body)["error"]) == (403, True)
    assert ask(port, "/segment", picture(), {"Origin": f"http://127.0.0.1:{port}"})[0] == 200
    assert ask(port, "/", headers={"Host": "evil.example"})[0] == 400
    assert ask(port, "/", headers={"Host": f"localhost:{port}"})[0] == 200


def test_several_at_once(port):
    bodies = [picture(20 + i % 3, 30) for i in range(8)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda body: ask(port, "/segment", body), bodies))
    assert [status for status, _, _ in answers] == [200] * 8
    areas = [json.loads(body)["outputs"][0]["classes"] for _, body, _ in answers]
    assert areas[0] == areas[3] == areas[6]


def test_too_many_at_once_are_sent_away(segmenter):
    with serving(segmenter, Limits(waiting=1)) as port:
        slow = socket.create_connection(("127.0.0.1", port))
        slow.sendall(b"POST /segment HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nabc")
        status = 0
        for _ in range(50):  # until the first has come in
            status, _, headers = ask(port, "/segment", picture())
            if status == 503:
                break
        slow.close()
        assert status == 503
        assert headers["Retry-After"] == "2"


def test_a_file_that_does_not_arrive_is_not_waited_for(segmenter):
    with (
        serving(segmenter, Limits(seconds=0.2)) as port,
        socket.create_connection(("127.0.0.1", port)) as slow,
    ):
        slow.sendall(b"POST /segment HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nabc")
        assert slow.recv(99).startswith(b"HTTP/1.1 408")


def test_health(port):
    found = json.loads(ask(port, "/health")[1])
    assert found == {"status": "ok", "model": "net.onnx", "device": "cpu"}


def test_a_model_of_one_size_says_so(tmp_path):
    path = tmp_path / "fixed.onnx"
    convert(NET, NET.with_suffix(".caffemodel"), path, verify=False, input_shapes={"data": (1, 3, 32, 32)})
    with serving(Segmenter(path, "cpu")) as port:
        status, body, _ = ask(port, "/segment", picture())
        assert status == 422
        assert "32x32 only" in json.loads(body)["error"]
        assert str(tmp_path) not in json.loads(body)["error"]


def test_loopback():
    assert all(map(is_loopback, ("127.0.0.1", "localhost", "::1", "127.0.0.2")))
    assert not any(map(is_loopback, ("0.0.0.0", "192.168.1.2", "::", "example.org")))


def test_the_command(model):
    """It says where it listens, answers there, and ends when it is told to."""
    words = [sys.executable, "-m", "caffe_fcn", "serve", str(model), "--port", "0", "--device", "cpu"]
    with subprocess.Popen(
        words, cwd=HERE.parent, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as server:
        try:
            port = int(re.match(r"http://127\.0\.0\.1:(\d+)/", server.stdout.readline())[1])
            assert ask(port, "/health")[0] == 200
        finally:
            server.terminate()
            server.communicate(timeout=20)


def test_a_port_in_use(model, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        words = [str(model), "--port", str(taken.getsockname()[1]), "--device", "cpu"]
        assert call("serve", words, prog="caffe-fcn serve") == 1
    assert "cannot listen on 127.0.0.1" in capsys.readouterr().err


def test_without_starlette(model, monkeypatch):
    monkeypatch.setitem(sys.modules, "starlette", None)
    with pytest.raises(CaffeError, match=r"pip install 'caffe-fcn\[serve\]'"):
        application(Segmenter(model, "cpu"))
