//! What does one streamed event cost: parsed only, forwarded in the same
//! dialect, translated? Targets in release: 3 µs same dialect, 8 µs translated.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use tollgate::{
    config::llm::Api,
    llm::{ChatRequest, SseParser, Stream},
};

const EVENTS: u64 = 1000;

fn openai_event(at: u64) -> String {
    format!(
        r#"data: {{"id":"chatcmpl-ASYMZ4oSykiIFK4lXLReDiKyAjsQl","object":"chat.completion.chunk","created":1731368639,"model":"gpt-4o-mini-2024-07-18","service_tier":"default","system_fingerprint":"fp_9b78b61c52","choices":[{{"index":0,"delta":{{"content":" word{at}"}},"logprobs":null,"finish_reason":null}}],"usage":null}}"#
    ) + "\n\n"
}

fn anthropic_event(at: u64) -> String {
    format!(
        "event: content_block_delta\ndata: {{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{{\"type\":\"text_delta\",\"text\":\" word{at}\"}}    }}\n\n"
    )
}

const ANTHROPIC_START: &str = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_1\",\"model\":\"claude-haiku-4-5\",\"usage\":{\"input_tokens\":10}}}\n\nevent: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n";

/// One chunk for each event, as they arrive while a model writes.
fn chunks(event: fn(u64) -> String) -> Vec<Bytes> {
    (0..EVENTS).map(|at| Bytes::from(event(at))).collect()
}

fn request() -> ChatRequest {
    let body = r#"{"model":"m","messages":[{"role":"user","content":"hi"}],"stream":true}"#;
    ChatRequest::parse(Bytes::from_static(body.as_bytes())).expect("the request is well formed")
}

fn started(api: Api) -> Stream {
    let mut stream = Stream::new(api, &request());
    if api == Api::Anthropic {
        stream.push(Bytes::from_static(ANTHROPIC_START.as_bytes()));
    }
    stream
}

fn per_event(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("sse");
    group.throughput(Throughput::Elements(EVENTS));
    let openai = chunks(openai_event);
    group.bench_function("parse", |bencher| {
        bencher.iter(|| {
            let mut parser = SseParser::default();
            for chunk in &openai {
                parser.push(chunk.clone());
                while let Ok(Some(event)) = parser.next_event() {
                    black_box(event);
                }
            }
        });
    });
    for (name, api, chunks) in [
        ("same-dialect", Api::OpenAi, openai.clone()),
        ("translated", Api::Anthropic, chunks(anthropic_event)),
    ] {
        group.bench_function(name, |bencher| {
            bencher.iter_batched(
                || started(api),
                |mut stream| {
                    for chunk in &chunks {
                        black_box(stream.push(chunk.clone()));
                    }
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, per_event);
criterion_main!(benches);
