"""Neuronpedia's graph-server routes: the published description, numbers of our own, and who may ask."""

from __future__ import annotations

import dataclasses
import gzip
import http.client
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxinterp as ji
from jaxinterp.serve.neuronpedia import NO_QK, NO_STEERING, GraphServer, Settings
from jaxinterp.serve.tracer import Tracer
from jaxinterp.viewer.messages import Request
from tests.serve.running import PROMPT, Reply, Running, running
from tests.support import shared

SECRET = "a secret"
POSTS = ("/generate-graph", "/forward-pass", "/parse-chat-prompt", "/steer")
GRAPH = {"model_id": "pocket", "slug_identifier": "Two-Names", "prompt": PROMPT}
STEER = {
    "model_id": "pocket",
    "prompt": PROMPT,
    "features": [{"layer": 0, "index": 1, "token_active_position": 2}],
}
BODIES = {
    "/generate-graph": GRAPH,
    "/forward-pass": {"prompt": PROMPT},
    "/parse-chat-prompt": {"prompt": PROMPT},
    "/steer": STEER,
}


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("graphs"), secret=SECRET) as found:
        yield found


def ask(live: Running, path: str, body: Any, **headers: str) -> Reply:
    return live.send(
        "POST", path, body, {"x-secret-key": SECRET, "Content-Type": "application/json", **headers}
    )


@pytest.fixture(scope="module")
def description() -> Any:
    """The published OpenAPI description."""
    return json.loads(shared("cases/graphs/schema/neuronpedia-graph-server-openapi.json").read_text())


def check(description: Any, name: str, value: Any) -> None:
    """Validate against a named schema of the description."""
    schema = {"$ref": f"#/components/schemas/{name}", "components": description["components"]}
    jsonschema.Draft202012Validator(schema).validate(value)


def test_every_route_of_the_description_answers_in_its_shape(live: Running, description: Any) -> None:
    busy = live.get("/check-busy")
    check(description, "CheckBusyResponse", busy)
    assert set(description["paths"]) == {"/check-busy", *POSTS}
    requests = {
        "/generate-graph": "GraphGenerationRequest",
        "/forward-pass": "ForwardPassRequest",
        "/parse-chat-prompt": "ParseChatPromptRequest",
        "/steer": "SteerRequest",
    }
    for path, name in requests.items():
        check(description, name, BODIES[path])
        refused = ask(live, path, {"prompt": 3})
        assert refused.status == 422
        check(description, "HTTPValidationError", refused.json())
    check(description, "ForwardPassResponse", ask(live, "/forward-pass", BODIES["/forward-pass"]).json())
    check(description, "ParseChatPromptResponse", ask(live, "/parse-chat-prompt", {"prompt": "emma"}).json())


def test_our_requests_are_those_of_the_description(description: Any) -> None:
    """The same fields, the same required ones, the same defaults."""
    import msgspec

    from jaxinterp.serve import requests

    ours = {
        "GraphGenerationRequest": requests.Generation,
        "ForwardPassRequest": requests.ForwardPass,
        "ParseChatPromptRequest": requests.ParseChatPrompt,
        "SteerRequest": requests.Steer,
        "SteerFeature": requests.SteerFeature,
        "GraphChatMessage": requests.Message,
    }
    for name, kind in ours.items():
        schema = description["components"]["schemas"][name]
        fields = {field.name: field for field in msgspec.structs.fields(kind)}
        assert set(fields) == set(schema["properties"]), name
        assert {n for n, f in fields.items() if f.required} == set(schema.get("required", [])), name
        for field, form in schema["properties"].items():
            if "default" in form:
                assert fields[field].default == form["default"], (name, field)


def test_salient_logits_are_those_of_a_graph(live: Running) -> None:
    asked = {"prompt": "paul reed met", "max_n_logits": 5, "desired_logit_prob": 0.9}
    found = ask(live, "/forward-pass", asked).json()
    own = ji.trace(
        live.tracer.model,
        live.tracer.dictionary,
        "paul reed met",
        targets=ji.Salient(-1, 0.9, 5),
        warm_up=False,
    )
    targets = own.nodes[own.targets]
    order = np.argsort(-targets["probability"], kind="stable")
    shares = targets["probability"][order]
    assert [one["token_id"] for one in found["salient_logits"]] == targets["index"][order].tolist()
    np.testing.assert_allclose([one["probability"] for one in found["salient_logits"]], shares, rtol=1e-5)
    assert found["input_tokens"] == ["<bos>", "paul", "reed", "met"] and found["prompt"] == "paul reed met"
    assert found["total_salient_tokens"] == len(shares) == 5
    assert found["cumulative_probability"] == pytest.approx(shares.sum(), rel=1e-5)


