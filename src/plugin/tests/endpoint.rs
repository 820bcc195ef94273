//! Endpoint plugins: whole exchanges over `wasi:http`.

use bytes::Bytes;
use futures_util::stream;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper::body::Frame;
use tokio::sync::mpsc;

use crate::plugin::{Body, BodyError, PluginFault};

use super::support::{Bench, plugin};

fn empty() -> Body {
    Empty::new().map_err(BodyError::from).boxed_unsync()
}

/// A request body that the test writes piece by piece.
fn piecewise() -> (mpsc::UnboundedSender<Bytes>, Body) {
    let (pieces, receiver) = mpsc::unbounded_channel();
    let frames = stream::unfold(receiver, |mut receiver| async {
        receiver.recv().await.map(|piece| (Ok::<_, BodyError>(Frame::data(piece)), receiver))
    });
    (pieces, StreamBody::new(frames).boxed_unsync())
}

async fn serve(bench: &Bench, path: &str, body: Body) -> Result<Response<Body>, PluginFault> {
    let request = Request::post(path).header("host", "example.test").body(body).unwrap();
    bench.version().serve(request).await
}

async fn next(body: &mut Body) -> Result<Bytes, BodyError> {
    body.frame().await.expect("not ended").map(|frame| frame.into_data().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn both_bodies_stream() {
    let bench = Bench::with(plugin()).await;
    let (pieces, body) = piecewise();
    let response = serve(&bench, "/echo", body).await.unwrap();
    assert_eq!(response.status(), 200);
    let mut answer = response.into_body();
    for piece in ["first", "second", "third"] {
        // The next piece is sent only after this one has come back.
        pieces.send(Bytes::from(piece)).unwrap();
        assert_eq!(next(&mut answer).await.unwrap(), piece);
    }
    drop(pieces);
    assert!(answer.frame().await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_serves_one_exchange_after_another() {
    let bench = Bench::with(plugin()).await;
    for _ in 0..3 {
        let response = serve(&bench, "/echo", empty()).await.unwrap();
        assert!(response.into_body().collect().await.unwrap().to_bytes().is_empty());
    }
    assert!(bench.plugins.instances() <= 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_without_a_response_is_a_fault() {
    let bench = Bench::with(plugin()).await;
    let failures = [
        ("/silent", PluginFault::Invalid("no response")),
        ("/trap", PluginFault::Trapped),
        ("/loop", PluginFault::TimedOut),
    ];
    for (path, expected) in failures {
        assert_eq!(serve(&bench, path, empty()).await.map(|_| ()).unwrap_err(), expected, "{path}");
    }
    serve(&bench, "/echo", empty()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_cut_by_a_trap_does_not_look_whole() {
    let bench = Bench::with(plugin()).await;
    let mut body = serve(&bench, "/cut", empty()).await.unwrap().into_body();
    assert_eq!(next(&mut body).await.unwrap(), "half");
    assert!(next(&mut body).await.is_err());
}
