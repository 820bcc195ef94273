//! The bounds of an entrypoint, measured: bodies, slow clients, connections
//! that never end.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::timeout,
};

use crate::{
    harness::Client,
    malformed_http1::{CHUNKED, Delivery, LAST, PATIENCE, World, assert_refused, statuses},
};

const LENGTHY: &[u8] = b"POST /c HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n";

#[tokio::test]
async fn a_body_over_its_bound_is_refused_by_its_length_or_as_it_comes() {
    let world = World::new(json!({"limits": {"max_body": 10}})).await;

    let declared = world.converse(LENGTHY, Delivery::Whole).await;
    assert_refused(&declared, 413, "by length");
    assert_eq!(world.witness.take().begun, 0);

    let chunked = [CHUNKED, b"6\r\nhello,\r\n6\r\n world\r\n0\r\n\r\n"].concat();
    for delivery in [Delivery::Whole, Delivery::ByteByByte] {
        assert_refused(&world.converse(&chunked, delivery).await, 413, "chunked");
        assert!(world.witness.take().whole.is_empty());
    }

    let fits = [CHUNKED, b"a\r\n0123456789\r\n0\r\n\r\n", LAST].concat();
    assert_eq!(statuses(&world.converse(&fits, Delivery::Whole).await), [200, 200]);
    assert_eq!(world.lines(), ["POST /c 0123456789", "GET /last"]);
}

#[tokio::test]
async fn http2_bodies_have_the_same_bounds() {
    let world = World::new(json!({"limits": {"max_body": 10}, "timeouts": {"body_idle": "200ms"}})).await;

    let declared = world.gateway.request("POST", "/a").http2().body(vec![0; 11]).send().await;
    assert_eq!(declared.status, 413);
    assert_eq!(streamed(&world, &[6, 6], false).await, 413);
    assert_eq!(streamed(&world, &[6], true).await, 408);
    assert!(world.witness.take().whole.is_empty());
    assert_eq!(streamed(&world, &[5, 5], false).await, 200);
    assert_eq!(world.witness.take().whole[0].body.len(), 10);
}

/// The status of an HTTP/2 upload of pieces of these sizes and no declared
/// length, which stalls at its end if it `hangs`.
async fn streamed(world: &World, sizes: &[usize], hangs: bool) -> u16 {
    let tcp = TcpStream::connect(world.gateway.address("web")).await.unwrap();
    let (mut client, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(tcp)).await.unwrap();
    tokio::spawn(connection);
    let sizes = sizes.to_vec();
    let pieces = stream::unfold(sizes.into_iter(), move |mut sizes| async move {
        match sizes.next() {
            None if hangs => std::future::pending().await,
            None => None,
            Some(size) => Some((Ok::<_, std::io::Error>(Frame::data(Bytes::from(vec![b'x'; size]))), sizes)),
        }
    });
    let request = hyper::Request::post("http://a/a").body(StreamBody::new(pieces).boxed_unsync()).unwrap();
    timeout(PATIENCE, client.send_request(request)).await.unwrap().unwrap().status().as_u16()
}

#[tokio::test]
async fn a_body_over_the_entrypoints_bound_is_refused_for_llm_services_too() {
    let world = World::new(json!({"limits": {"max_body": 100}})).await;
    let mut gateway = world.gateway;
    gateway.edit_config(|config| {
        config["services"]["llm"] = json!({"llm": {
            "providers": {"p": {"api": "openai", "url": "http://127.0.0.1:9/v1", "key": "${env:PATH}"}},
            "models": {"m": {"candidates": ["p/m"]}},
        }});
        config["routes"]["llm"] = json!({"rule": "PathPrefix(`/v1`)", "service": "llm"});
    });
    crate::harness::gateway::until_answers(&gateway, "/v1/models", 200).await;
    let body = json!({"model": "m", "messages": [{"role": "user", "content": "x".repeat(200)}]});

    let refused = gateway.request("POST", "/v1/chat/completions").json(&body).send().await;

    assert_eq!(refused.status, 413);
}

