//! Readers of `middlewares`.

use http::HeaderName;

use crate::config::{
    Name,
    middleware::{ApiKey, LimitBy, LimitHeaders, Middleware, RateLimit, RequestId},
    reader::Item,
    scalar::{self, Refusal},
    suggest::nearest,
};

pub(super) fn middleware(_: &Name, item: &Item<'_>) -> Option<Middleware> {
    item.fields(|f| {
        let kind = f.only_one(&["request_id", "rate_limit", "api_key"])?;
        let item = f.take_present(kind)?;
        match kind {
            "request_id" => request_id(&item).map(Middleware::RequestId),
            "rate_limit" => rate_limit(&item).map(Middleware::RateLimit),
            _ => api_key(&item).map(Middleware::ApiKey),
        }
    })
}

fn request_id(item: &Item<'_>) -> Option<RequestId> {
    item.fields(|f| {
        let header = f.or("header", HeaderName::from_static("x-request-id"), header);
        let trust_incoming = f.or("trust_incoming", false, scalar::boolean);
        Some(RequestId { header, trust_incoming })
    })
}

fn rate_limit(item: &Item<'_>) -> Option<RateLimit> {
    item.fields(|f| {
        let limit = f.require("limit").and_then(|item| item.parse(scalar::rate));
        let by = f.or("by", LimitBy::Consumer, limit_by);
        let headers = f.take("headers").map_or(LimitHeaders { ietf: true, kong: true }, |item| {
            let families =
                item.list(|item| item.choice("header family", &[("ietf", "ietf"), ("kong", "kong")]));
            LimitHeaders { ietf: families.contains(&"ietf"), kong: families.contains(&"kong") }
        });
        let (limit, window) = limit?;
        Some(RateLimit { limit, window, by, headers })
    })
}

fn limit_by(text: &str) -> scalar::Result<LimitBy> {
    match text {
        "consumer" => Ok(LimitBy::Consumer),
        "address" => Ok(LimitBy::Address),
        "all" => Ok(LimitBy::All),
        _ => match text.strip_prefix("header:") {
            Some(name) => header(name).map(LimitBy::Header),
            None => {
                let meant = if text == "ip" {
                    Some("address")
                } else {
                    nearest(text, ["consumer", "address", "all"])
                };
                Err(Refusal::new("expected consumer, address, all or header:NAME").suggesting(meant))
            }
        },
    }
}

fn api_key(item: &Item<'_>) -> Option<ApiKey> {
    item.fields(|f| {
        let headers = match f.take("headers") {
            Some(item) => {
                if item.items().is_some_and(|items| items.is_empty()) {
                    item.fail::<()>("at least one header is needed");
                }
                item.list(|item| item.parse(header))
            }
            None => vec![http::header::AUTHORIZATION, HeaderName::from_static("x-api-key")],
        };
        Some(ApiKey { headers, hide: f.or("hide", true, scalar::boolean) })
    })
}

/// The name of a header in any case.
pub(super) fn header(text: &str) -> scalar::Result<HeaderName> {
    text.parse().map_err(|_| Refusal::new("expected the name of a header"))
}
