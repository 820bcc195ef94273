//! A provider's answer on its way to the caller: whole or event by event.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Version, header};
use pingora::{http::ResponseHeader, proxy::Session};

use super::{
    Exchange,
    attempt::{Attempt, Failure, cancelled, client_closed, client_gone},
    bill::Bill,
};
use crate::{
    fault::{Fault, FaultKind},
    llm::{self, StreamState, Usage},
    plugin::api,
    proxy::{context::RequestContext, reply},
    telemetry::AttemptOutcome,
    upstream::{ReadError, Response},
};

/// The largest whole answer that is taken.
const MAX_REPLY: usize = 64 << 20;
/// The most that is held back before the first content.
const MAX_RETAINED: usize = 256 << 10;
/// Deliveries between two notes of what a dropped request would owe.
const INSURE_EVERY: u32 = 64;
/// How much of a finished stream's rest is read for the connection's sake.
const MAX_REST: usize = 64 << 10;
const REST_DEADLINE: Duration = Duration::from_secs(1);

/// Relays a whole answer. Nothing is written before it has arrived completely.
pub(super) async fn whole(
    exchange: &Exchange<'_>,
    index: usize,
    mut response: Response,
    session: &mut Session,
    ctx: &mut RequestContext,
    bill: &mut Bill,
) -> Result<Attempt, Fault> {
    let read = read_whole(exchange, &mut response);
    let body = tokio::select! {
        biased;
        body = read => body,
        () = client_gone(session) => return Err(cancelled(bill)),
    };
    let body = match body {
        Ok(body) => body,
        Err(failure) => return Ok(Attempt::Failed(failure)),
    };
    let api = exchange.candidates[index].provider.config.api;
    let reply = match llm::reply(api, &exchange.chat, body) {
        Ok(reply) => reply,
        Err(bad) => {
            let fault = Fault::new(FaultKind::UpstreamBroken, bad.message.clone());
            return Ok(Attempt::Failed(Failure::bad_stream(bad.class, fault)));
        }
    };
    ctx.upstream.get_or_insert_with(|| ctx.started.elapsed());
    bill.answered = Some(index);
    bill.ending = api::Ending::Complete;
    bill.reported = reply.usage.is_some();
    bill.usage = Some(reply.usage.unwrap_or_else(|| estimate(exchange, (reply.body.len() as u64) / 4)));
    tell(exchange, index, bill, ctx);
    reply::whole(session, ctx, 200, HeaderValue::from_static("application/json"), reply.body)
        .await
        .map_err(|error| client_closed(error, bill))?;
    Ok(Attempt::Answered)
}

async fn read_whole(exchange: &Exchange<'_>, response: &mut Response) -> Result<Bytes, Failure> {
    let mut whole = BytesMut::new();
    loop {
        let left = exchange.deadline.saturating_duration_since(Instant::now());
        let wait = exchange.service.timeouts.inter_token.min(left);
        match response.chunk(wait).await {
            Ok(Some(chunk)) if whole.len() + chunk.len() <= MAX_REPLY => whole.extend_from_slice(&chunk),
            Ok(Some(_)) => {
                return Err(Failure::transient(
                    200,
                    Fault::new(FaultKind::UpstreamBroken, "the provider's answer is too large"),
                ));
            }
            Ok(None) => return Ok(whole.freeze()),
            Err(error) => return Err(broken(error)),
        }
    }
}

fn broken(error: ReadError) -> Failure {
    let (kind, message) = match &error {
        ReadError::TimedOut => (FaultKind::UpstreamTimeout, "the provider did not answer in time"),
        ReadError::Broken(_) | ReadError::TooLarge(_) => {
            (FaultKind::UpstreamBroken, "the provider broke off its answer")
        }
    };
    Failure::transient(200, Fault::new(kind, message).because(error))
}

