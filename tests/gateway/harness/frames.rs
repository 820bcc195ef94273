//! An HTTP/2 client on which every frame is ours.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::Notify,
    time::timeout,
};

pub(crate) const DATA: u8 = 0x0;
pub(crate) const HEADERS: u8 = 0x1;
pub(crate) const PRIORITY: u8 = 0x2;
pub(crate) const RST_STREAM: u8 = 0x3;
pub(crate) const SETTINGS: u8 = 0x4;
pub(crate) const PING: u8 = 0x6;
pub(crate) const GOAWAY: u8 = 0x7;
pub(crate) const WINDOW_UPDATE: u8 = 0x8;
pub(crate) const CONTINUATION: u8 = 0x9;

/// Of DATA and HEADERS.
pub(crate) const END_STREAM: u8 = 0x1;
/// Of HEADERS and CONTINUATION.
pub(crate) const END_HEADERS: u8 = 0x4;
/// Of SETTINGS and PING.
pub(crate) const ACK: u8 = 0x1;

pub(crate) const INITIAL_WINDOW_SIZE: u16 = 0x4;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug, Clone)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// The error code of GOAWAY or RST_STREAM.
    pub(crate) fn code(&self) -> u32 {
        let from = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[from..from + 4].try_into().unwrap())
    }
}

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend_from_slice(&[kind, flags]);
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

pub(crate) fn window_update(stream: u32, increment: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &increment.to_be_bytes())
}

/// A header block: every field literal, without indexing (RFC 7541 section 6.2.2).
pub(crate) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            length(&mut block, text.len());
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

/// The length of a string, not Huffman coded (RFC 7541 section 5.1).
pub(crate) fn length(block: &mut Vec<u8>, length: usize) {
    if length < 127 {
        block.push(u8::try_from(length).unwrap());
        return;
    }
    block.push(127);
    let mut rest = length - 127;
    while rest >= 128 {
        block.push(u8::try_from(rest % 128).unwrap() | 128);
        rest /= 128;
    }
    block.push(u8::try_from(rest).unwrap());
}

pub(crate) fn request(method: &str, path: &str) -> Vec<u8> {
    block(&[(":method", method), (":scheme", "http"), (":authority", "a.test"), (":path", path)])
}

/// A whole GET.
pub(crate) fn get(stream: u32, path: &str) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, stream, &request("GET", path))
}

/// What the gateway sent, as it comes.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    frames: Mutex<Vec<Frame>>,
    closed: AtomicBool,
    news: Notify,
}

impl Heard {
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Frames of this kind, so far.
    pub(crate) fn of(&self, kind: u8) -> Vec<Frame> {
        self.frames.lock().unwrap().iter().filter(|frame| frame.kind == kind).cloned().collect()
    }

    /// Waits until `found` is something in all that was heard, or the connection is closed.
    pub(crate) async fn until<T>(&self, what: &str, found: impl Fn(&[Frame]) -> Option<T>) -> Option<T> {
        let waiting = async {
            loop {
                let news = self.news.notified();
                let closed = self.is_closed();
                if let Some(found) = found(&self.frames.lock().unwrap()) {
                    return Some(found);
                }
                if closed {
                    return None;
                }
                news.await;
            }
        };
        timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("never heard: {what}"))
    }

    /// Waits for the end of the connection.
    pub(crate) async fn until_closed(&self) {
        self.until("the end", |_| None::<()>).await;
    }

    /// Of a stream's response, once it has ended.
    pub(crate) async fn whole(&self, stream: u32) -> Option<Vec<Frame>> {
        self.until("a response", |frames| {
            let of_stream: Vec<Frame> =
                frames.iter().filter(|frame| frame.stream == stream).cloned().collect();
            let ended = |frame: &Frame| {
                frame.kind == RST_STREAM
                    || (matches!(frame.kind, DATA | HEADERS) && frame.flags & END_STREAM != 0)
            };
            of_stream.iter().any(ended).then_some(of_stream)
        })
        .await
    }

    async fn listen(&self, mut from: OwnedReadHalf) {
        loop {
            let mut head = [0; 9];
            if from.read_exact(&mut head).await.is_err() {
                break;
            }
            let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
            if from.read_exact(&mut payload).await.is_err() {
                break;
            }
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            let heard = Frame { kind: head[3], flags: head[4], stream, payload };
            self.frames.lock().unwrap().push(heard);
            self.news.notify_waiters();
        }
        self.closed.store(true, Ordering::Release);
        self.news.notify_waiters();
    }
}

/// A connection by prior knowledge.
pub(crate) struct Wire {
    to: OwnedWriteHalf,
    from: Option<OwnedReadHalf>,
    pub(crate) heard: Arc<Heard>,
    pings: u64,
}

impl Wire {
    /// Says the preface, and SETTINGS with these values; listens.
    pub(crate) async fn open(address: SocketAddr, settings: &[(u16, u32)]) -> Self {
        let mut wire = Self::deaf(address).await;
        let mut payload = Vec::new();
        for (name, value) in settings {
            payload.extend_from_slice(&name.to_be_bytes());
            payload.extend_from_slice(&value.to_be_bytes());
        }
        wire.say(&frame(SETTINGS, 0, 0, &payload)).await;
        wire.say(&frame(SETTINGS, ACK, 0, &[])).await;
        wire.listen();
        wire
    }

    /// Says the preface and nothing more; hears nothing before [`Wire::listen`].
    pub(crate) async fn deaf(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("the port is open");
        stream.set_nodelay(true).expect("a socket option");
        let (from, mut to) = stream.into_split();
        to.write_all(PREFACE).await.expect("the gateway reads");
        Self { to, from: Some(from), heard: Arc::default(), pings: 0 }
    }

    pub(crate) fn listen(&mut self) {
        if let Some(from) = self.from.take() {
            let heard = self.heard.clone();
            tokio::spawn(async move { heard.listen(from).await });
        }
    }

    /// `false` once the gateway has closed.
    pub(crate) async fn say(&mut self, bytes: &[u8]) -> bool {
        let said = timeout(PATIENCE, self.to.write_all(bytes)).await;
        said.expect("the gateway reads or closes").is_ok() && !self.heard.is_closed()
    }

    /// Waits until the gateway has read all that was said; `false` if it closed instead.
    pub(crate) async fn settle(&mut self) -> bool {
        self.pings += 1;
        let id = self.pings.to_be_bytes();
        if !self.say(&frame(PING, 0, 0, &id)).await {
            return false;
        }
        let answered = |frames: &[Frame]| {
            frames.iter().any(|frame| frame.kind == PING && frame.payload == id).then_some(())
        };
        self.heard.until("an answer to PING", answered).await.is_some()
    }
}
