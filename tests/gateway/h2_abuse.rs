//! HTTP/2 connections that do harm rather than work: each is closed within
//! 1,000 units, at little cost to the gateway and none to its other clients.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::json;
use tollgate_fakes::Origin;

use crate::harness::{
    Client, Gateway,
    frames::{
        ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, INITIAL_WINDOW_SIZE, PING,
        PRIORITY, RST_STREAM, SETTINGS, Wire, block, frame, get, length, request, window_update,
    },
    process::{forget_peak, peak, processor, resident},
};

/// Units that a probe sends at most. All must end within them.
const UNITS: u32 = 1000;
/// What one probe may add to the resident memory of the gateway at any time.
const MEMORY: u64 = 3 << 20;
/// The same for 100 responses that wait, each with its own connection to the
/// origin: three buffers of 64 KiB in the engine, whose size cannot be chosen.
const HELD_MEMORY: u64 = 32 << 20;
/// Processor time that one probe may cost the gateway, whose code is not
/// optimised here; the innocent client's requests are in it.
const CPU: Duration = Duration::from_secs(10);
const ENHANCE_YOUR_CALM: u32 = 0xb;

/// How a probe waits for the gateway to keep up.
#[derive(Clone, Copy, PartialEq)]
enum Pace {
    /// After ten units, until a PING is answered.
    Settled,
    /// Where a PING cannot stand: a moment after ten units.
    Blind,
}

/// How the gateway must end the connection.
#[derive(Clone, Copy)]
enum End {
    /// For this reason, as the metric says.
    Cut(&'static str),
    /// The protocol engine finds it intolerable by itself.
    Engine,
}

async fn gateway(origin: &Origin) -> Gateway {
    Gateway::given(json!({
        "entrypoints": {"web": {"timeouts": {"header": "2s", "idle": "4s"}}},
        "services": {"echo": {"targets": [{"url": origin.url()}]}},
        "routes": {"echo": {"rule": "PathPrefix(`/`)", "service": "echo"}},
    }))
    .await
}

/// A gateway under attack, and a client that has nothing to do with it.
struct Scene {
    gateway: Gateway,
    _origin: Origin,
}

struct Cost {
    memory: u64,
    cpu: Duration,
    /// Of the innocent client's requests.
    requests: usize,
    slowest: Duration,
}

impl Scene {
    async fn new() -> Self {
        let origin = Origin::start("alpha").await;
        let scene = Self { gateway: gateway(&origin).await, _origin: origin };
        // Pools, caches and worker threads exist after this.
        for _ in 0..20 {
            let mut wire = scene.open().await;
            for stream in 0..50 {
                wire.say(&get(stream * 2 + 1, "/bytes?n=100000")).await;
            }
            assert!(wire.settle().await);
            scene.gateway.get("/").await.expect(200);
        }
        scene
    }

    async fn open(&self) -> Wire {
        Wire::open(self.gateway.address("web"), &[]).await
    }

    /// Times that the gateway cut a connection for `reason`.
    async fn cuts(&self, reason: &str) -> u64 {
        let metrics = self.gateway.admin("GET", "/metrics").send().await.expect(200).body;
        let name = format!("tollgate_http2_connections_cut_total{{entrypoint=\"web\",reason=\"{reason}\"}} ");
        let text = String::from_utf8(metrics.to_vec()).unwrap();
        text.lines().find_map(|line| line.strip_prefix(&name)).map_or(0, |count| count.parse().unwrap())
    }

