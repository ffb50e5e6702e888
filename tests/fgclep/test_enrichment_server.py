"""The provider for OpenAI-compatible servers against a real one on the loopback, as badly behaved as it is told."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from fgclep.enrichment.answers import read_answer
from fgclep.enrichment.prompts import ANSWER_SCHEMA, build_messages
from fgclep.enrichment.providers.base import Reply, Sampling
from fgclep.enrichment.run import run_enrichment
from fgclep.enrichment.store import EnrichmentStore
from fgclep.errors import FgclepError, UsageError

pytest.importorskip("openai", reason="the client library comes with the server extra")

from fgclep.enrichment.providers.openai_server import OpenAiServer

Answer = tuple[int, bytes, str]
FEATURES = '{"features": ["wide QRS"]}'


def completion(text: str | None = FEATURES, finish: str = "stop") -> Answer:
    choice = {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": text}}
    body = {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
    body["usage"] = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
    return 200, json.dumps(body).encode(), "application/json"


def failure(code: int, message: str = "no") -> Answer:
    return code, json.dumps({"error": {"message": message, "type": "x"}}).encode(), "application/json"


class FakeServer:
    """Answers chat completions with what `behaviour` makes of the request, and keeps count."""

    def __init__(self) -> None:
        self.behaviour: Callable[[dict[str, Any]], Answer] = lambda body: completion()
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.at_once = self.most_at_once = 0
        lock = threading.Lock()
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    fake.requests.append(body)
                    fake.headers.append({key.lower(): value for key, value in self.headers.items()})
                    fake.at_once += 1
                    fake.most_at_once = max(fake.most_at_once, fake.at_once)
                code, content, kind = fake.behaviour(body)
                with lock:
                    fake.at_once -= 1
                try:
                    self.send_response(code)
                    self.send_header("Content-Type", kind)
                    self.send_header("Content-Length", str(len(content)))
                    self.end_headers()
                    self.wfile.write(content)
                except BrokenPipeError:  # the client did not wait
                    pass

            def log_message(self, *arguments: Any) -> None:
                """Say nothing."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/v1"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeServer]:
    for name in ("OPENAI_API_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.delenv(name, raising=False)
    fake = FakeServer()
    yield fake
    fake.http.shutdown()
    fake.http.server_close()


def ask(server: FakeServer, reports: list[str], **settings: Any) -> list[Reply | None]:
    defaults: dict[str, Any] = {"retries": 0, "timeout_s": 10.0}
    return OpenAiServer("m", Sampling(max_tokens=99, seed=3), server.url, **{**defaults, **settings}).answer(reports)


def report_of(body: dict[str, Any]) -> str:
    return body["messages"][0]["content"].partition("Report:\n")[2].partition("\n")[0]


def test_a_request_carries_the_prompt_the_schema_and_the_sampling(server) -> None:
    assert ask(server, ["lbbb"]) == [Reply(FEATURES, 11, 7)]
    (body,) = server.requests
    assert body["messages"] == build_messages("lbbb")
    assert body["response_format"]["json_schema"]["schema"] == ANSWER_SCHEMA
    assert {key: body[key] for key in ("model", "temperature", "top_p", "max_tokens", "seed")} == {
        **{"model": "m", "temperature": 0.0, "top_p": 1.0},
        **{"max_tokens": 99, "seed": 3},
    }


def test_answers_come_back_in_order_several_requests_at_once(server) -> None:
    def slow_when_even(body: dict[str, Any]) -> Answer:
        number = int(report_of(body).split()[-1])
        time.sleep(0.1 if number % 2 == 0 else 0.02)
        return completion(json.dumps({"features": [f"wave {number}"]}))

    server.behaviour = slow_when_even
    reports = [f"report {number}" for number in range(20)]
    replies = ask(server, reports, concurrency=5)
    assert [read_answer(reply.text).features for reply in replies if reply] == [(f"wave {n}",) for n in range(20)]
    assert 2 <= server.most_at_once <= 5


def test_the_key_travels_in_the_header_only(server) -> None:
    ask(server, ["a"], key="secret-word")
    assert server.headers[0]["authorization"] == "Bearer secret-word"
    assert "secret-word" not in json.dumps(server.requests)


def test_overload_is_retried(server) -> None:
    answers = [failure(503), failure(429), completion()]
    server.behaviour = lambda body: answers[len(server.requests) - 1]
    assert ask(server, ["a"], retries=2) == [Reply(FEATURES, 11, 7)]
    assert len(server.requests) == 3


def test_requests_that_fail_for_good_leave_their_reports_unanswered(server) -> None:
    def moody(body: dict[str, Any]) -> Answer:
        return {"bad": failure(500), "long": failure(400, "too long"), "broken": (200, b"{", "application/json")}.get(
            report_of(body), completion()
        )

    server.behaviour = moody
    replies = ask(server, ["good", "bad", "long", "broken", "fine"])
    assert [reply is not None for reply in replies] == [True, False, False, False, True]


def test_a_body_deeper_than_any_parser_follows_is_no_answer(server) -> None:
    server.behaviour = lambda body: (200, b"[" * 100_000, "application/json")
    assert ask(server, ["a"]) == [None]


def test_a_slow_answer_is_not_waited_for(server) -> None:
    server.behaviour = lambda body: (time.sleep(1.5 if report_of(body) == "slow" else 0), completion())[1]
    started = time.monotonic()
    assert [reply is not None for reply in ask(server, ["slow", "quick"], timeout_s=0.5)] == [False, True]
    assert time.monotonic() - started < 1.4


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (completion("I am sorry, as a language model ..."), "not-json"),
        (completion('{"answer": []}'), "wrong-schema"),
        (completion(FEATURES, finish="length"), "too-long"),
        (completion(None), "empty"),
        ((200, b'{"choices": []}', "application/json"), "empty"),
        ((200, b'{"choices": [{"message": null}]}', "application/json"), "empty"),
        ((200, b'{"choices": "none", "usage": 7}', "application/json"), "empty"),
        ((200, b"<html>welcome</html>", "text/html"), "empty"),
    ],
)
def test_rubbish_is_an_answer_of_a_class(server, answer: Answer, problem: str) -> None:
    server.behaviour = lambda body: answer
    (reply,) = ask(server, ["a"])
    assert reply is not None
    assert read_answer(reply.text, cut=reply.cut).problem == problem


