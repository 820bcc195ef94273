//! An endpoint that answers whole (`/`: method, path, headers and body length
//! as JSON), echoes a body as it arrives (`/echo`), counts (`/count?n=N`) and
//! traps (`/trap`).

use serde::Serialize;
use tollgate_sdk::{
    Endpoint, Plugin,
    http::{Problem, Request, Response},
};

const MAX_BODY_BYTES: usize = 1024 * 1024;

struct Echo {
    config: String,
}

#[derive(Serialize)]
struct Seen {
    method: String,
    path: String,
    query: Option<String>,
    headers: Vec<(String, String)>,
    body_bytes: usize,
    config: String,
}

impl Plugin for Echo {
    fn configure(config: &str) -> Result<Self, String> {
        Ok(Self { config: config.to_owned() })
    }
}

impl Endpoint for Echo {
    fn serve(&self, request: Request) -> Response {
        let last = request.segments().pop().unwrap_or_default();
        match last.as_str() {
            "echo" => Response::stream("application/octet-stream", request.body),
            "count" => count(&request),
            "trap" => panic!("trapped on purpose"),
            _ => self.seen(request),
        }
    }
}

impl Echo {
    fn seen(&self, request: Request) -> Response {
        let request_id = request.request_id().to_owned();
        match request.body.read(MAX_BODY_BYTES) {
            Ok(body) => Response::json(
                200,
                &Seen {
                    method: request.method,
                    path: request.path,
                    query: request.query,
                    headers: request.headers,
                    body_bytes: body.len(),
                    config: self.config.clone(),
                },
            ),
            Err(error) => Problem::from(error).into_response(&request_id),
        }
    }
}

fn count(request: &Request) -> Response {
    let events: u32 = request.parameter("n").and_then(|n| n.parse().ok()).unwrap_or(3);
    Response::stream("text/event-stream", (1..=events).map(|n| Ok(format!("data: {n}\n\n").into_bytes())))
}

tollgate_sdk::export!(Echo: endpoint);
