use bytes::Bytes;
use serde_json::{Value, json};

use crate::{
    config::llm::Api,
    llm::{ChatRequest, FailureClass, Stream, StreamState, StreamStep},
};

const START: &str = r#"{"type":"message_start","message":{"id":"msg_1","model":"m","usage":{"input_tokens":3,"output_tokens":1}}}"#;

#[expect(clippy::needless_pass_by_value, reason = "the tests pass literals")]
fn play(request: Value, events: &[&str]) -> (StreamStep, Stream) {
    let mut body = json!({"model": "m", "messages": [1], "stream": true});
    for (name, value) in request.as_object().into_iter().flatten() {
        body[name] = value.clone();
    }
    let request = ChatRequest::parse(Bytes::from(body.to_string())).unwrap();
    let mut stream = Stream::new(Api::Anthropic, &request);
    // Without `event:` lines, which the type inside repeats.
    let text: String = events.iter().map(|event| format!("data: {event}\n\n")).collect();
    let step = stream.push(text.into());
    (step, stream)
}

fn deltas(step: &StreamStep) -> Vec<Value> {
    let text = std::str::from_utf8(&step.out).unwrap();
    let data = text.split("\n\n").filter_map(|event| event.strip_prefix("data: "));
    data.filter_map(|data| serde_json::from_str::<Value>(data).ok())
        .filter_map(|chunk| chunk.pointer("/choices/0/delta").cloned())
        .collect()
}

fn class(step: &StreamStep) -> Option<FailureClass> {
    match &step.state {
        StreamState::Broken(fault) => Some(fault.class),
        _ => None,
    }
}

#[test]
fn start_up_events_do_not_commit() {
    let text = r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#;
    let (step, _) = play(json!({}), &[START, r#"{"type":"ping"}"#, text, START]);
    assert_eq!(step.state, StreamState::Waiting);
    assert_eq!(deltas(&step), [json!({"role": "assistant", "content": ""})], "a second start is not shown");
}

#[test]
fn parallel_calls_are_numbered_and_keep_their_arguments() {
    let call = |at: u32, id: &str, input: &str| {
        format!(
            r#"{{"type":"content_block_start","index":{at},"content_block":{{"type":"tool_use","id":"{id}","name":"f","input":{input}}}}}"#
        )
    };
    let part = |at: u32, json: &str| {
        let json = Value::from(json);
        format!(
            r#"{{"type":"content_block_delta","index":{at},"delta":{{"type":"input_json_delta","partial_json":{json}}}}}"#
        )
    };
    let stop = |at: u32| format!(r#"{{"type":"content_block_stop","index":{at}}}"#);
    let events = [
        START.to_owned(),
        call(1, "a", "{}"),
        part(1, ""),
        part(1, "{\"q\":"),
        part(1, "\"é\"}"),
        stop(1),
        call(2, "b", "{}"),
        stop(2),
        call(3, "c", r#"{"whole":true}"#),
        stop(3),
    ];
    let events: Vec<&str> = events.iter().map(String::as_str).collect();
    let (step, _) = play(json!({}), &events);
    assert_eq!(step.state, StreamState::Content);
    let mut arguments = [const { String::new() }; 3];
    let mut ids = Vec::new();
    for delta in deltas(&step).iter().skip(1) {
        let call = &delta["tool_calls"][0];
        let index = call["index"].as_u64().unwrap() as usize;
        ids.extend(call["id"].as_str().map(str::to_owned));
        arguments[index].push_str(call["function"]["arguments"].as_str().unwrap());
    }
    assert_eq!(ids, ["a", "b", "c"]);
    assert_eq!(arguments, ["{\"q\":\"é\"}", "{}", "{\"whole\":true}"]);
}

#[test]
fn errors_are_classified_and_final() {
    let error = |kind: &str| format!(r#"{{"type":"error","error":{{"type":"{kind}","message":"busy"}}}}"#);
    for (kind, expected) in [
        ("overloaded_error", FailureClass::Throttled),
        ("rate_limit_error", FailureClass::Throttled),
        ("api_error", FailureClass::Transient),
        ("authentication_error", FailureClass::KeyDead),
        ("invalid_request_error", FailureClass::BadStream),
    ] {
        let (step, mut stream) = play(json!({}), &[START, &error(kind), r#"{"type":"message_stop"}"#]);
        assert_eq!(class(&step), Some(expected), "{kind}");
        assert_eq!(stream.end(), StreamStep { out: Bytes::new(), state: step.state });
    }
}

#[test]
fn broken_streams_are_told_from_complete_ones() {
    let torn =
        r#"{"type":"content_block_delta","index":4,"delta":{"type":"input_json_delta","partial_json":"x"}}"#;
    for events in [&["{\"type\":"][..], &[START, "<html>"], &[r#"{"type":"message_stop"}"#], &[START, torn]] {
        let (step, _) = play(json!({}), events);
        assert_eq!(class(&step), Some(FailureClass::BadStream), "{events:?}");
    }
    let (_, mut stream) = play(json!({}), &[START]);
    assert_eq!(class(&stream.end()), Some(FailureClass::BadStream));
    let (step, mut stream) =
        play(json!({}), &[START, r#"{"type":"new_kind","x":1}"#, r#"{"type":"message_stop"}"#]);
    assert_eq!((&step.state, stream.end().state), (&StreamState::Done, StreamState::Done));
}

#[test]
fn redacted_thinking_and_server_tools_are_kept_apart() {
    let (step, _) = play(
        json!({}),
        &[
            START,
            r#"{"type":"content_block_start","index":0,"content_block":{"type":"redacted_thinking","data":"xyz"}}"#,
            r#"{"type":"content_block_stop","index":0}"#,
            r#"{"type":"content_block_start","index":1,"content_block":{"type":"server_tool_use","id":"s","name":"web_search","input":{}}}"#,
            r#"{"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":"{}"}}"#,
        ],
    );
    let deltas = deltas(&step);
    assert_eq!(deltas[1]["thinking_blocks"][0], json!({"type": "redacted_thinking", "data": "xyz"}));
    assert_eq!(deltas[2]["server_tool_blocks"][0]["name"], "web_search");
    assert_eq!(step.state, StreamState::Waiting);
    assert!(deltas.iter().all(|delta| delta["tool_calls"].is_null()));
}

#[test]
fn structured_output_is_unwrapped() {
    let format = json!({"response_format": {"type": "json_schema", "json_schema": {"schema": {}}}});
    let events = [
        START,
        r#"{"type":"content_block_start","index":0,"content_block":{"type":"tool_use","id":"t","name":"json_tool_call","input":{}}}"#,
        r#"{"type":"content_block_delta","index":0,"delta":{"type":"input_json_delta","partial_json":"{\"a\":1}"}}"#,
        r#"{"type":"content_block_stop","index":0}"#,
        r#"{"type":"message_delta","delta":{"stop_reason":"tool_use"},"usage":{"output_tokens":9}}"#,
        r#"{"type":"message_stop"}"#,
    ];
    let (step, stream) = play(format, &events);
    assert_eq!(deltas(&step)[1], json!({"content": "{\"a\":1}"}));
    assert!(std::str::from_utf8(&step.out).unwrap().contains(r#""finish_reason":"stop""#));
    assert_eq!(stream.usage().map(|usage| (usage.input, usage.output)), Some((3, 9)));
}
