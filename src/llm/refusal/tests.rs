use super::*;

fn refused(api: Api, status: u16, body: &str) -> UpstreamRefusal {
    refusal(api, status, &HeaderMap::new(), body.as_bytes())
}

fn told(refusal: &UpstreamRefusal) -> Value {
    serde_json::from_slice::<Value>(&refusal.body).unwrap()["error"].clone()
}

#[test]
fn bodies_are_classified() {
    use FailureClass::*;
    let cases = [
        (
            400,
            r#"{"error":{"message":"bad","type":"invalid_request_error","param":"x","code":null}}"#,
            ClientError,
            400,
        ),
        (422, r#"{"detail":[{"loc":["body"],"msg":"field required"}]}"#, ClientError, 422),
        (404, r#"{"error":"unknown path"}"#, ClientError, 404),
        (405, "<html>no</html>", ClientError, 502),
        (400, r#"{"error":{"message":"m","code":"context_length_exceeded"}}"#, ContextExceeded, 400),
        (
            400,
            r#"{"object":"error","message":"This model's maximum context length is 10 tokens","type":"BadRequestError","code":400}"#,
            ContextExceeded,
            400,
        ),
        (
            400,
            r#"{"error":{"code":"content_filter","message":"m","innererror":{"code":"ResponsibleAIPolicyViolation"}}}"#,
            PolicyRefused,
            400,
        ),
        (403, r#"{"error":{"code":403,"message":"Your input was flagged"}}"#, PolicyRefused, 400),
        (
            404,
            r#"{"error":{"code":"model_not_found","message":"The model `x` does not exist"}}"#,
            ModelGone,
            404,
        ),
        (404, r#"{"error":"model 'llama' not found"}"#, ModelGone, 404),
        (410, "", ModelGone, 404),
        (401, "", KeyDead, 502),
        (402, "{}", KeyDead, 502),
        (403, r#"{"error":{"message":"country not supported"}}"#, KeyDead, 502),
        (412, r#"{"error":"account suspended"}"#, KeyDead, 502),
        (
            429,
            r#"{"error":{"message":"You exceeded your current quota","type":"insufficient_quota","code":"insufficient_quota"}}"#,
            KeyDead,
            502,
        ),
        (
            400,
            r#"[{"error":{"code":400,"status":"INVALID_ARGUMENT","message":"API key not valid","details":[{"reason":"API_KEY_INVALID"}]}}]"#,
            KeyDead,
            502,
        ),
        (429, r#"{"error":{"code":"rate_limit_exceeded","message":"slow down"}}"#, Throttled, 429),
        (498, r#"{"error":{"code":"capacity_exceeded"}}"#, Throttled, 429),
        (503, r#"{"error":{"message":"engine overloaded"}}"#, Throttled, 503),
        (503, "<html>maintenance</html>", Transient, 503),
        (500, "", Transient, 502),
        (524, "<html>timeout</html>", Transient, 504),
        (408, "", Transient, 504),
        (409, "", Transient, 502),
        (400, r#"{"error":{"code":"tool_use_failed","message":"m"}}"#, Transient, 502),
        (302, "", BadStream, 502),
    ];
    for (status, body, class, shown) in cases {
        let refusal = refused(Api::OpenAi, status, body);
        assert_eq!((refusal.class, refusal.status), (class, shown), "{status} {body}");
        assert!(told(&refusal)["message"].as_str().is_some_and(|text| !text.is_empty()));
    }
}

#[test]
fn anthropic_bodies_are_classified() {
    use FailureClass::*;
    let cases = [
        (400, "invalid_request_error", "prompt is too long: 9 tokens > 8 maximum", ContextExceeded, 400),
        (400, "invalid_request_error", "Your credit balance is too low to access the API", KeyDead, 502),
        (400, "invalid_request_error", "messages: at least one is required", ClientError, 400),
        (401, "authentication_error", "invalid x-api-key", KeyDead, 502),
        (404, "not_found_error", "model: claude-9", ModelGone, 404),
        (413, "request_too_large", "too large", ClientError, 413),
        (429, "rate_limit_error", "slow", Throttled, 429),
        (500, "api_error", "Internal server error", Transient, 502),
        (529, "overloaded_error", "Overloaded", Throttled, 503),
    ];
    for (status, kind, message, class, shown) in cases {
        let body = format!(r#"{{"type":"error","error":{{"type":"{kind}","message":"{message}"}}}}"#);
        let refusal = refused(Api::Anthropic, status, &body);
        assert_eq!((refusal.class, refusal.status), (class, shown), "{status} {kind}");
    }
    let spent = r#"{"type":"error","error":{"type":"rate_limit_error","message":"m","details":{"error_code":"enforced_spend_limit_reached"}}}"#;
    assert_eq!(refused(Api::Anthropic, 429, spent).class, KeyDead);
}

#[test]
fn credentials_are_never_echoed() {
    for text in [
        "Incorrect API key provided: sk-proj-abcd1234.",
        "bad header Authorization: Bearer abcdefgh1234",
        "GET /v1?key=AIzaSyA1234567890 failed",
        "key 0123456789abcdef0123456789abcdef is unknown",
        "Incorrect key sk-****************abcd",
    ] {
        let body = serde_json::json!({"error": {"message": text, "param": text}}).to_string();
        let refusal = refused(Api::OpenAi, 400, &body);
        let told = told(&refusal);
        assert_eq!(told["message"], "the provider refused the request", "{text}");
        assert!(told["param"].is_null());
    }
    let plain = "Invalid value: 'x'. See the task-list of 2026-01-01 for gpt-4o-mini.";
    assert_eq!(safe_text(plain).as_deref(), Some(plain));
}

#[test]
fn a_dead_key_does_not_look_like_the_callers() {
    let refusal = refused(
        Api::OpenAi,
        401,
        r#"{"error":{"message":"Your account is closed","code":"invalid_api_key"}}"#,
    );
    assert_eq!(refusal.status, 502);
    assert_eq!(told(&refusal)["type"], "upstream_error");
    assert!(!told(&refusal).to_string().contains("account"));
}

#[test]
fn retry_headers_are_obeyed() {
    let with = |status, name: &'static str, value: &str| {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        refusal(Api::OpenAi, status, &headers, b"")
    };
    assert_eq!(with(429, "retry-after", "2").retry_after, Some(Duration::from_secs(2)));
    assert_eq!(with(400, "retry-after", "2").retry_after, None);
    assert!(!with(500, "x-should-retry", "false").retry_same);
    assert!(with(500, "x-should-retry", "true").retry_same);
    assert_eq!(with(400, "x-should-retry", "true").class, FailureClass::Transient);
    assert!(!with(401, "x-should-retry", "true").retry_same);
}
