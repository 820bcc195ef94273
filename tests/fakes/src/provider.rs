//! A scripted LLM provider: answers its script first, then behaves as a provider
//! of its dialect does, and remembers every request.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::{Value, json};

use crate::{
    Answer, anthropic, openai,
    serve::{self, Body, Listening},
};

/// Decides what is answered when the script is empty.
type Default = fn(&Seen) -> Answer;

/// A request as it arrived.
#[derive(Debug, Clone)]
pub struct Seen {
    pub method: Method,
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

#[derive(Debug)]
pub struct Provider {
    listening: Listening,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    default: Default,
    script: Mutex<VecDeque<Answer>>,
    seen: Mutex<Vec<Seen>>,
    cancelled: Arc<AtomicU64>,
}

impl Provider {
    /// `/v1/chat/completions` plain and streamed, and `/v1/models`.
    pub async fn openai() -> Self {
        Self::start(openai::answer).await
    }

    /// `/v1/messages` plain and streamed, replayed from recordings.
    pub async fn anthropic() -> Self {
        Self::start(anthropic::answer).await
    }

    /// Throttles everything: 429 with `retry-after: 1`.
    pub async fn flaky() -> Self {
        Self::start(|_| throttled()).await
    }

    async fn start(default: Default) -> Self {
        let shared = Arc::new(Shared {
            default,
            script: Mutex::default(),
            seen: Mutex::default(),
            cancelled: Arc::default(),
        });
        let answering = shared.clone();
        let listening = serve::serve(move |request| answering.clone().answer(request)).await;
        Self { listening, shared }
    }

    /// Adds an answer to the script.
    pub fn next(&self, answer: Answer) -> &Self {
        lock(&self.shared.script).push_back(answer);
        self
    }

    /// Every request so far, in order of arrival.
    pub fn requests(&self) -> Vec<Seen> {
        lock(&self.shared.seen).clone()
    }

    /// Answers whose reader went away before their end.
    pub fn cancelled(&self) -> u64 {
        self.shared.cancelled.load(Ordering::SeqCst)
    }

    pub fn address(&self) -> SocketAddr {
        self.listening.address
    }

    /// `http://127.0.0.1:PORT/v1`.
    pub fn url(&self) -> String {
        format!("http://{}/v1", self.listening.address)
    }
}

impl Seen {
    /// The body as JSON; `null` if it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    pub(crate) fn streams(&self) -> bool {
        self.json()["stream"] == json!(true)
    }

    /// Whether this dialect-neutral question should be answered by a tool call.
    pub(crate) fn wants_tool(&self) -> bool {
        let body = self.json();
        let has_tools = body["tools"].as_array().is_some_and(|tools| !tools.is_empty());
        let last =
            body["messages"].as_array().and_then(|messages| messages.last()).cloned().unwrap_or_default();
        has_tools && last["role"] == "user" && last["content"].to_string().to_lowercase().contains("weather")
    }
}

impl Shared {
    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<Body> {
        let (head, body) = request.into_parts();
        let Ok(body) = body.collect().await else {
            return serve::json(400, &json!({"error": {"message": "the body broke off"}}));
        };
        let seen = Seen {
            method: head.method,
            path: head.uri.path().to_owned(),
            headers: head.headers,
            body: body.to_bytes(),
        };
        lock(&self.seen).push(seen.clone());
        let scripted = lock(&self.script).pop_front();
        let answer = scripted.unwrap_or_else(|| (self.default)(&seen));
        answer.into_response(self.cancelled.clone()).await
    }
}

fn throttled() -> Answer {
    Answer::status(429).header("retry-after", "1").json(&json!({"error": {
        "message": "Rate limit reached for requests",
        "type": "requests",
        "param": null,
        "code": "rate_limit_exceeded",
    }}))
}

/// A panic elsewhere must not hide itself behind a poisoned lock.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
