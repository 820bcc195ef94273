//! Exports every hook and imports every host interface. The path (or model,
//! or request id) of a call says how to behave; `config` is a JSON string that
//! comes back in a header, so that tests can tell versions apart.

use std::{
    cell::{Cell, RefCell},
    fmt::Debug,
    hint::black_box,
};

mod bindings {
    wit_bindgen::generate!({ path: "../../../../wit", world: "everything", generate_all });
}

use bindings::{
    exports::{
        tollgate::plugin::{
            admission::{self, AdmissionVerdict, Hold},
            credentials::{self, Attempt, Credential},
            http_filter::{self, Edit, EndSummary, Reply, RequestHead, RequestVerdict, ResponseHead},
            lifecycle::{self, Subscription},
            planner::{self, FailedAttempt, NextStep},
            settlement::{self, Booking, Outcome},
        },
        wasi::http::incoming_handler,
    },
    tollgate::plugin::{
        control, key_value, ledger,
        llm_types::LlmRequest,
        log, secrets,
        types::{Refusal, RefusalReason},
    },
    wasi::{
        http::types::{
            Fields, IncomingBody, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam,
        },
        io::streams::StreamError,
    },
};

thread_local! {
    static LABEL: RefCell<String> = const { RefCell::new(String::new()) };
    static CALLS: Cell<u64> = const { Cell::new(0) };
}

struct Probe;

bindings::export!(Probe with_types_in bindings);

impl lifecycle::Guest for Probe {
    fn configure(config: String) -> Result<Subscription, String> {
        match config.trim_matches('"') {
            "refuse" => return Err("the label must not be refuse".to_owned()),
            "loop" => spin(),
            label => LABEL.set(label.to_owned()),
        }
        Ok(Subscription {
            request_headers: vec!["x-one".to_owned(), "x-two".to_owned()],
            response_headers: vec!["content-type".to_owned()],
            on_response: true,
            on_end: true,
        })
    }
}

impl http_filter::Guest for Probe {
    fn on_request(request: RequestHead) -> RequestVerdict {
        CALLS.set(CALLS.get() + 1);
        match request.path.as_str() {
            "/pass" => RequestVerdict::Pass,
            "/reply" => reply(403, b"no".to_vec()),
            "/huge" => reply(200, vec![0; 2 << 20]),
            "/no-status" => reply(99, Vec::new()),
            "/framing" => set("content-length", "0"),
            "/trap" => panic!("as asked"),
            "/loop" => spin(),
            "/hoard" => hoard(),
            "/recurse" => set("x-depth", &recurse(1).to_string()),
            "/calls" => set("x-calls", &CALLS.get().to_string()),
            "/wait" => set("x-gate", &wait()),
            "/copy" => {
                set("x-copy", &request.headers.iter().map(|(_, value)| value.as_str()).collect::<String>())
            }
            "/host" => set("x-host", &host_calls()),
            _ => set("x-label", &LABEL.with_borrow(Clone::clone)),
        }
    }

    fn on_response(response: ResponseHead) -> Vec<Edit> {
        vec![Edit::SetStatus(response.status + 1)]
    }

    fn on_end(summary: EndSummary) {
        log::write(log::Level::Info, &format!("{} ended", summary.request_id));
    }
}

impl admission::Guest for Probe {
    fn admit(request: LlmRequest) -> AdmissionVerdict {
        match request.model.as_str() {
            "free" => AdmissionVerdict::Unmetered,
            "dear" => AdmissionVerdict::Refuse(refusal()),
            "trap" => panic!("as asked"),
            _ => AdmissionVerdict::Hold(Hold {
                account: request.caller.tenant,
                amount_nano_usd: request.estimated_input_tokens,
                prepaid: true,
                caps: Vec::new(),
                max_output_tokens: Some(7),
            }),
        }
    }
}

impl planner::Guest for Probe {
    fn plan(request: LlmRequest) -> Result<Vec<u32>, Refusal> {
        match request.model.as_str() {
            "unplanned" => Err(refusal()),
            "astray" => Ok(vec![request.candidates.len() as u32]),
            _ => Ok((0..request.candidates.len() as u32).rev().collect()),
        }
    }