def test_messages_become_an_open_prompt(live: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    template = "{{ bos_token }}{% for m in messages %}paul {{ m.content }} reed {% endfor %}"
    monkeypatch.setattr(live.tracer.model.tokenizer, "templates", {"default": template})
    asked = {"prompt": "emma", "messages": [{"role": "user", "content": "met"}]}
    found = ask(live, "/forward-pass", asked).json()
    assert found["prompt"] == "<bos>paul met" and found["input_tokens"] == ["<bos>", "paul", "met"]
    graph = ask(live, "/generate-graph", {**GRAPH, **asked}).json()
    assert graph["metadata"]["prompt"] == "<bos>paul met"
    assert graph["metadata"]["prompt_tokens"] == ["<bos>", "paul", "met"]


def test_a_graph_is_that_of_the_library(live: Running, tmp_path: Path) -> None:
    reply = ask(live, "/generate-graph", {**GRAPH, "node_threshold": 0.7, "edge_threshold": 0.9})
    assert reply.status == 200 and "content-encoding" not in reply.headers
    found = reply.json()
    own = ji.trace(live.tracer.model, live.tracer.dictionary, PROMPT, max_feature_nodes=10_000).prune(
        0.7, 0.9
    )
    own.save(tmp_path / "own.json")
    document = json.loads((tmp_path / "own.json").read_text())
    for key in ("nodes", "links", "qParams", "jaxinterp"):
        assert found[key] == document[key]
    metadata = found["metadata"]
    assert (metadata["slug"], metadata["scan"], metadata["prompt"]) == ("Two-Names", "pocket-4l", PROMPT)
    assert metadata["feature_details"] == {"neuronpedia_source_set": "clt"}
    assert metadata["generation_settings"]["desired_logit_prob"] == 0.95
    (tmp_path / "got.json").write_bytes(reply.body)
    again = ji.load_graph(tmp_path / "got.json")
    np.testing.assert_array_equal(again.weights, own.weights)


def test_graphs_validate_against_the_graph_schema(live: Running) -> None:
    schema = json.loads(shared("cases/graphs/schema/neuronpedia-graph-schema.json").read_text())
    jsonschema.validate(ask(live, "/generate-graph", {**GRAPH, "max_n_logits": 3}).json(), schema)


def test_a_graph_may_come_compressed(live: Running) -> None:
    plain = ask(live, "/generate-graph", {**GRAPH, "compress": True})
    packed = ask(live, "/generate-graph", {**GRAPH, "compress": True}, **{"Accept-Encoding": "gzip, br"})
    assert packed.headers["content-encoding"] == "gzip"
    assert gzip.decompress(packed.body) == plain.body and len(packed.body) < len(plain.body) / 4


def test_numbers_of_targets_are_followed(live: Running) -> None:
    few = ask(live, "/generate-graph", {**GRAPH, "prompt": "paul reed met", "max_n_logits": 2.0}).json()
    assert sum(node["feature_type"] == "logit" for node in few["nodes"]) == 2


def test_failures_are_told_in_one_line_with_status_200(live: Running) -> None:
    for path, body in (
        ("/forward-pass", {"prompt": ""}),
        ("/forward-pass", {"prompt": "emma zzz"}),
        ("/forward-pass", {"prompt": "emma " * 64}),
        ("/forward-pass", {"messages": [{"role": "user", "content": "emma"}]}),
        ("/generate-graph", {**GRAPH, "prompt": "  "}),
        ("/generate-graph", {**GRAPH, "prompt": "emma zzz"}),
        ("/generate-graph", {**GRAPH, "enable_qk_tracing": True}),
        ("/generate-graph", {**GRAPH, "signed_url": "http://169.254.169.254/x"}),
        ("/generate-graph", {**GRAPH, "signed_url": "file:///etc/passwd"}),
    ):
        reply = ask(live, path, body)
        assert reply.status == 200 and list(reply.json()) == ["error"], (body, reply)
        assert "\n" not in reply.json()["error"] and "Traceback" not in reply.json()["error"]
    assert ask(live, "/generate-graph", {**GRAPH, "enable_qk_tracing": True}).json() == {"error": NO_QK}


def test_a_failure_inside_says_nothing_of_itself(live: Running, caplog: pytest.LogCaptureFixture) -> None:
    def fail(*_: Any) -> Any:
        raise RuntimeError("/secret/place exploded")

    live.tracer.graph = live.tracer.salient = fail  # type: ignore[method-assign]
    try:
        for path in ("/generate-graph", "/forward-pass"):
            reply = ask(live, path, BODIES[path])
            assert reply.status == 200 and "exploded" not in reply.json()["error"]
    finally:
        del live.tracer.graph, live.tracer.salient
    assert "exploded" in caplog.text


def test_other_models_and_steering(live: Running) -> None:
    for path in ("/generate-graph", "/steer"):
        reply = ask(live, path, {**BODIES[path], "model_id": "gemma-2-2b"})
        assert reply.status == 400 and "only pocket" in reply.json()["detail"] == reply.json()["error"]
    reply = ask(live, "/steer", STEER)
    assert (reply.status, reply.json()["error"]) == (501, NO_STEERING)


def test_one_graph_at_a_time_and_askers_that_go_away(live: Running) -> None:
    assert live.get("/check-busy") == {"busy": False}
    with live.tracer.held():
        asker = http.client.HTTPConnection("127.0.0.1", live.port)
        headers = {"x-secret-key": SECRET, "Host": f"127.0.0.1:{live.port}"}
        asker.request("POST", "/generate-graph", json.dumps(GRAPH), headers)
        assert live.tracer.inside.wait(20)
        assert live.get("/check-busy") == {"busy": True}
        for path in ("/generate-graph", "/forward-pass"):
            reply = ask(live, path, BODIES[path])
            assert reply.status == 503 and "busy" in reply.json()["error"]
        assert ask(live, "/parse-chat-prompt", {"prompt": "emma"}).status == 200
        asker.close()
        until = time.monotonic() + 20
        while live.jobs.status(live.jobs._running or 0) is not None and time.monotonic() < until:
            if live.jobs.status(live.jobs._running or 0).stage == "stopping":  # type: ignore[union-attr]
                break
            time.sleep(0.01)
        live.tracer.hold = False
        live.tracer.go.set()
        while live.jobs.busy():
            assert time.monotonic() < until
            time.sleep(0.01)
    states = [job.state for job in live.jobs._jobs.values()]
    assert states[-1] == "cancelled"
    assert ask(live, "/forward-pass", BODIES["/forward-pass"]).json()["salient_logits"]


class Store(BaseHTTPRequestHandler):
    """Keeps what is put."""

    got: list[tuple[str, Any, bytes]] = []  # noqa: RUF012
    status = 200

    def do_PUT(self) -> None:
        self.got.append((self.path, self.headers, self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(self.status)
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        pass


@pytest.mark.parametrize("compress", [False, True])
def test_graphs_are_uploaded(live: Running, description: Any, compress: bool, monkeypatch: Any) -> None:
    server = HTTPServer(("127.0.0.1", 0), Store)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    Store.got.clear()
    try:
        url = f"http://127.0.0.1:{server.server_port}/graphs/a.json?signature=1"
        asked = {**GRAPH, "signed_url": url, "compress": compress, "user_id": "someone"}
        reply = ask(live, "/generate-graph", asked)
        assert reply.status == 200 and reply.json()["success"] and not reply.json()["error"]
        assert "signature" not in reply.body.decode()
        check(description, "GraphGenerationResponse", reply.json())
        [(path, headers, body)] = Store.got
        assert path == "/graphs/a.json?signature=1" and headers["Content-Type"] == "application/json"
        assert headers["Content-Encoding"] == ("gzip" if compress else None)
        found = json.loads(gzip.decompress(body) if compress else body)
        assert (
            found["metadata"]["info"]["creator_name"] == "someone"
            and found["metadata"]["slug"] == "Two-Names"
        )
        assert abs(found["metadata"]["info"]["create_time_ms"] / 1000 - time.time()) < 60
        monkeypatch.setattr(Store, "status", 403)
        reply = ask(live, "/generate-graph", asked)
        assert reply.status == 200 and "127.0.0.1 answered 403" in reply.json()["error"]
        check(description, "GraphGenerationResponse", reply.json())
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_prompt_that_has_its_first_token_is_not_given_another(live: Running) -> None:
    found = ask(live, "/forward-pass", {"prompt": "<bos>" + PROMPT}).json()
    assert found["input_tokens"].count("<bos>") == 1 and found["prompt"] == "<bos>" + PROMPT
    parsed = ask(live, "/parse-chat-prompt", {"prompt": "<bos>" + PROMPT}).json()
    assert parsed == {"messages": None, "is_chat": False, "prompt": PROMPT, "unsteerable_positions": [0]}
    one, other = (
        ask(live, "/generate-graph", {**GRAPH, "prompt": prompt}).json()
        for prompt in (PROMPT, "<bos>" + PROMPT)
    )
    assert one["links"] == other["links"] and other["metadata"]["prompt"] == "<bos>" + PROMPT


def test_who_may_ask(live: Running) -> None:
    for path in POSTS:
        body, ours = BODIES[path], {"x-secret-key": SECRET}
        missing = live.send("POST", path, body)
        assert missing.status == 400 and "x-secret-key" in missing.json()["detail"]
        for headers in (
            {"x-secret-key": "wrong"},
            {"x-secret-key": SECRET + "\u00e9"},
            {**ours, "Host": "evil.example"},
            {**ours, "Host": f"evil.example:{live.port}"},
            {**ours, "Origin": "http://evil.example"},
            {**ours, "Origin": f"http://127.0.0.1:{live.port}"},
            {**ours, "Sec-Fetch-Site": "none"},
        ):
            assert live.send("POST", path, body, headers).status == 403, (path, headers)
        assert live.send("GET", path, headers=ours).status == 405
    assert live.send("GET", "/check-busy", headers={"Origin": "http://evil.example"}).status == 403
    assert not live.jobs.busy()


def test_mistakes_in_a_body_are_located(live: Running) -> None:
    for path, body, place, kind in (
        ("/generate-graph", {}, ["body", "model_id"], "missing"),
        ("/generate-graph", {**GRAPH, "max_n_logits": "x"}, ["body", "max_n_logits"], "value_error"),
        ("/generate-graph", {**GRAPH, "max_n_logits": 2.5}, ["body", "max_n_logits"], "value_error"),
        ("/generate-graph", {**GRAPH, "node_threshold": 7}, ["body", "node_threshold"], "value_error"),
        ("/forward-pass", {"messages": [{"role": "user"}]}, ["body", "messages", 0, "content"], "missing"),
        ("/forward-pass", [], ["body"], "value_error"),
        ("/forward-pass", b"", ["body"], "json_invalid"),
        ("/forward-pass", b"{nonsense", ["body"], "json_invalid"),
        ("/forward-pass", b"[" * 50_000, ["body"], "json_invalid"),
        ("/forward-pass", b'{"prompt": "\\ud800"}', ["body"], "json_invalid"),
        ("/forward-pass", b'{"desired_logit_prob": NaN}', ["body"], "json_invalid"),
        ("/parse-chat-prompt", {"prompt": None}, ["body", "prompt"], "value_error"),
        ("/steer", {**STEER, "features": [{}]}, ["body", "features", 0, "layer"], "missing"),
    ):
        reply = ask(live, path, body)
        assert reply.status == 422, (path, body, reply)
        [detail] = reply.json()["detail"]
        assert (detail["loc"], detail["type"]) == (place, kind) and "\n" not in detail["msg"]


values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
names = st.sampled_from(
    (
        "prompt",
        "messages",
        "model_id",
        "slug_identifier",
        "max_n_logits",
        "features",
        "signed_url",
        "node_threshold",
    )
)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(POSTS), st.dictionaries(names, values, max_size=5) | st.binary(max_size=30))
def test_nothing_sent_breaks_it(live: Running, path: str, body: Any) -> None:
    reply = ask(live, path, body)
    assert reply.status in (200, 400, 422, 501), (reply, body)
    assert "internal error" not in reply.body.decode()


def test_a_model_without_a_tokenizer_says_so(live: Running) -> None:
    model = dataclasses.replace(live.tracer.model, tokenizer=None)
    tracer = Tracer(model, live.tracer.dictionary)
    server = GraphServer(tracer, live.jobs, Settings(("pocket",)))

    def answer(handler: Any, body: Any) -> Any:
        return json.loads(handler(Request("POST", "/", body=json.dumps(body).encode())).body)

    for handler in (server.forward_pass, server.generate_graph):
        assert "has no tokenizer" in answer(handler, GRAPH)["error"]
    messages = [{"role": "user", "content": "emma"}]
    assert "no tokenizer" in answer(server.forward_pass, {"messages": messages})["error"]
    found = answer(server.parse_chat_prompt, {"prompt": "emma"})
    assert found == {"messages": None, "is_chat": False, "prompt": "emma", "unsteerable_positions": []}
    assert [token for token, _ in tracer.salient([1, 2, 3], 0.5, 2)]