/// Says `first`, then `drip` every `every` until it is cut off: how long that
/// took, and what was answered.
async fn dripping(
    address: std::net::SocketAddr,
    first: Vec<u8>,
    drip: Vec<u8>,
    every: Duration,
) -> (Duration, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (mut reader, mut writer) = stream.split();
    writer.write_all(&first).await.unwrap();
    let started = Instant::now();
    let mut heard = Vec::new();
    let listen = async {
        let mut part = [0; 1024];
        while let Ok(read @ 1..) = reader.read(&mut part).await {
            heard.extend_from_slice(&part[..read]);
        }
    };
    let talk = async {
        loop {
            tokio::time::sleep(every).await;
            if writer.write_all(&drip).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    let ended = timeout(PATIENCE, async {
        tokio::select! { () = listen => {}, () = talk => {} }
    })
    .await;
    let took = started.elapsed();
    assert!(ended.is_ok(), "not cut off in {took:?}: {}", first.escape_ascii());
    (took, String::from_utf8_lossy(&heard).into_owned())
}

/// `count` dripping clients at once, while others are served; all are cut off
/// with `status` no sooner than `earliest` and within `latest`.
#[expect(clippy::print_stdout, reason = "the numbers are what the test is for")]
async fn flood(
    world: &World,
    count: usize,
    first: &[u8],
    drip: &[u8],
    status: u16,
    (earliest, latest): (u64, u64),
) {
    let address = world.gateway.address("web");
    let mut clients = JoinSet::new();
    for _ in 0..count {
        clients.spawn(dripping(address, first.to_vec(), drip.to_vec(), Duration::from_millis(100)));
    }
    let mut served = Vec::new();
    let mut cut = Vec::new();
    while cut.len() < count {
        tokio::select! {
            Some(ended) = clients.join_next() => {
                let (took, answer) = ended.unwrap();
                assert_refused(&answer, status, "flood");
                cut.push(took);
            }
            () = async {
                let asked = Instant::now();
                Client::new(address, "GET", "/other").send().await.expect(200);
                served.push(asked.elapsed());
            } => {}
        }
    }
    cut.sort();
    served.sort();
    println!(
        "{count} clients cut off between {:?} and {:?}; {} others served, median {:?}, slowest {:?}",
        cut[0],
        cut[count - 1],
        served.len(),
        served.get(served.len() / 2),
        served.last(),
    );
    assert!(cut[0] >= Duration::from_millis(earliest), "{:?}", cut[0]);
    assert!(cut[count - 1] <= Duration::from_millis(latest), "{:?}", cut[count - 1]);
    assert!(!served.is_empty(), "nobody else was served");
}

fn short() -> Value {
    json!({"timeouts": {"header": "1s", "body_idle": "1s", "idle": "1s", "min_body_rate": "100B/s"}})
}

#[tokio::test]
async fn two_hundred_slow_heads_are_cut_off_at_the_deadline() {
    let world = World::new(short()).await;
    flood(&world, 200, b"GET / HTTP/1.1\r\nHost: a\r\nX: ", b"y", 408, (900, 5000)).await;
}

#[tokio::test]
async fn empty_lines_do_not_keep_a_connection() {
    let world = World::new(short()).await;
    flood(&world, 50, b"\r\n", b"\r\n", 408, (900, 5000)).await;
}

#[tokio::test]
async fn two_hundred_bodies_below_the_rate_are_cut_off() {
    let world = World::new(short()).await;
    flood(&world, 200, LENGTHY, b"x", 408, (900, 6000)).await;
    let seen = world.witness.take();
    assert!(seen.whole.iter().all(|heard| heard.line() == "GET /other"));
}

#[tokio::test]
async fn chunk_heads_are_no_progress() {
    let world = World::new(json!({"timeouts": {"body_idle": "1s"}})).await;
    let first = [CHUNKED, b"5;a="].concat();
    flood(&world, 20, &first, b"x", 408, (900, 5000)).await;
}

#[tokio::test]
async fn a_body_that_stalls_is_cut_off_and_the_origin_let_go() {
    let world = World::new(json!({"timeouts": {"body_idle": "300ms"}})).await;
    for first in [[LENGTHY, b"hello"].concat(), [CHUNKED, b"5\r\nhello\r\n"].concat()] {
        let (took, answer) = dripping(world.gateway.address("web"), first, vec![], PATIENCE).await;
        assert_refused(&answer, 408, "stalled");
        assert!(took >= Duration::from_millis(250) && took < Duration::from_secs(5), "{took:?}");
    }
    crate::harness::eventually("the origin is let go", || (world.witness.broken() == 2).then_some(())).await;
    assert!(world.lines().is_empty());
}

#[tokio::test]
async fn a_body_above_the_rate_may_take_its_time() {
    let world = World::new(json!({"timeouts": {"body_idle": "1s", "min_body_rate": "10B/s"}})).await;
    let mut stream = TcpStream::connect(world.gateway.address("web")).await.unwrap();
    stream.write_all(CHUNKED).await.unwrap();
    // Longer than a body may stall, at ten times the rate.
    for _ in 0..30 {
        stream.write_all(b"a\r\n0123456789\r\n").await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    stream.write_all(&[b"0\r\n\r\n", LAST].concat()).await.unwrap();
    let mut answer = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert_eq!(statuses(&answer), [200, 200], "{answer}");
}

#[tokio::test]
async fn a_connection_carries_so_many_requests_and_no_more() {
    let world = World::new(json!({"limits": {"max_requests_per_connection": 3}})).await;
    let request = "GET /a HTTP/1.1\r\nHost: a\r\n\r\n".repeat(5);

    let answer = world.converse(request.as_bytes(), Delivery::Whole).await.to_ascii_lowercase();

    assert_eq!(world.lines(), ["GET /a"; 3]);
    assert_eq!(answer.matches("connection: keep-alive").count(), 2, "{answer}");
    assert_eq!(answer.matches("connection: close").count(), 1, "{answer}");
}

#[tokio::test]
async fn idle_connections_are_closed_without_a_word() {
    let world = World::new(short()).await;
    let mut clients = JoinSet::new();
    for _ in 0..200 {
        let request = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n".to_vec();
        clients.spawn(dripping(world.gateway.address("web"), request, vec![], PATIENCE));
    }
    while let Some(ended) = clients.join_next().await {
        let (took, answer) = ended.unwrap();
        assert_eq!(statuses(&answer), [200], "{answer}");
        assert!(took >= Duration::from_millis(900) && took < Duration::from_secs(6), "{took:?}");
    }
}
