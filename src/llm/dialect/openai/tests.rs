use serde_json::{Value, json};

use super::*;
use crate::llm::{FailureClass, Stream, StreamState, StreamStep};

fn parse(body: &str) -> ChatRequest {
    ChatRequest::parse(Bytes::copy_from_slice(body.as_bytes())).unwrap()
}

fn patched(body: &str, model: &str, ceiling: Option<u64>) -> String {
    let request = request(&parse(body), model, ceiling).unwrap();
    serde_json::from_slice::<Value>(&request.body).unwrap();
    String::from_utf8(request.body.to_vec()).unwrap()
}

#[test]
fn an_unchanged_body_is_not_copied() {
    let given = parse(r#"{"model":"m","messages":[1]}"#);
    let sent = request(&given, "m", None).unwrap();
    assert_eq!(sent.body.as_ptr(), given.body().as_ptr());
    assert_eq!(sent.path, "/chat/completions");
}

#[test]
fn only_the_edited_members_change() {
    let body = " { \"z\": 1.0e2,\t\"model\" : \"alias\" , \"messages\":[ {\"b\":1,\"a\":[12345678901234567890123]} ],\n\
        \"max_tokens\": 900, \"stream_options\":{ \"include_obfuscation\" : false }, \"stream\":true, \"top_k\":5}";
    let expected = " { \"z\": 1.0e2,\t\"model\" : \"real\\\"name\" , \"messages\":[ {\"b\":1,\"a\":[12345678901234567890123]} ],\n\
        \"max_tokens\": 100, \"stream_options\":{\"include_usage\":true, \"include_obfuscation\" : false }, \"stream\":true, \"top_k\":5}";
    assert_eq!(patched(body, "real\"name", Some(100)), expected);
}

#[test]
fn usage_is_always_asked_for_in_streams() {
    let cases = [
        (r#"{"model":"m","messages":[1]}"#, r#"{"model":"m","messages":[1]}"#),
        (
            r#"{"model":"m","messages":[1],"stream":true}"#,
            r#"{"stream_options":{"include_usage":true},"model":"m","messages":[1],"stream":true}"#,
        ),
        (
            r#"{"model":"m","messages":[1],"stream":true,"stream_options":null}"#,
            r#"{"model":"m","messages":[1],"stream":true,"stream_options":{"include_usage":true}}"#,
        ),
        (
            r#"{"model":"m","messages":[1],"stream":true,"stream_options":{ }}"#,
            r#"{"model":"m","messages":[1],"stream":true,"stream_options":{"include_usage":true }}"#,
        ),
        (
            r#"{"model":"m","messages":[1],"stream":true,"stream_options":{"include_usage":false,"x":1}}"#,
            r#"{"model":"m","messages":[1],"stream":true,"stream_options":{"include_usage":true,"x":1}}"#,
        ),
        (
            r#"{"model":"m","messages":[1],"stream":true,"stream_options":{"include_usage":true}}"#,
            r#"{"model":"m","messages":[1],"stream":true,"stream_options":{"include_usage":true}}"#,
        ),
    ];
    for (given, expected) in cases {
        assert_eq!(patched(given, "m", None), expected);
    }
}

#[test]
fn limits_are_lowered_and_never_raised() {
    let with = |members: &str, model: &str| {
        let body = format!(r#"{{"model":"m","messages":[1]{members}}}"#);
        serde_json::from_str::<Value>(&patched(&body, model, Some(100))).unwrap()
    };
    assert_eq!(with(r#","max_tokens":50"#, "m")["max_tokens"], 50);
    assert_eq!(with(r#","max_completion_tokens":500"#, "m")["max_completion_tokens"], 100);
    let both = with(r#","max_tokens":500,"max_completion_tokens":60"#, "m");
    assert_eq!((&both["max_tokens"], &both["max_completion_tokens"]), (&json!(100), &json!(60)));
    assert_eq!(with("", "llama")["max_tokens"], 100);
    assert_eq!(with(r#","max_tokens":null"#, "llama")["max_tokens"], 100);
    for model in ["gpt-5-nano", "openai/o3-mini", "o1", "gpt-6"] {
        assert_eq!(with("", model)["max_completion_tokens"], 100, "{model}");
    }
    for model in ["gpt-4o-mini", "olmo-2", "gpt-oss-120b"] {
        assert_eq!(with("", model)["max_tokens"], 100, "{model}");
    }
}

#[test]
fn an_error_inside_a_200_is_no_answer() {
    let request = parse(r#"{"model":"m","messages":[1]}"#);
    let class = |body: &'static str| reply(&request, &Bytes::from_static(body.as_bytes())).unwrap_err().class;
    assert_eq!(class(r#"{"error":{"message":"m","code":429}}"#), FailureClass::Throttled);
    assert_eq!(class(r#"{"error":"it broke","choices":[]}"#), FailureClass::BadStream);
    assert_eq!(class(r#"{"error":{"code":"context_length_exceeded"}}"#), FailureClass::ContextExceeded);
    assert_eq!(class(r#"{"object":"error","message":"m","code":400}"#), FailureClass::BadStream);
    assert_eq!(class("<html>"), FailureClass::BadStream);
    assert_eq!(class("{}"), FailureClass::BadStream);
    assert!(reply(&request, &Bytes::from_static(b"{\"choices\":[],\"error\":null}")).is_ok());
}

fn stream(body: &str, chunks: &str) -> (StreamStep, StreamStep, Stream) {
    let mut stream = Stream::new(Api::OpenAi, &parse(body));
    let step = stream.push(Bytes::copy_from_slice(chunks.as_bytes()));
    let end = stream.end();
    (step, end, stream)
}

const STREAMING: &str = r#"{"model":"m","messages":[1],"stream":true}"#;

#[test]
fn content_is_what_a_reader_would_see() {
    let state = |delta: &str| {
        let event = format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{delta}}}]}}\n\n");
        stream(STREAMING, &event).0.state
    };
    for delta in [r#"{"role":"assistant","content":""}"#, r#"{"content":null}"#, "{}", r#"{"tool_calls":[]}"#]
    {
        assert_eq!(state(delta), StreamState::Waiting, "{delta}");
    }
    for delta in [
        r#"{"content":"x"}"#,
        r#"{"reasoning":"x"}"#,
        r#"{"reasoning_content":"x"}"#,
        r#"{"refusal":"x"}"#,
        r#"{"tool_calls":[{"index":0,"id":"a","function":{"name":"f","arguments":""}}]}"#,
    ] {
        assert_eq!(state(delta), StreamState::Content, "{delta}");
    }
}

#[test]
fn comments_and_filter_results_are_no_content() {
    let events = ": PROCESSING\n\ndata: {\"choices\":[],\"prompt_filter_results\":[]}\n\n";
    let (step, end, _) = stream(STREAMING, events);
    assert_eq!(step, StreamStep { out: Bytes::from(events), state: StreamState::Waiting });
    assert!(matches!(end.state, StreamState::Broken(fault) if fault.class == FailureClass::BadStream));
}

#[test]
fn a_finish_reason_is_no_terminator() {
    let events =
        "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"x\"},\"finish_reason\":\"stop\"}]}\n\n";
    let (step, end, _) = stream(STREAMING, events);
    assert_eq!(step.state, StreamState::Content);
    assert!(matches!(end.state, StreamState::Broken(_)));
    assert!(end.out.is_empty());
}

#[test]
fn what_came_before_a_fault_is_kept_apart_from_it() {
    let good = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"x\"}}]}\n\n";
    for bad in
        ["data: <html>\n\n", "event: error\ndata: {\"error\":{\"message\":\"m\"}}\n\n", "data: {\"a\":\n\n"]
    {
        let (step, end, _) = stream(STREAMING, &format!("{good}{bad}data: [DONE]\n\n"));
        assert_eq!(step.out, good, "{bad}");
        assert!(matches!(step.state, StreamState::Broken(_)), "{bad}");
        assert_eq!(end, StreamStep { out: Bytes::new(), state: step.state });
    }
}

#[test]
fn a_terminator_without_its_blank_line_counts() {
    let (_, end, _) = stream(STREAMING, "data: [DONE]");
    assert_eq!(end, StreamStep { out: Bytes::from("data: [DONE]\n\n"), state: StreamState::Done });
}

#[test]
fn a_streamed_tool_call_without_id_gets_one_once() {
    let events = "data: {\"id\":\"ab-1\",\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0,\"function\":{\"name\":\"f\",\"arguments\":\"\"}}]}}]}\n\n\
        data: {\"id\":\"ab-1\",\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\"{}\"}}]}}]}\n\n";
    let (step, ..) = stream(STREAMING, events);
    let out = String::from_utf8(step.out.to_vec()).unwrap();
    let expected = events.replacen("[{\"index\":0,\"fun", "[{\"id\":\"call_ab1_0_0\",\"index\":0,\"fun", 1);
    assert_eq!(out, expected);
}

#[test]
fn the_usage_chunk_goes_on_only_if_asked_for() {
    let usage = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2}}\n\n";
    let (step, _, seen) = stream(STREAMING, usage);
    assert!(step.out.is_empty());
    assert_eq!(seen.usage().map(|usage| usage.input), Some(3));
    let asked = r#"{"model":"m","messages":[1],"stream":true,"stream_options":{"include_usage":true}}"#;
    assert_eq!(stream(asked, usage).0.out, usage);
}
