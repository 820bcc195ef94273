//! An origin that keeps what it was sent, byte for byte, and answers `ok` once
//! a request is complete.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

#[derive(Debug)]
pub(crate) struct Witness {
    address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Heads that arrived, whether or not their bodies did.
    pub(crate) begun: usize,
    pub(crate) whole: Vec<Heard>,
    /// Connections that ended within a request.
    pub(crate) broken: usize,
}

/// One complete request.
#[derive(Debug, Clone)]
pub(crate) struct Heard {
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Heard {
    /// `METHOD target body`.
    pub(crate) fn line(&self) -> String {
        let line = self.head.lines().next().unwrap_or_default();
        let line = line.strip_suffix(" HTTP/1.1").unwrap_or(line);
        format!("{line} {}", String::from_utf8_lossy(&self.body)).trim_end().to_owned()
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Witness {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let shared = seen.clone();
        let task = tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let seen = shared.clone();
                tokio::spawn(async move { listen(tcp, seen).await });
            }
        });
        Self { address, seen, task }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What came since the last call.
    pub(crate) fn take(&self) -> Seen {
        std::mem::take(&mut self.seen.lock().unwrap())
    }

    pub(crate) fn broken(&self) -> usize {
        self.seen.lock().unwrap().broken
    }
}

async fn listen(tcp: TcpStream, seen: Arc<Mutex<Seen>>) {
    let mut stream = BufReader::new(tcp);
    while let Some(head) = line_block(&mut stream).await {
        seen.lock().unwrap().begun += 1;
        let Some(body) = body(&mut stream, &head).await else {
            seen.lock().unwrap().broken += 1;
            return;
        };
        seen.lock().unwrap().whole.push(Heard { head, body });
        if stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.is_err() {
            return;
        }
    }
}

/// To the next empty line.
async fn line_block(stream: &mut BufReader<TcpStream>) -> Option<String> {
    let mut block = Vec::new();
    loop {
        let length = stream.read_until(b'\n', &mut block).await.ok()?;
        if length == 0 {
            return None;
        }
        if block.ends_with(b"\r\n\r\n") {
            return Some(String::from_utf8_lossy(&block).into_owned());
        }
    }
}

async fn body(stream: &mut BufReader<TcpStream>, head: &str) -> Option<Vec<u8>> {
    let head = head.to_ascii_lowercase();
    if !head.contains("\r\ntransfer-encoding: chunked\r\n") {
        let length = head.split_once("\r\ncontent-length: ").and_then(|(_, rest)| rest.lines().next());
        let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
        stream.read_exact(&mut body).await.ok()?;
        return Some(body);
    }
    let mut body = Vec::new();
    loop {
        let mut size = String::new();
        stream.read_line(&mut size).await.ok()?;
        let size = usize::from_str_radix(size.trim_end(), 16).ok()?;
        let mut chunk = vec![0; size + 2];
        stream.read_exact(&mut chunk).await.ok()?;
        if size == 0 {
            return Some(body);
        }
        body.extend_from_slice(&chunk[..size]);
    }
}