    /// Runs `attack` beside the innocent client.
    async fn meter(&self, attack: impl Future<Output = ()>) -> Cost {
        let process = self.gateway.id();
        let address = self.gateway.address("web");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let innocent = tokio::spawn(async move {
            let (mut requests, mut slowest) = (0, Duration::ZERO);
            while !stopped.load(Ordering::Relaxed) || requests == 0 {
                for client in [Client::new(address, "GET", "/"), Client::new(address, "GET", "/").http2()] {
                    let began = Instant::now();
                    client.send().await.expect(200);
                    slowest = slowest.max(began.elapsed());
                    requests += 1;
                }
            }
            (requests, slowest)
        });
        let (memory, cpu) = (resident(process), processor(process));
        forget_peak(process);
        attack.await;
        stop.store(true, Ordering::Relaxed);
        let (requests, slowest) = innocent.await.expect("the innocent client is served");
        let memory = peak(process).saturating_sub(memory);
        Cost { memory, cpu: processor(process).saturating_sub(cpu), requests, slowest }
    }

    /// A flood of `unit`s on one connection.
    async fn probe(&self, name: &str, pace: Pace, end: End, mut unit: impl FnMut(u32) -> Vec<u8>) {
        let before = match end {
            End::Cut(reason) => self.cuts(reason).await,
            End::Engine => 0,
        };
        let mut wire = self.open().await;
        let mut sent = 0;
        let cost = self.meter(async {
            while sent < UNITS && wire.say(&unit(sent)).await {
                sent += 1;
                if sent % 10 == 0 && !keep_up(&mut wire, pace).await {
                    break;
                }
            }
            wire.heard.until_closed().await;
        });
        let cost = cost.await;
        let reason = wire.heard.of(GOAWAY).last().map(|frame| frame.code());
        report(name, &format!("{sent} units, GOAWAY {reason:?}"), &cost);
        assert!(sent < UNITS, "{name}: not closed within {UNITS} units");
        if let End::Cut(kind) = end {
            assert_eq!(self.cuts(kind).await, before + 1, "{name}: not cut for {kind}");
            assert_eq!(reason, Some(ENHANCE_YOUR_CALM), "{name}");
        }
    }
}

async fn keep_up(wire: &mut Wire, pace: Pace) -> bool {
    match pace {
        Pace::Settled => wire.settle().await,
        Pace::Blind => {
            tokio::time::sleep(Duration::from_millis(5)).await;
            !wire.heard.is_closed()
        }
    }
}

fn report(name: &str, ended: &str, cost: &Cost) {
    let Cost { memory, cpu, requests, slowest } = cost;
    eprintln!(
        "{name}: {ended}; +{} KiB, {cpu:?} of processor; {requests} requests of others, slowest {slowest:?}",
        memory >> 10
    );
    let most = if name.contains("100 streams") { HELD_MEMORY } else { MEMORY };
    assert!(*memory < most, "{name}: {memory} bytes");
    assert!(*cpu < CPU, "{name}: {cpu:?}");
}

fn post(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &request("POST", "/"))
}