def test_a_server_that_is_down_is_told_at_once(server) -> None:
    server.http.shutdown()
    server.http.server_close()
    with pytest.raises(FgclepError, match=r"http://127\.0\.0\.1:\d+/v1 cannot be reached .*; answers so far are kept"):
        ask(server, ["a"] * 200, concurrency=4)


def test_answers_before_the_server_went_down_are_kept(server) -> None:
    def last_words(body: dict[str, Any]) -> Answer:
        if len(server.requests) == 3:
            server.http.server_close()
        return completion()

    server.behaviour = last_words
    replies = ask(server, ["a"] * 30, concurrency=1)
    assert sum(reply is not None for reply in replies) >= 1


@pytest.mark.parametrize(
    ("code", "message"),
    [(401, "refuses the model"), (403, "refuses the model"), (404, "refuses")],
)
def test_a_refusal_is_the_users_to_mend(server, code: int, message: str) -> None:
    server.behaviour = lambda body: failure(code)
    with pytest.raises(UsageError, match=message):
        ask(server, ["a", "b"])


def test_a_refused_request_ends_a_run_only_if_no_other_was_answered(server, tmp_path: Path) -> None:
    store = EnrichmentStore(tmp_path / "e.sqlite", create=True)

    def run() -> int:
        asked = OpenAiServer("m", Sampling(), server.url, retries=0)
        return run_enrichment(store, {"1": "good", "2": "long"}, asked).unanswered

    server.behaviour = lambda body: failure(400, "too long")
    with pytest.raises(FgclepError, match=r"m answered none of 2 reports .*refuses the request: .*too long"):
        run()
    server.behaviour = lambda body: completion() if report_of(body) == "good" else failure(400, "too long")
    assert [run(), run()] == [1, 1]  # the second time nothing but the refused one is left
    store.close()
