use super::*;

fn map(body: &Value, model: &str, ceiling: Option<u64>) -> Result<(Value, Vec<&'static str>), LlmError> {
    let request = ChatRequest::parse(Bytes::from(body.to_string()))?;
    let sent = super::request(&request, model, ceiling)?;
    Ok((serde_json::from_slice(&sent.body).unwrap(), sent.dropped))
}

fn sent(members: Value) -> Value {
    sent_to(members, "claude-sonnet-4-5").0
}

#[expect(clippy::needless_pass_by_value, reason = "the tests pass literals")]
fn sent_to(members: Value, model: &str) -> (Value, Vec<&'static str>) {
    let mut body = json!({"model": "alias", "messages": [{"role": "user", "content": "hi"}]});
    for (name, value) in members.as_object().unwrap() {
        body[name] = value.clone();
    }
    map(&body, model, None).unwrap()
}

#[expect(clippy::needless_pass_by_value, reason = "the tests pass literals")]
fn refused(members: Value) -> LlmError {
    let mut body = json!({"model": "alias", "messages": [{"role": "user", "content": "hi"}]});
    for (name, value) in members.as_object().unwrap() {
        body[name] = value.clone();
    }
    map(&body, "claude-sonnet-4-5", None).unwrap_err()
}

fn call(id: &str, arguments: &str) -> Value {
    json!({"id": id, "type": "function", "function": {"name": "f", "arguments": arguments}})
}

#[test]
fn a_small_request_is_mapped() {
    let sent = sent(json!({"stream": true, "temperature": 1.5, "stop": ["END", " \n"], "user": "a@b.c"}));
    let expected = json!({
        "model": "claude-sonnet-4-5",
        "max_tokens": 4096,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
        "temperature": 1.0,
        "stop_sequences": ["END"],
        "metadata": {"user_id": sent["metadata"]["user_id"]},
        "stream": true,
    });
    assert_eq!(sent, expected);
    assert_eq!(sent["metadata"]["user_id"].as_str().unwrap().len(), 32);
}

#[test]
fn the_limit_is_the_smaller_one() {
    let limit = |members: Value, ceiling| {
        let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "x"}]});
        body["max_tokens"] = members;
        map(&body, "claude-3-haiku", ceiling).unwrap().0["max_tokens"].clone()
    };
    assert_eq!(limit(json!(50), Some(100)), 50);
    assert_eq!(limit(json!(500), Some(100)), 100);
    assert_eq!(limit(Value::Null, Some(100)), 100);
}

#[test]
fn a_tool_conversation_alternates_with_results_first() {
    let sent = sent(json!({"messages": [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "one"},
        {"role": "user", "content": [{"type": "text", "text": " "}, {"type": "text", "text": "two"}]},
        {"role": "assistant", "content": "", "thinking_blocks": [{"type": "thinking", "thinking": "hm", "signature": "S+/="}, {"type": "thinking", "thinking": "foreign"}],
         "tool_calls": [call("a", "{\"x\":1}"), call("b.c", "")]},
        {"role": "tool", "tool_call_id": "a", "content": "ra"},
        {"role": "tool", "tool_call_id": "b.c", "content": [{"type": "text", "text": "rb"}]},
        {"role": "user", "content": "three"},
        {"role": "developer", "content": "and kind"},
        {"role": "assistant", "content": "So: "},
    ]}));
    assert_eq!(
        sent["system"],
        json!([{"type": "text", "text": "be brief"}, {"type": "text", "text": "and kind"}])
    );
    let text = |text: &str| json!({"type": "text", "text": text});
    assert_eq!(
        sent["messages"],
        json!([
            {"role": "user", "content": [text("one"), text("two")]},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "hm", "signature": "S+/="},
                {"type": "tool_use", "id": "a", "name": "f", "input": {"x": 1}},
                {"type": "tool_use", "id": "hex-622e63", "name": "f", "input": {}},
            ]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "a", "content": [text("ra")]},
                {"type": "tool_result", "tool_use_id": "hex-622e63", "content": [text("rb")]},
                text("three"),
            ]},
            {"role": "assistant", "content": [text("So:")]},
        ])
    );
}

#[test]
fn images_and_documents_are_mapped() {
    let sent = sent(json!({"messages": [{"role": "user", "content": [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}, "cache_control": {"type": "ephemeral"}},
        {"type": "image_url", "image_url": {"url": "https://x.example/i.jpg"}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,BBBB"}},
    ]}]}));
    assert_eq!(
        sent["messages"][0]["content"],
        json!([
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"},
             "cache_control": {"type": "ephemeral"}},
            {"type": "image", "source": {"type": "url", "url": "https://x.example/i.jpg"}},
            {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "BBBB"},
             "title": "a.pdf"},
        ])
    );
}

