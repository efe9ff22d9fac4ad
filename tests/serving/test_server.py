"""The server as a whole: who may ask, cancelling, a full queue, what is kept, what is logged, and how it stops."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner
from helpers.server import LIMITS, TOKEN, RunningServer, run_server

from edgepress.cli import serve
from edgepress.cli.main import main

LONG = {"prompt": "x", "steps": 4000}  # takes seconds


def wait_for(lines: Iterator[str], text: str) -> None:
    """Reads lines of a stream until one has the text. The stream is closed with its iterator."""
    assert next((line for line in lines if text in line), None) is not None


def test_health_and_readiness_need_no_token(server: RunningServer) -> None:
    for path in ("/healthz", "/readyz"):
        assert httpx.get(server.url + path, verify=False).json() == {"status": "ok"}


@pytest.mark.parametrize("authorization", [None, "", "Bearer", "Bearer wrong", f"Basic {TOKEN}", "Bearer é"])
def test_other_routes_need_the_token(server: RunningServer, authorization: str | None) -> None:
    headers = {} if authorization is None else {"Authorization": authorization.encode("latin-1")}
    for path in ("/images", "/metrics", "/openapi.json"):
        answer = httpx.get(server.url + path, headers=headers, verify=False)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"


def test_foreign_names_and_pages_are_refused(client: httpx.Client) -> None:
    assert client.get("/server", headers={"Host": "evil.example"}).status_code == 403
    assert client.get("/server", headers={"Host": "localhost:1"}).status_code == 200
    foreign = client.post("/generate", json={"prompt": "x"}, headers={"Origin": "https://evil.example"})
    assert foreign.status_code == 403
    same = client.post(
        "/generate", json={"prompt": "x", "steps": 1}, headers={"Origin": str(client.base_url).rstrip("/")}
    )
    assert same.status_code == 200


def test_a_request_ends_when_its_client_leaves(server: RunningServer, client: httpx.Client) -> None:
    cancelled = server.read_metric("edgepress_cancelled_total")
    finished = server.read_metric("edgepress_image_seconds_count")
    with client.stream("POST", "/generate", json=LONG | {"response": "events"}) as answer:
        wait_for(answer.iter_lines(), "denoising")
    server.wait_for_metric("edgepress_cancelled_total", cancelled + 1)
    with pytest.raises(httpx.ReadTimeout):
        client.post("/generate", json=LONG, timeout=0.3)
    server.wait_for_metric("edgepress_cancelled_total", cancelled + 2)
    assert client.post("/generate", json={"prompt": "x", "steps": 1}).status_code == 200
    assert server.read_metric("edgepress_image_seconds_count") == finished + 1


def test_a_full_queue_says_when_to_come_again(server: RunningServer, client: httpx.Client) -> None:
    events = LONG | {"response": "events"}
    with client.stream("POST", "/generate", json=events) as first:
        first_lines = first.iter_lines()
        wait_for(first_lines, "denoising")
        with client.stream("POST", "/generate", json=events) as second:
            second_lines = second.iter_lines()
            wait_for(second_lines, '{"position": 1}')
            full = client.post("/generate", json={"prompt": "x"})
            assert full.status_code == 503
            assert full.json()["error"]["code"] == "busy"
            assert int(full.headers["retry-after"]) >= 1
        server.wait_for_metric("edgepress_queued", 0)  # who leaves while waiting frees the place at once
        with client.stream("POST", "/generate", json=events | {"steps": 1}) as third:
            assert third.status_code == 200


def test_templates_are_listed_added_used_and_removed(client: httpx.Client) -> None:
    assert [template["name"] for template in client.get("/templates").json()] == ["icon", "product"]
    text = "white background, a masterpiece of {prompt}"
    assert client.put("/templates/mine", json={"text": text}).json() == {"name": "mine", "text": text}
    answer = client.post(
        "/generate", json={"prompt": "完美 shoe", "template": "mine", "steps": 1, "response": "data_url"}
    )
    assert '"masterpiece", "完美"' in answer.json()["warnings"][0]
    assert client.delete("/templates/mine").status_code == 204
    assert client.delete("/templates/mine").status_code == 404
    assert client.put("/templates/Mine", json={"text": text}).status_code == 422
    assert client.put("/templates/mine", json={"text": ""}).status_code == 422


def test_the_newest_images_are_kept_without_their_prompts(server: RunningServer, client: httpx.Client) -> None:
    names = [
        client.post("/generate", json={"prompt": "very secret", "steps": 1}).headers["x-edgepress-image"]
        for _ in range(4)
    ]
    assert [image["name"] for image in client.get("/images").json()] == names[:0:-1]
    assert client.get(f"/images/{names[0]}").status_code == 404
    assert client.get(f"/images/{names[3]}").headers["content-type"] == "image/png"
    assert client.delete(f"/images/{names[3]}").status_code == 204
    assert [image["name"] for image in client.get("/images").json()] == names[2:0:-1]
    assert client.get("/images/..%2Ftemplates.sqlite").status_code == 404
    written = [file.read_bytes() for file in (server.state / "outputs").iterdir()]
    assert written
    assert not [content for content in [*written, server.log.read_bytes()] if b"secret" in content]


def test_unknown_paths_and_methods(client: httpx.Client) -> None:
    assert client.get("/nothing").json()["error"]["code"] == "not_found"
    wrong = client.post("/images/a.png")
    assert wrong.status_code == 405
    assert wrong.headers["allow"] == "DELETE, GET"


@pytest.mark.slow
def test_schemathesis_finds_nothing(small_artifact: Path, tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("schemathesis")
    options = ["--max-examples", "3", "--seed", "0", "--generation-database", "none", "--request-timeout", "60"]
    phases = ["--phases", "examples,coverage,fuzzing"]
    with run_server(small_artifact, tmp_path, "--max-steps", "50", *LIMITS[2:]) as server:
        arguments = ["run", f"{server.url}/openapi.json", "--header", f"Authorization: Bearer {TOKEN}"]
        command = [program, *arguments, *options, *phases]
        result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout[-4000:]
    assert "Tested: 13" in result.stdout


def test_a_signal_ends_the_server_even_while_it_generates(small_artifact: Path, tmp_path: Path) -> None:
    with run_server(small_artifact, tmp_path, "--max-steps", "4000", "--log-prompts") as running:
        with (
            running.client() as client,
            client.stream("POST", "/generate", json=LONG | {"response": "events"}) as answer,
        ):
            lines = answer.iter_lines()
            wait_for(lines, "denoising")
            running.process.send_signal(signal.SIGTERM)
            rest = "\n".join(lines)
        assert "event: error" in rest
        assert running.process.wait(timeout=20) == 0
        assert "Prompt: x" in running.log.read_text()


# ---------------------------------------------------------------- how the command refuses to start


def refuse(*arguments: str) -> str:
    result = CliRunner().invoke(main, ["serve", *arguments])
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


def test_root_is_refused(small_artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve.os, "geteuid", lambda: 0)
    assert "does not start as root" in refuse(str(small_artifact))


def test_a_port_in_use(small_artifact: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert re.search(
            r"Cannot listen on 127.0.0.1:\d+ \(Address already in use",
            refuse(str(small_artifact), "--allow-root", "--port", port),
        )


def test_what_is_no_artifact(tmp_path: Path) -> None:
    assert "edgepress export onnx" in refuse(str(tmp_path), "--allow-root", "--port", "0")


def test_a_provider_for_parts_of_an_npu(tmp_path: Path) -> None:
    (tmp_path / "rknn").mkdir()
    (tmp_path / "rknn" / "pipeline.json").touch()
    error = refuse(str(tmp_path), "--allow-root", "--port", "0", "--provider", "CPU")
    assert "holds parts for an NPU, which ONNX Runtime does not run. Remove --provider" in error


def test_a_token_file_without_a_token(small_artifact: Path, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("\n")
    assert "holds no token" in refuse(str(small_artifact), "--allow-root", "--token-file", str(tmp_path / "token"))


def test_a_state_folder_that_is_a_file(small_artifact: Path, tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    error = refuse(str(small_artifact), "--allow-root", "--port", "0", "--state", str(tmp_path / "state"))
    assert "state is not a folder" in error
    assert "Choose another --state." in error