    fn after_failure(request: LlmRequest, failed: Vec<FailedAttempt>) -> NextStep {
        match failed.len() {
            1 => NextStep::Attempt(0),
            2 => NextStep::AttemptAfter((request.candidates.len() as u32 - 1, 250)),
            _ => NextStep::GiveUp,
        }
    }
}

impl credentials::Guest for Probe {
    fn credential_for(attempt: Attempt) -> Result<Credential, Refusal> {
        match attempt.provider.as_str() {
            "own" => Ok(Credential::Secret(format!("byok/{}/own", attempt.caller.tenant))),
            "open" => Ok(Credential::Anonymous),
            "none" => Err(refusal()),
            _ => Ok(Credential::Platform),
        }
    }
}

impl settlement::Guest for Probe {
    fn settle(request: LlmRequest, outcome: Outcome) -> Booking {
        Booking {
            account: request.caller.tenant,
            amount_nano_usd: outcome.cost_nano_usd.unwrap_or(0) + outcome.usage.output,
            tags: vec![("model".to_owned(), request.model)],
        }
    }
}

impl incoming_handler::Guest for Probe {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let path = request.path_with_query().unwrap_or_default();
        match path.as_str() {
            "/silent" => return,
            "/trap" => panic!("as asked"),
            "/loop" => spin(),
            _ => {}
        }
        let response = OutgoingResponse::new(Fields::new());
        let body = response.body().unwrap();
        ResponseOutparam::set(out, Ok(response));
        if path == "/cut" {
            let stream = body.write().unwrap();
            stream.blocking_write_and_flush(b"half").unwrap();
            panic!("as asked");
        }
        echo(request.consume().unwrap(), body);
    }
}

/// Sends each piece of the request back before it reads the next one.
fn echo(request: IncomingBody, response: OutgoingBody) {
    let input = request.stream().unwrap();
    let output = response.write().unwrap();
    loop {
        match input.blocking_read(4096) {
            Ok(piece) => output.blocking_write_and_flush(&piece).unwrap(),
            Err(StreamError::Closed) => break,
            Err(StreamError::LastOperationFailed(_)) => panic!("the request broke"),
        }
    }
    drop(output);
    OutgoingBody::finish(response, None).unwrap();
}

fn set(name: &str, value: &str) -> RequestVerdict {
    RequestVerdict::Edit(vec![Edit::SetHeader((name.to_owned(), value.to_owned()))])
}

fn reply(status: u16, body: Vec<u8>) -> RequestVerdict {
    RequestVerdict::Reply(Reply { status, headers: vec![("x-by".to_owned(), "probe".to_owned())], body })
}

fn refusal() -> Refusal {
    Refusal { reason: RefusalReason::Forbidden, message: "as asked".to_owned() }
}

fn spin() -> ! {
    let mut turns = 0u64;
    loop {
        turns = black_box(turns.wrapping_add(1));
    }
}

fn hoard() -> RequestVerdict {
    let mut hoard: Vec<Vec<u8>> = Vec::new();
    loop {
        hoard.push(black_box(vec![1; 1 << 20]));
    }
}

fn recurse(depth: u64) -> u64 {
    let frame = black_box([depth; 16]);
    if depth == 0 { frame[0] } else { recurse(black_box(depth + 1)) + frame[15] }
}

fn wait() -> String {
    match key_value::get("gate", "key") {
        Ok(Some(value)) => String::from_utf8(value).unwrap(),
        Ok(None) => "nothing".to_owned(),
        Err(error) => format!("{error:?}"),
    }
}

/// One call of each granted interface, and of each kind that is not granted.
fn host_calls() -> String {
    [
        word(key_value::add("gate", "n", 2, 0)),
        word(key_value::get("foreign", "n")),
        word(ledger::balance("acme").map(|balance| balance.credited_nano_usd)),
        word(ledger::credit("id", "acme", 1, "")),
        word(secrets::exists("byok/acme/key")),
        word(secrets::seal("foreign", "acme", "key", "value")),
        word(control::routes()),
        word(control::load_plugin("probe", b"")),
    ]
    .join(" ")
}

fn word<T: Debug, E: Debug>(result: Result<T, E>) -> String {
    match result {
        Ok(value) => format!("{value:?}"),
        Err(error) if format!("{error:?}").to_lowercase().contains("denied") => "denied".to_owned(),
        Err(error) => format!("{error:?}"),
    }
}