/// Relays a stream. Up to the first content everything is held back, so that
/// another provider can still take over.
pub(super) async fn stream(
    exchange: &Exchange<'_>,
    index: usize,
    mut response: Response,
    sent: Instant,
    session: &mut Session,
    ctx: &mut RequestContext,
    bill: &mut Bill,
) -> Result<Attempt, Fault> {
    let api = exchange.candidates[index].provider.config.api;
    let mut relay = Relay {
        exchange,
        index,
        machine: llm::Stream::new(api, &exchange.chat),
        retained: BytesMut::new(),
        committed: false,
        deliveries: 0,
    };
    loop {
        let wait = relay.patience(sent);
        let chunk = tokio::select! {
            biased;
            chunk = response.chunk(wait) => chunk,
            () = client_gone(session) => {
                relay.close(bill, api::Ending::Cancelled);
                return Err(cancelled(bill));
            }
        };
        let step = match chunk {
            Ok(Some(bytes)) => relay.machine.push(bytes),
            Ok(None) => relay.machine.end(),
            Err(error) => {
                let failure = broken(error);
                return relay.broke(failure, session, ctx, bill).await;
            }
        };
        match step.state {
            StreamState::Waiting if relay.retained.len() + step.out.len() <= MAX_RETAINED => {
                relay.retained.extend_from_slice(&step.out);
            }
            StreamState::Waiting | StreamState::Content => {
                relay.deliver(step.out, session, ctx, bill).await?;
            }
            StreamState::Done => {
                relay.deliver(step.out, session, ctx, bill).await?;
                relay.close(bill, api::Ending::Complete);
                session.write_response_body(None, true).await.map_err(|error| client_closed(error, bill))?;
                tokio::spawn(response.drain(MAX_REST, tokio::time::Instant::now() + REST_DEADLINE));
                return Ok(Attempt::Answered);
            }
            StreamState::Broken(fault) => {
                let failure =
                    Failure::bad_stream(fault.class, Fault::new(FaultKind::UpstreamBroken, fault.message));
                // What came whole before the fault is the caller's.
                if relay.committed {
                    relay.deliver(step.out, session, ctx, bill).await?;
                }
                return relay.broke(failure, session, ctx, bill).await;
            }
        }
    }
}

struct Relay<'a> {
    exchange: &'a Exchange<'a>,
    index: usize,
    machine: llm::Stream,
    /// Start-up events that wait for the first content.
    retained: BytesMut,
    /// Whether the client has seen anything.
    committed: bool,
    deliveries: u32,
}

