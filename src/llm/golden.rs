//! Recorded provider traffic against checked-in results, in several chunkings.
//! See `tests/golden/llm/README.md`.

use std::{fs, path::Path};

use bytes::Bytes;
use http::{HeaderMap, HeaderName};
use serde_json::{Value, json};

use super::*;

struct Case {
    name: String,
    api: Api,
    meta: Value,
    input: Bytes,
}

fn root() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/llm")
}

fn cases(wanted: impl Fn(&Value) -> bool) -> Vec<Case> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root()).unwrap() {
        let folder = entry.unwrap().path();
        let Ok(meta) = fs::read(folder.join("case.json")) else { continue };
        let meta: Value = serde_json::from_slice(&meta).unwrap();
        if !wanted(&meta) {
            continue;
        }
        let file = if meta["stream"] == true { "provider.sse" } else { "provider.json" };
        found.push(Case {
            name: folder.file_name().unwrap().to_str().unwrap().to_owned(),
            api: if meta["api"] == "anthropic" { Api::Anthropic } else { Api::OpenAi },
            meta,
            input: fs::read(folder.join(file)).unwrap().into(),
        });
    }
    assert!(found.len() > 5, "the golden files are there");
    found
}

fn request(stream: bool, usage: bool) -> ChatRequest {
    let body = json!({"model": "m", "messages": [{"role": "user", "content": "x"}], "stream": stream,
        "stream_options": {"include_usage": usage}});
    let mut request = ChatRequest::parse(Bytes::from(body.to_string())).unwrap();
    request.created = 1_700_000_000;
    request
}

/// Compares with the checked-in file, or writes it when blessing.
fn check(case: &Case, file: &str, got: &[u8]) {
    let path = root().join(&case.name).join(file);
    if std::env::var_os("TOLLGATE_BLESS").is_some() {
        fs::write(&path, got).unwrap();
    }
    let expected = fs::read(&path).unwrap_or_default();
    assert_eq!(String::from_utf8_lossy(got), String::from_utf8_lossy(&expected), "{}/{file}", case.name);
}

fn pretty(value: &Value) -> Vec<u8> {
    let mut text = serde_json::to_vec_pretty(value).unwrap();
    text.push(b'\n');
    text
}

fn shown(usage: Option<Usage>) -> Value {
    usage.map_or(Value::Null, |usage| {
        json!({"input": usage.input, "input_cache_read": usage.input_cache_read,
            "input_cache_write": usage.input_cache_write, "output": usage.output,
            "output_reasoning": usage.output_reasoning})
    })
}

/// The parts add up to the provider's own last values.
fn check_usage(case: &Case, usage: Option<Usage>) {
    let told = &case.meta["usage_last_wins"];
    let Some(usage) = usage else {
        assert!(told.is_null(), "{}: usage was missed", case.name);
        return;
    };
    let number = |at: &str| told.pointer(at).and_then(Value::as_u64);
    let same = |at: &str, got: u64| {
        if let Some(expected) = number(at) {
            assert_eq!(got, expected, "{}: {at}", case.name);
        }
    };
    match case.api {
        Api::OpenAi => {
            same("/prompt_tokens", usage.total_input());
            same("/completion_tokens", usage.total_output());
            same("/prompt_tokens_details/cached_tokens", usage.input_cache_read);
            let reasoning = number("/completion_tokens_details/reasoning_tokens").unwrap_or(0);
            let reasoning = reasoning.min(number("/completion_tokens").unwrap_or(0));
            assert_eq!(usage.output_reasoning, reasoning, "{}", case.name);
        }
        Api::Anthropic => {
            same("/input_tokens", usage.input);
            same("/cache_read_input_tokens", usage.input_cache_read);
            same("/cache_creation_input_tokens", usage.input_cache_write);
            same("/output_tokens", usage.total_output());
        }
    }
}

struct Played {
    out: Vec<u8>,
    state: StreamState,
    usage: Option<Usage>,
    output_estimate: u64,
    /// Bytes that came out before the first content.
    retained: usize,
}

fn play<'a>(case: &Case, request: &ChatRequest, chunks: impl Iterator<Item = &'a [u8]>) -> Played {
    let mut stream = Stream::new(case.api, request);
    let (mut out, mut retained, mut committed) = (Vec::new(), 0, false);
    for chunk in chunks {
        let step = stream.push(Bytes::copy_from_slice(chunk));
        committed |= step.state != StreamState::Waiting;
        out.extend_from_slice(&step.out);
        if !committed {
            retained = out.len();
        }
    }
    let last = stream.end();
    out.extend_from_slice(&last.out);
    Played {
        out,
        state: last.state,
        usage: stream.usage(),
        output_estimate: stream.delivered_output_estimate(),
        retained,
    }
}

fn outcome(played: &Played) -> Value {
    let state = match &played.state {
        StreamState::Broken(fault) => {
            json!({"broken": format!("{:?}", fault.class), "message": fault.message})
        }
        state => json!(format!("{state:?}")),
    };
    json!({"state": state, "usage": shown(played.usage), "output_estimate": played.output_estimate})
}