fn odd(unit: u32) -> u32 {
    unit * 2 + 1
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_are_reset() {
    let scene = Scene::new().await;
    scene
        .probe("rapid reset", Pace::Settled, End::Engine, |unit| {
            let mut bytes = get(odd(unit), "/slow?ms=5000");
            bytes.extend(frame(RST_STREAM, 0, odd(unit), &8_u32.to_be_bytes()));
            bytes
        })
        .await;
    // The requests have begun when they are reset.
    scene
        .probe("late reset", Pace::Settled, End::Cut("reset"), |unit| {
            let mut bytes = get(odd(unit), "/slow?ms=5000");
            if let Some(earlier) = unit.checked_sub(10) {
                bytes.extend(frame(RST_STREAM, 0, odd(earlier), &8_u32.to_be_bytes()));
            }
            bytes
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_the_gateway_is_made_to_reset() {
    let scene = Scene::new().await;
    let with = |mut request: Vec<u8>, more: Vec<u8>| {
        request.extend(more);
        request
    };
    scene
        .probe("window overflow", Pace::Settled, End::Cut("stream-error"), |unit| {
            with(post(odd(unit)), window_update(odd(unit), 0x7fff_ffff))
        })
        .await;
    scene
        .probe("zero increment", Pace::Settled, End::Engine, |unit| {
            with(post(odd(unit)), window_update(odd(unit), 0))
        })
        .await;
    scene
        .probe("DATA on half-closed", Pace::Settled, End::Engine, |unit| {
            with(get(odd(unit), "/slow?ms=5000"), frame(DATA, 0, odd(unit), b"x"))
        })
        .await;
    scene
        .probe("HEADERS on half-closed", Pace::Settled, End::Engine, |unit| {
            with(get(odd(unit), "/slow?ms=5000"), get(odd(unit), "/"))
        })
        .await;
    scene
        .probe("PRIORITY on itself", Pace::Settled, End::Cut("stream-error"), |unit| {
            let mut dependency = odd(unit).to_be_bytes().to_vec();
            dependency.push(16);
            with(post(odd(unit)), frame(PRIORITY, 0, odd(unit), &dependency))
        })
        .await;
    scene
        .probe("too much for its Content-Length", Pace::Settled, End::Cut("stream-error"), |unit| {
            let mut head = request("POST", "/");
            head.extend(block(&[("content-length", "1")]));
            with(frame(HEADERS, END_HEADERS, odd(unit), &head), frame(DATA, 0, odd(unit), b"xx"))
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn header_blocks() {
    let scene = Scene::new().await;
    let unended = |unit, payload: &[u8]| match unit {
        0 => frame(HEADERS, END_STREAM, 1, &request("GET", "/")),
        _ => frame(CONTINUATION, 0, 1, payload),
    };
    let field = block(&[("x-filler", &"x".repeat(4000))]);
    scene.probe("CONTINUATION", Pace::Blind, End::Engine, |unit| unended(unit, &field)).await;
    scene.probe("empty CONTINUATION", Pace::Blind, End::Engine, |unit| unended(unit, &[])).await;
    scene
        .probe("empty CONTINUATION on each request", Pace::Settled, End::Cut("empty-continuation"), |unit| {
            let mut bytes = frame(HEADERS, END_STREAM, odd(unit), &request("GET", "/status/204"));
            bytes.extend(frame(CONTINUATION, END_HEADERS, odd(unit), &[]));
            bytes
        })
        .await;
    scene
        .probe("HPACK bomb", Pace::Settled, End::Engine, |unit| {
            let mut head = request("GET", "/");
            if unit == 0 {
                // Into the dynamic table, for all that follow to refer to.
                head.extend([0x40, 1, b'x']);
                length(&mut head, 4000);
                head.extend([b'x'; 4000]);
            } else {
                head.extend([0x80 | 62; 200]);
            }
            frame(HEADERS, END_STREAM | END_HEADERS, odd(unit), &head)
        })
        .await;
    let mut large = request("GET", "/");
    for _ in 0..16 {
        large.extend(block(&[("x-filler", &"x".repeat(4096))]));
    }
    scene
        .probe("header list of 64 KiB", Pace::Settled, End::Cut("header-bytes"), |unit| {
            let mut parts = large.chunks(16_384).peekable();
            let mut bytes = frame(HEADERS, END_STREAM, odd(unit), parts.next().unwrap());
            while let Some(part) = parts.next() {
                let flags = if parts.peek().is_none() { END_HEADERS } else { 0 };
                bytes.extend(frame(CONTINUATION, flags, odd(unit), part));
            }
            bytes
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_that_ask_for_nothing() {
    let scene = Scene::new().await;
    let floods: [(&str, &'static str, Vec<u8>); 8] = [
        ("SETTINGS", "settings", frame(SETTINGS, 0, 0, &[])),
        ("SETTINGS with values", "settings", frame(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0].repeat(100))),
        ("PING", "ping", frame(PING, 0, 0, &[0xff; 8])),
        ("answers to no PING", "ping", frame(PING, ACK, 0, &[0xff; 8])),
        ("WINDOW_UPDATE", "window-update", window_update(0, 1)),
        ("unknown frames", "unknown-frame", frame(0xbe, 0, 0, &[0; 1000])),
        ("PRIORITY", "priority", frame(PRIORITY, 0, 5, &[0, 0, 0, 3, 16])),
        ("PRIORITY_UPDATE", "unknown-frame", frame(0x10, 0, 0, &[0, 0, 0, 1, b'u', b'=', b'1'])),
    ];
    for (name, reason, unit) in floods {
        scene.probe(name, Pace::Blind, End::Cut(reason), |_| unit.clone()).await;
    }
    scene
        .probe("GOAWAY", Pace::Settled, End::Cut("goaway"), |unit| {
            if unit == 0 { get(1, "/slow?ms=5000") } else { frame(GOAWAY, 0, 0, &[0; 8]) }
        })
        .await;
    scene
        .probe("empty DATA", Pace::Settled, End::Engine, |unit| {
            if unit == 0 { post(1) } else { frame(DATA, 0, 1, &[]) }
        })
        .await;
    scene
        .probe("DATA of padding", Pace::Settled, End::Engine, |unit| {
            if unit == 0 { post(1) } else { frame(DATA, 8, 1, &[9; 10]) }
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_to_ping_that_are_never_read() {
    let scene = Scene::new().await;
    let mut wire = Wire::deaf(scene.gateway.address("web")).await;
    wire.say(&frame(SETTINGS, 0, 0, &[])).await;
    let mut sent = 0;
    let cost = scene.meter(async {
        while sent < UNITS && wire.say(&frame(PING, 0, 0, &[0xff; 8])).await {
            sent += 1;
            if sent % 10 == 0 {
                keep_up(&mut wire, Pace::Blind).await;
            }
        }
        wire.listen();
        wire.heard.until_closed().await;
    });
    let cost = cost.await;
    report("unread PING", &format!("{sent} units"), &cost);
    assert!(sent < UNITS, "not closed within {UNITS} units");
    assert_eq!(scene.cuts("ping").await, 1);
}

/// What is begun and not gone on with: how long the gateway waits for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_hold_on() {
    let scene = Scene::new().await;
    let address = scene.gateway.address("web");
    let held_by =
        |name: &'static str, least: u64, reason: Option<&'static str>, mut wire: Wire, said: Vec<u8>| {
            let scene = &scene;
            async move {
                let before = match reason {
                    Some(reason) => scene.cuts(reason).await,
                    None => 0,
                };
                let began = Instant::now();
                let cost = scene.meter(async {
                    wire.say(&said).await;
                    wire.listen();
                    wire.heard.until_closed().await;
                });
                let cost = cost.await;
                report(name, &format!("closed after {:?}", began.elapsed()), &cost);
                // The deadline began with the connection, a little before.
                assert!(began.elapsed() >= Duration::from_millis(least * 900), "{name}: too early");
                if let Some(reason) = reason {
                    assert_eq!(scene.cuts(reason).await, before + 1, "{name}: not for {reason}");
                }
            }
        };
    let unfinished = frame(HEADERS, END_STREAM, 1, &request("GET", "/"));
    held_by("HEADERS never finished", 2, Some("unfinished"), scene.open().await, unfinished).await;
    let half = get(1, "/")[..12].to_vec();
    held_by("half a HEADERS frame", 2, Some("unfinished"), scene.open().await, half).await;
    held_by("no SETTINGS", 2, Some("no-settings"), Wire::deaf(address).await, vec![]).await;
    held_by("no request", 4, None, scene.open().await, vec![]).await;
    held_by("one request", 4, None, scene.open().await, get(1, "/")).await;
    let no_window = Wire::open(address, &[(INITIAL_WINDOW_SIZE, 0)]).await;
    let streams = (0..100).flat_map(|unit| get(odd(unit), "/bytes?n=100000")).collect();
    held_by("100 streams without window", 2, Some("no-window"), no_window, streams).await;
}
