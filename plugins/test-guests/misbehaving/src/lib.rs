//! Fails in the way that its config names, in every request or, with `when`,
//! only in requests that have the header `x-misbehave`.

use std::hint::black_box;

use serde::Deserialize;
use tollgate_sdk::{HttpFilter, Plugin, Reply, RequestHead, RequestVerdict, Subscription, edit};

const TRIGGER: &str = "x-misbehave";
const HOARD_STEP_BYTES: usize = 1024 * 1024;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Misbehaving {
    how: How,
    #[serde(default)]
    when: When,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum How {
    /// Never returns.
    Loop,
    Trap,
    /// Takes memory until there is no more.
    Hoard,
    /// Calls itself until the stack ends.
    Recurse,
    /// An edit with a header name that is not valid HTTP.
    BadHeaderName,
    /// An edit with a value that would split the message.
    BadHeaderValue,
    /// A path that is not one.
    BadPath,
    /// A reply with status 42.
    BadStatus,
    /// `configure` refuses.
    RefuseConfig,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum When {
    #[default]
    Always,
    Asked,
}

impl Plugin for Misbehaving {
    fn configure(config: &str) -> Result<Self, String> {
        let plugin: Self = tollgate_sdk::parse_config(config)?;
        match plugin.how {
            How::RefuseConfig => Err("this config is refused on purpose".to_owned()),
            _ => Ok(plugin),
        }
    }

    fn subscription(&self) -> Subscription {
        Subscription {
            request_headers: vec![TRIGGER.to_owned()],
            response_headers: Vec::new(),
            on_response: false,
            on_end: false,
        }
    }
}

impl HttpFilter for Misbehaving {
    fn on_request(&self, request: RequestHead) -> RequestVerdict {
        if self.when == When::Asked && request.header(TRIGGER).is_none() {
            return RequestVerdict::Pass;
        }
        match self.how {
            How::Loop => loop {
                black_box(());
            },
            How::Trap => panic!("trapped on purpose"),
            How::Hoard => hoard(),
            How::Recurse => {
                black_box(recurse(black_box(1)));
                RequestVerdict::Pass
            }
            How::BadHeaderName => RequestVerdict::Edit(vec![edit::set("no spaces allowed", "x")]),
            How::BadHeaderValue => RequestVerdict::Edit(vec![edit::set("x-split", "a\r\nx-injected: b")]),
            How::BadPath => RequestVerdict::Edit(vec![edit::path("not a path\r\n")]),
            How::BadStatus => {
                RequestVerdict::Reply(Reply { status: 42, headers: Vec::new(), body: Vec::new() })
            }
            How::RefuseConfig => RequestVerdict::Pass,
        }
    }
}

fn hoard() -> ! {
    let mut hoarded = Vec::new();
    loop {
        hoarded.push(black_box(vec![1_u8; HOARD_STEP_BYTES]));
    }
}

#[expect(unconditional_recursion, reason = "that is its purpose")]
fn recurse(depth: u64) -> u64 {
    black_box(recurse(depth + 1)) + depth
}

tollgate_sdk::export!(Misbehaving: http_filter);