impl Relay<'_> {
    /// How long the next read may take.
    fn patience(&self, sent: Instant) -> Duration {
        let timeouts = &self.exchange.service.timeouts;
        let left = self.exchange.deadline.saturating_duration_since(Instant::now());
        let wait = if self.committed {
            timeouts.inter_token
        } else {
            timeouts.first_token.saturating_sub(sent.elapsed())
        };
        wait.min(left)
    }

    async fn deliver(
        &mut self,
        out: Bytes,
        session: &mut Session,
        ctx: &mut RequestContext,
        bill: &mut Bill,
    ) -> Result<(), Fault> {
        if !self.committed {
            self.commit(session, ctx, bill).await.map_err(|error| {
                self.close(bill, api::Ending::Cancelled);
                client_closed(error, bill)
            })?;
        }
        if out.is_empty() {
            return Ok(());
        }
        self.insure(ctx, bill);
        ctx.response_bytes += out.len() as u64;
        session.write_response_body(Some(out), false).await.map_err(|error| {
            self.close(bill, api::Ending::Cancelled);
            client_closed(error, bill)
        })
    }

    /// From here on the answer is this provider's.
    async fn commit(
        &mut self,
        session: &mut Session,
        ctx: &mut RequestContext,
        bill: &mut Bill,
    ) -> pingora::Result<()> {
        self.committed = true;
        bill.answered = Some(self.index);
        ctx.upstream.get_or_insert_with(|| ctx.started.elapsed());
        if let Some(llm) = &mut ctx.llm {
            llm.time_to_first_token = Some(ctx.started.elapsed());
        }
        tell(self.exchange, self.index, bill, ctx);
        let mut head = ResponseHeader::build(200, Some(12))?;
        head.insert_header(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"))?;
        head.insert_header(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"))?;
        if session.req_header().version == Version::HTTP_11 {
            head.insert_header(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"))?;
        }
        reply::decorate(&mut head, ctx)?;
        session.write_response_header(Box::new(head), false).await?;
        let retained = std::mem::take(&mut self.retained).freeze();
        if !retained.is_empty() {
            ctx.response_bytes += retained.len() as u64;
            session.write_response_body(Some(retained), false).await?;
        }
        Ok(())
    }

    /// The stream broke: before the commit another attempt may follow; after it
    /// the caller is told in-band, and the missing terminator with it.
    async fn broke(
        mut self,
        failure: Failure,
        session: &mut Session,
        ctx: &mut RequestContext,
        bill: &mut Bill,
    ) -> Result<Attempt, Fault> {
        if !self.committed {
            return Ok(Attempt::Failed(failure));
        }
        ctx.fault = Some(FaultKind::UpstreamBroken);
        self.close(bill, api::Ending::Broken);
        self.exchange.candidates[self.index].provider.metrics.attempted(AttemptOutcome::BadStream);
        let error = llm::in_band_error("the provider broke off its answer");
        ctx.response_bytes += error.len() as u64;
        session.write_response_body(Some(error), false).await.map_err(|error| client_closed(error, bill))?;
        session.write_response_body(None, true).await.map_err(|error| client_closed(error, bill))?;
        Ok(Attempt::Answered)
    }

    /// Usage so far: the provider's, else an estimate of what was delivered.
    fn close(&mut self, bill: &mut Bill, ending: api::Ending) {
        bill.ending = ending;
        if !self.committed {
            return;
        }
        let complete = matches!(ending, api::Ending::Complete);
        bill.reported = complete && self.machine.usage().is_some();
        bill.usage = Some(match self.machine.usage() {
            Some(usage) if complete => usage,
            usage => self.partial(usage),
        });
    }

    /// What a torn answer used: the input that the provider told, if it did, and
    /// the output that was delivered. Running counts of a provider may lag behind.
    fn partial(&self, told: Option<Usage>) -> Usage {
        let delivered = self.machine.delivered_output_estimate();
        let Some(mut usage) = told else { return estimate(self.exchange, delivered) };
        usage.output = usage.output.max(delivered.saturating_sub(usage.output_reasoning));
        if usage.total_input() == 0 {
            usage.input = self.exchange.told.estimated_input_tokens;
        }
        usage
    }

    /// From now on a request that is dropped is booked for what it delivered.
    fn insure(&mut self, ctx: &RequestContext, bill: &mut Bill) {
        if self.deliveries.is_multiple_of(INSURE_EVERY) {
            bill.insure(self.exchange, self.index, &self.partial(self.machine.usage()), ctx);
        }
        self.deliveries += 1;
    }
}

fn estimate(exchange: &Exchange<'_>, output: u64) -> Usage {
    Usage { input: exchange.told.estimated_input_tokens, output, ..Usage::default() }
}

/// Who answered, for the caller to see.
fn tell(exchange: &Exchange<'_>, index: usize, bill: &Bill, ctx: &mut RequestContext) {
    let candidate = &exchange.candidates[index];
    let mut set = |name: &'static str, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            ctx.response_headers.insert(name, value);
        }
    };
    set("x-tollgate-provider", &candidate.provider.name);
    set("x-tollgate-model", &candidate.candidate.model);
    ctx.response_headers.insert("x-tollgate-attempts", HeaderValue::from(bill.attempts));
    // Only what takes something from the caller is worth telling.
    let expected = exchange.chat.max_output_tokens().or(candidate.candidate.max_output_tokens);
    if let Some(limit) = exchange.output_limit(candidate)
        && expected.is_none_or(|expected| limit < expected)
    {
        ctx.response_headers.insert("x-tollgate-max-tokens-clamped", HeaderValue::from(limit));
    }
}
