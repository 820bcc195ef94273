//! What a hook may return. Anything else is the plugin's failure, found here
//! and not by whoever uses the value.

use super::api::{AdmissionVerdict, Booking, Credential, Edit, NextStep, Refusal, Reply, RequestVerdict};

const MAX_EDITS: usize = 64;
const MAX_NAME: usize = 128;
const MAX_VALUE: usize = 8 * 1024;
const MAX_BODY: usize = 1024 * 1024;
const MAX_MESSAGE: usize = 1024;
const MAX_ITEMS: usize = 32;

/// Framing belongs to the gateway: a plugin that sets these could split messages.
const FRAMING: [&str; 9] = [
    "connection",
    "content-length",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

type Check = Result<(), &'static str>;

pub(super) fn request_verdict(verdict: &RequestVerdict) -> Check {
    match verdict {
        RequestVerdict::Pass => Ok(()),
        RequestVerdict::Edit(list) => edits(list),
        RequestVerdict::Reply(answer) => reply(answer),
    }
}

pub(super) fn edits(edits: &[Edit]) -> Check {
    ensure(edits.len() <= MAX_EDITS, "more than 64 edits")?;
    edits.iter().try_for_each(|edit| match edit {
        Edit::SetHeader((name, value)) | Edit::AppendHeader((name, value)) => header(name, value),
        Edit::RemoveHeader(name) => header_name(name),
        Edit::SetPath(path) => self::path(path),
        Edit::SetStatus(status) => self::status(*status),
    })
}

fn reply(reply: &Reply) -> Check {
    status(reply.status)?;
    ensure(reply.headers.len() <= MAX_EDITS, "more than 64 headers")?;
    ensure(reply.body.len() <= MAX_BODY, "a body over 1 MiB")?;
    reply.headers.iter().try_for_each(|(name, value)| header(name, value))
}

pub(super) fn admission(verdict: &AdmissionVerdict) -> Check {
    match verdict {
        AdmissionVerdict::Unmetered => Ok(()),
        AdmissionVerdict::Refuse(refusal) => self::refusal(refusal),
        AdmissionVerdict::Hold(hold) => {
            text(&hold.account)?;
            amount(hold.amount_nano_usd)?;
            ensure(hold.caps.len() <= MAX_ITEMS, "more than 32 caps")?;
            hold.caps.iter().try_for_each(|cap| text(&cap.name).and(amount(cap.limit_nano_usd)))
        }
    }
}

pub(super) fn plan(plan: &Result<Vec<u32>, Refusal>, candidates: usize) -> Check {
    let order = match plan {
        Ok(order) => order,
        Err(refusal) => return self::refusal(refusal),
    };
    ensure(!order.is_empty(), "an empty plan")?;
    for (position, index) in order.iter().enumerate() {
        candidate(*index, candidates)?;
        ensure(!order[..position].contains(index), "a candidate twice in a plan")?;
    }
    Ok(())
}

pub(super) fn next_step(step: &NextStep, candidates: usize) -> Check {
    match step {
        NextStep::Attempt(index) | NextStep::AttemptAfter((index, _)) => candidate(*index, candidates),
        NextStep::GiveUp => Ok(()),
    }
}

pub(super) fn credential(credential: &Result<Credential, Refusal>) -> Check {
    match credential {
        Ok(Credential::Secret(handle)) => ensure(handle.len() <= 512, "a secret handle over 512 bytes"),
        Ok(Credential::Platform | Credential::Anonymous) => Ok(()),
        Err(refusal) => self::refusal(refusal),
    }
}

pub(super) fn booking(booking: &Booking) -> Check {
    text(&booking.account)?;
    amount(booking.amount_nano_usd)?;
    ensure(booking.tags.len() <= MAX_ITEMS, "more than 32 tags")?;
    booking.tags.iter().try_for_each(|(name, value)| text(name).and(text(value)))
}

fn refusal(refusal: &Refusal) -> Check {
    ensure(refusal.message.len() <= MAX_MESSAGE, "a refusal message over 1 KiB")
}

fn candidate(index: u32, candidates: usize) -> Check {
    ensure((index as usize) < candidates, "a candidate that does not exist")
}

/// Amounts are `i64` everywhere else.
fn amount(nano_usd: u64) -> Check {
    ensure(i64::try_from(nano_usd).is_ok(), "an amount out of range")
}

fn text(text: &str) -> Check {
    ensure(text.len() <= 256, "a name over 256 bytes")
}

fn status(status: u16) -> Check {
    ensure((200..=599).contains(&status), "a status outside 200 to 599")
}

fn path(path: &str) -> Check {
    ensure(
        path.starts_with('/') && path.len() <= MAX_VALUE,
        "a path that does not start with / or is too long",
    )?;
    ensure(path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#'), "a path that is not valid HTTP")
}

fn header(name: &str, value: &str) -> Check {
    header_name(name)?;
    ensure(value.len() <= MAX_VALUE, "a header value over 8 KiB")?;
    let valid = |byte: u8| byte == b'\t' || (byte >= 0x20 && byte != 0x7f);
    ensure(value.bytes().all(valid), "a header value that is not valid HTTP")
}

fn header_name(name: &str) -> Check {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let valid = !name.is_empty() && name.len() <= MAX_NAME && name.bytes().all(token);
    ensure(valid, "a header name that is not valid HTTP")?;
    ensure(
        !FRAMING.iter().any(|framing| name.eq_ignore_ascii_case(framing)),
        "a header that frames the message",
    )
}

fn ensure(holds: bool, problem: &'static str) -> Check {
    if holds { Ok(()) } else { Err(problem) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(name: &str, value: &str) -> Check {
        edits(&[Edit::SetHeader((name.to_owned(), value.to_owned()))])
    }

    #[test]
    fn headers_must_be_valid_and_must_not_frame() {
        assert_eq!(set("x-team", "blue \u{fc}"), Ok(()));
        for (name, value) in [
            ("", "a"),
            ("a b", "c"),
            ("a", "b\r\nc: d"),
            ("a", "\0"),
            ("Content-Length", "1"),
            (":path", "/"),
        ] {
            assert!(set(name, value).is_err(), "{name:?}: {value:?}");
        }
    }

    #[test]
    fn paths_start_with_a_slash_and_hold_no_spaces() {
        assert_eq!(path("/a?b=c%20d"), Ok(()));
        for bad in ["", "a", "http://x/", "/a b", "/a\r\n", "/a#b"] {
            assert!(path(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn plans_name_each_existing_candidate_at_most_once() {
        assert_eq!(plan(&Ok(vec![1, 0]), 2), Ok(()));
        for bad in [vec![], vec![2], vec![0, 0]] {
            assert!(plan(&Ok(bad.clone()), 2).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn replies_are_bounded() {
        let reply =
            |status, body| RequestVerdict::Reply(Reply { status, headers: vec![], body: vec![0; body] });
        assert_eq!(request_verdict(&reply(200, MAX_BODY)), Ok(()));
        assert!(request_verdict(&reply(200, MAX_BODY + 1)).is_err());
        assert!(request_verdict(&reply(101, 0)).is_err());
    }
}
