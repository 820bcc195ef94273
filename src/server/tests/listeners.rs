//! Doors that come, go and stay; the drain.

use std::time::Duration;

use tokio::net::TcpStream;

use super::world::{PATIENCE, Raw, World, get_http2, named, plain, secure, tls_connect};
use crate::{
    config::{
        entrypoint::{Entrypoint, Limits},
        tls::CertificateFiles,
    },
    server::{DoorError, Inherited},
};

const GET: &str = "GET /a HTTP/1.1\r\nHost: a.test\r\n\r\n";
const HELD: &str = "GET /held HTTP/1.1\r\nHost: a.test\r\n\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_entrypoint_keeps_its_address_and_connections() {
    let world = World::plain().await;
    let address = world.address("web");
    let mut client = Raw::connect(address).await;
    client.say(GET).await;
    client.hear("GET /a ").await;
    world.open(&[("web", plain()), ("more", plain())]).await;
    assert_eq!(world.address("web"), address);
    client.say(GET).await;
    client.hear("GET /a ").await;
    let mut other = Raw::connect(world.address("more")).await;
    other.say(GET).await;
    assert!(other.hear("GET /a ").await.to_lowercase().contains("x-entrypoint: more"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_entrypoint_stops_accepting_and_finishes_its_request() {
    let mut world = World::plain().await;
    let address = world.address("web");
    let mut idle = Raw::connect(address).await;
    idle.say(GET).await;
    idle.hear("GET /a ").await;
    let mut busy = Raw::connect(address).await;
    busy.say(HELD).await;
    world.reached.recv().await.unwrap();
    world.open(&[]).await;
    assert_eq!(idle.rest().await, "");
    // The listener goes on its own task, a moment before or after.
    while TcpStream::connect(address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    world.gate.add_permits(1);
    busy.hear("GET /held ").await;
    assert_eq!(busy.rest().await, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bad_entrypoint_changes_nothing() {
    let world = World::plain().await;
    let address = world.address("web");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let blocked = Entrypoint { address: taken.local_addr().unwrap(), ..plain() };
    let missing = CertificateFiles { cert_file: "/nowhere/a.crt".into(), key_file: "/nowhere/a.key".into() };
    let wanted = named(&[("blocked", blocked), ("fresh", plain()), ("tls", secure(vec![missing], false))]);
    let errors = world.doors.apply(&wanted).await.unwrap_err();
    let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert!(matches!(errors[0], DoorError::Bind { .. }), "{texts:?}");
    assert!(texts[0].contains(&taken.local_addr().unwrap().to_string()), "{texts:?}");
    assert!(texts[1].contains("/nowhere/a.crt"), "{texts:?}");
    assert_eq!(world.doors.addresses(), [("web".parse().unwrap(), address)].into());
    let mut client = Raw::connect(address).await;
    client.say(GET).await;
    client.hear("GET /a ").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_keeps_its_socket_under_a_new_name() {
    let world = World::plain().await;
    let fixed = Entrypoint { address: world.address("web"), ..plain() };
    world.doors.drain(PATIENCE).await;
    world.open(&[("old", fixed.clone())]).await;
    world.open(&[("new", fixed.clone())]).await;
    let mut client = Raw::connect(fixed.address).await;
    client.say(GET).await;
    assert!(client.hear("GET /a ").await.to_lowercase().contains("x-entrypoint: new"));
    assert_eq!(world.doors.addresses().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn new_certificate_files_serve_new_connections() {
    let world = World::new().await;
    let (files, old) = world.certificate("a", &["a.test"]);
    let entrypoint = secure(vec![files], false);
    world.open(&[("tls", entrypoint.clone())]).await;
    let address = world.address("tls");
    tls_connect(address, "a.test", &old, b"h2").await.unwrap();
    let (_, new) = world.certificate("a", &["a.test"]);
    world.open(&[("tls", entrypoint)]).await;
    assert_eq!(world.address("tls"), address);
    tls_connect(address, "a.test", &new, b"h2").await.unwrap();
    assert!(tls_connect(address, "a.test", &old, b"h2").await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_over_the_limit_are_closed_unheard() {
    let world = World::new().await;
    let limits = Limits { max_connections: 1, ..plain().limits };
    world.open(&[("web", Entrypoint { limits, ..plain() })]).await;
    let mut first = Raw::connect(world.address("web")).await;
    first.say(GET).await;
    first.hear("GET /a ").await;
    assert_eq!(world.doors.connections(), 1);
    let mut second = Raw::connect(world.address("web")).await;
    assert_eq!(second.rest().await, "");
    world.events.wait_for("shed web entrypoint").await;
    first.say(GET).await;
    first.hear("GET /a ").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_over_its_limit_is_closed_unheard() {
    let world = World::new().await;
    let limits = Limits { max_connections_per_client: Some(1), ..plain().limits };
    world.open(&[("web", Entrypoint { limits, ..plain() })]).await;
    let mut first = Raw::connect(world.address("web")).await;
    first.say(GET).await;
    first.hear("GET /a ").await;
    let mut second = Raw::connect(world.address("web")).await;
    assert_eq!(second.rest().await, "");
    world.events.wait_for("shed web client").await;
    drop(first);
    while world.doors.connections() > 0 {
        tokio::task::yield_now().await;
    }
    let mut third = Raw::connect(world.address("web")).await;
    third.say(GET).await;
    third.hear("GET /a ").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_process_has_a_bound_over_all_entrypoints() {
    let world = World::new().await;
    world.open(&[("web", plain()), ("more", plain())]).await;
    world.doors.limit_connections(1);
    let mut first = Raw::connect(world.address("web")).await;
    first.say(GET).await;
    first.hear("GET /a ").await;
    let mut second = Raw::connect(world.address("more")).await;
    assert_eq!(second.rest().await, "");
    world.events.wait_for("shed more process").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn inherited_sockets_are_used_by_name_or_by_address() {
    let world = World::new().await;
    let listener = || std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (named, at, unused) = (listener(), listener(), listener());
    let addresses = [&named, &at, &unused].map(|socket| socket.local_addr().unwrap());
    world.doors.inherit(vec![
        Inherited { name: None, asked: None, listener: at },
        Inherited { name: Some("web".to_owned()), asked: None, listener: named },
        Inherited { name: Some("gone".to_owned()), asked: None, listener: unused },
    ]);
    world.doors.accept(false);
    let fixed = Entrypoint { address: addresses[1], ..plain() };
    world.open(&[("web", plain()), ("fixed", fixed)]).await;
    assert_eq!([world.address("web"), world.address("fixed")], addresses[..2]);
    assert!(TcpStream::connect(addresses[2]).await.is_err(), "an unused socket is closed");
    let mut client = Raw::connect(addresses[0]).await;
    client.say(GET).await;
    assert_eq!(world.doors.connections(), 0, "it waits in the backlog");
    world.doors.accept(true);
    client.hear("GET /a ").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_used_connection_gets_one_more_answer_from_a_closing_door() {
    let world = World::plain().await;
    let mut client = Raw::connect(world.address("web")).await;
    client.say(GET).await;
    client.hear("GET /a ").await;
    let doors = world.doors.clone();
    let drained = tokio::spawn(async move { doors.drain(PATIENCE).await });
    closed(&world).await;
    client.say(GET).await;
    let answer = client.hear("GET /a ").await.to_lowercase();
    assert!(answer.contains("connection: close"), "{answer}");
    assert_eq!(client.rest().await, "");
    assert!(drained.await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_waits_for_open_requests() {
    let mut world = World::plain().await;
    let mut busy = Raw::connect(world.address("web")).await;
    busy.say(HELD).await;
    world.reached.recv().await.unwrap();
    let doors = world.doors.clone();
    let drained = tokio::spawn(async move { doors.drain(PATIENCE).await });
    closed(&world).await;
    world.gate.add_permits(1);
    busy.hear("GET /held ").await;
    assert!(drained.await.unwrap(), "nothing had to be cut");
    assert_eq!(world.doors.connections(), 0);
    assert!(world.doors.addresses().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_lets_http2_streams_finish() {
    let mut world = World::plain().await;
    let stream = TcpStream::connect(world.address("web")).await.unwrap();
    let answer = tokio::spawn(get_http2(stream, "http://a.test/held"));
    world.reached.recv().await.unwrap();
    let doors = world.doors.clone();
    let drained = tokio::spawn(async move { doors.drain(PATIENCE).await });
    closed(&world).await;
    world.gate.add_permits(1);
    assert_eq!(answer.await.unwrap().1, "GET /held ");
    assert!(drained.await.unwrap(), "nothing had to be cut");
}

/// Until the drain has taken the listeners away.
async fn closed(world: &World) {
    while !world.doors.addresses().is_empty() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_cuts_what_outlasts_its_deadline() {
    let mut world = World::plain().await;
    let mut busy = Raw::connect(world.address("web")).await;
    busy.say(HELD).await;
    world.reached.recv().await.unwrap();
    assert!(!world.doors.drain(Duration::from_millis(50)).await);
    assert_eq!(busy.rest().await, "");
}