#[test]
fn tools_and_choices_are_mapped() {
    let tools = json!([
        {"type": "function", "function": {"name": "a", "description": "d", "strict": true,
         "parameters": {"type": "object", "properties": {"x": {"type": "number", "minimum": 1.5}}}}},
        {"type": "function", "function": {"name": "b"}},
    ]);
    let choice = |choice: Value, parallel: Value| {
        let sent = sent(json!({"tools": tools, "tool_choice": choice, "parallel_tool_calls": parallel}));
        (sent["tool_choice"].clone(), sent["tools"].clone())
    };
    let (auto, mapped) = choice(json!("auto"), json!(true));
    assert_eq!(auto, json!({"type": "auto"}));
    assert_eq!(
        mapped[0],
        json!({"name": "a", "description": "d", "strict": true,
        "input_schema": {"type": "object", "properties": {"x": {"type": "number", "minimum": 1.5}}}})
    );
    assert_eq!(mapped[1]["input_schema"], json!({"type": "object", "properties": {}}));
    assert_eq!(choice(json!("none"), json!(false)).0, json!({"type": "none"}));
    assert_eq!(
        choice(json!("required"), json!(false)).0,
        json!({"type": "any", "disable_parallel_tool_use": true})
    );
    assert_eq!(
        choice(Value::Null, json!(false)).0,
        json!({"type": "auto", "disable_parallel_tool_use": true})
    );
    let one = json!({"type": "function", "function": {"name": "b"}});
    assert_eq!(choice(one.clone(), Value::Null).0, json!({"type": "tool", "name": "b"}));
    let allowed = json!({"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [one]}});
    let (any, kept) = choice(allowed, Value::Null);
    assert_eq!((any, kept.as_array().unwrap().len()), (json!({"type": "any"}), 1));
}

#[test]
fn effort_becomes_a_budget_or_a_level() {
    let (old, _) =
        sent_to(json!({"reasoning_effort": "high", "max_tokens": 100, "top_p": 0.5}), "claude-sonnet-4-5");
    assert_eq!(old["thinking"], json!({"type": "enabled", "budget_tokens": 4096}));
    assert_eq!(old["max_tokens"], 4196);
    assert!(old["top_p"].is_null());
    let (new, _) = sent_to(json!({"reasoning_effort": "minimal"}), "claude-opus-5");
    assert_eq!(
        (&new["thinking"]["type"], &new["output_config"]["effort"]),
        (&json!("adaptive"), &json!("low"))
    );
    let (older, dropped) = sent_to(json!({"reasoning_effort": "low"}), "claude-3-5-haiku-20241022");
    assert!(older["thinking"].is_null());
    assert_eq!(dropped, ["reasoning_effort"]);
    let body =
        json!({"model": "m", "messages": [{"role": "user", "content": "x"}], "reasoning_effort": "low"});
    let (small, dropped) = map(&body, "claude-sonnet-4", Some(1000)).unwrap();
    assert_eq!((&small["max_tokens"], dropped), (&json!(1000), vec!["reasoning_effort"]));
}

#[test]
fn structured_output_is_a_format_or_a_forced_tool() {
    let format = json!({"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}}});
    let (new, _) = sent_to(format.clone(), "claude-sonnet-4-5");
    assert_eq!(new["output_config"]["format"], json!({"type": "json_schema", "schema": {"type": "object"}}));
    let (old, _) = sent_to(format, "claude-3-haiku-20240307");
    assert_eq!(old["tool_choice"], json!({"type": "tool", "name": "json_tool_call"}));
    assert_eq!(old["tools"][0]["input_schema"], json!({"type": "object"}));
}

#[test]
fn what_cannot_be_said_is_reported() {
    let (_, dropped) = sent_to(
        json!({"seed": 1, "logprobs": true, "user": null, "guided_json": {}, "temperature": 0.5, "top_p": 0.5,
            "response_format": {"type": "json_object"}, "service_tier": "flex"}),
        "claude-sonnet-4-5",
    );
    assert_eq!(dropped, ["response_format", "top_p", "service_tier", "logprobs", "seed", "other"]);
}

#[test]
fn errors_name_the_member() {
    let message = |message: Value| json!({"messages": [{"role": "user", "content": "hi"}, message]});
    let cases = [
        (json!({"n": 2}), "n"),
        (json!({"functions": []}), "functions"),
        (
            message(json!({"role": "assistant", "tool_calls": [call("a", "{}"), call("b", "{oops")]})),
            "messages[1].tool_calls[1].function.arguments",
        ),
        (
            message(json!({"role": "assistant", "tool_calls": [call("a", "[1]")]})),
            "messages[1].tool_calls[0].function.arguments",
        ),
        (message(json!({"role": "tool", "content": "x"})), "messages[1].tool_call_id"),
        (message(json!({"role": "king", "content": "x"})), "messages[1].role"),
        (message(json!({"role": "user", "content": 7})), "messages[1].content"),
        (
            message(json!({"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]})),
            "messages[1].content[0].type",
        ),
        (
            message(
                json!({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "file:///x"}}]}),
            ),
            "messages[1].content[0].image_url.url",
        ),
        (json!({"messages": [{"role": "system", "content": "only"}]}), "messages"),
        (json!({"tools": [{"type": "custom"}]}), "tools[0].type"),
        (json!({"stop": 7}), "stop"),
    ];
    for (members, param) in cases {
        assert_eq!(refused(members).param(), Some(param));
    }
}

#[test]
fn a_bomb_of_nesting_is_refused() {
    let deep = format!(r#"{{"model":"m","messages":[{}{}]}}"#, "[".repeat(5_000), "]".repeat(5_000));
    let request = ChatRequest::parse(Bytes::from(deep)).unwrap();
    assert!(matches!(super::request(&request, "claude-opus-5", None), Err(LlmError::NotJson(_))));
}