#[test]
fn streams_come_out_as_expected_in_any_chunking() {
    for case in cases(|meta| meta["stream"] == true) {
        for (asked, file) in [(false, "expected.sse"), (true, "expected-usage.sse")] {
            let request = request(true, asked);
            let whole = play(&case, &request, std::iter::once(&case.input[..]));
            check(&case, file, &whole.out);
            check(&case, "expected.json", &pretty(&outcome(&whole)));
            check_usage(&case, whole.usage);
            for size in [1, 2, 3, 7, 64, 1000] {
                let cut = play(&case, &request, case.input.chunks(size));
                assert_eq!(cut.out, whole.out, "{} in chunks of {size}", case.name);
                assert_eq!(outcome(&cut), outcome(&whole), "{} in chunks of {size}", case.name);
            }
            // Inside every character of several bytes and every line end.
            let inside = |at: &usize| case.input[*at] & 0xc0 == 0x80 || case.input[*at] == b'\n';
            for at in (1..case.input.len()).filter(inside).take(200) {
                let (head, tail) = case.input.split_at(at);
                let cut = play(&case, &request, [head, tail].into_iter());
                assert_eq!(cut.out, whole.out, "{} cut at {at}", case.name);
            }
        }
    }
}

#[test]
fn every_event_that_comes_out_is_json_or_the_end() {
    for case in cases(|meta| meta["stream"] == true) {
        let played = play(&case, &request(true, false), case.input.chunks(5));
        let mut parser = SseParser::default();
        parser.push(played.out.into());
        while let Some(event) = parser.next_event().unwrap() {
            let Some(data) = event.data else { continue };
            let is_json = || serde_json::from_slice::<Value>(&data).is_ok();
            assert!(data == "[DONE]" || is_json(), "{}: {data:?}", case.name);
        }
        assert!(parser.finish().is_none(), "{}: the last event is complete", case.name);
    }
}

#[test]
fn a_stream_cut_anywhere_never_looks_complete() {
    for case in cases(|meta| meta["stream"] == true) {
        let request = request(true, true);
        let terminator = match case.api {
            Api::OpenAi => "[DONE]",
            Api::Anthropic => "message_stop",
        };
        let end = memchr::memmem::rfind(&case.input, terminator.as_bytes()).unwrap_or(case.input.len());
        for at in (0..end).step_by(41) {
            let played = play(&case, &request, std::iter::once(&case.input[..at]));
            assert!(matches!(played.state, StreamState::Broken(_)), "{} cut at {at}", case.name);
            assert!(!played.out.ends_with(b"data: [DONE]\n\n"), "{} cut at {at}", case.name);
            assert!(played.retained <= played.out.len());
        }
    }
}

#[test]
fn damaged_streams_break_or_end_but_never_forward_garbage() {
    for case in cases(|meta| meta["stream"] == true) {
        let mut seed = 7_usize;
        for _ in 0..100 {
            let mut damaged = case.input.to_vec();
            for _ in 0..3 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let at = (seed >> 16) % damaged.len();
                damaged[at] = (seed >> 40) as u8;
            }
            let played = play(&case, &request(true, true), damaged.chunks(97));
            assert!(matches!(played.state, StreamState::Done | StreamState::Broken(_)), "{}", case.name);
            let mut parser = SseParser::default();
            parser.push(played.out.into());
            while let Some(event) = parser.next_event().unwrap() {
                let Some(data) = event.data else { continue };
                let is_json = || serde_json::from_slice::<serde::de::IgnoredAny>(&data).is_ok();
                assert!(data.trim_ascii() == b"[DONE]" || is_json(), "{}: {data:?}", case.name);
            }
        }
    }
}

#[test]
fn whole_answers_come_out_as_expected() {
    for case in cases(|meta| meta["stream"] == false && meta["status"] == 200) {
        let reply = reply(case.api, &request(false, false), case.input.clone()).unwrap();
        check_usage(&case, reply.usage);
        let body: Value = serde_json::from_slice(&reply.body).unwrap();
        if case.api == Api::OpenAi && !case.name.contains("without-id") {
            assert_eq!(reply.body, case.input, "{}: passes byte for byte", case.name);
        }
        let got = json!({"usage": shown(reply.usage), "finish": reply.finish, "body": body});
        check(&case, "expected.json", &pretty(&got));
    }
}

#[test]
fn refusals_come_out_as_expected() {
    for case in cases(|meta| meta["status"] != 200) {
        let mut headers = HeaderMap::new();
        for (name, value) in case.meta["headers"].as_object().into_iter().flatten() {
            let name = HeaderName::try_from(name).unwrap();
            headers.insert(name, value.as_str().unwrap().parse().unwrap());
        }
        let status = case.meta["status"].as_u64().unwrap() as u16;
        let refusal = refusal(case.api, status, &headers, &case.input);
        let body: Value = serde_json::from_slice(&refusal.body).unwrap();
        let got = json!({"class": format!("{:?}", refusal.class), "status": refusal.status,
            "retry_after_ms": refusal.retry_after.map(|wait| wait.as_millis() as u64),
            "retry_same": refusal.retry_same, "body": body});
        check(&case, "expected.json", &pretty(&got));
    }
}
