//! A socket between two processes, over which either asks the other's store.

use std::{
    collections::HashMap,
    io,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::{
    Place, SharedStore,
    calls::{Call, Failure},
    lost,
};
use crate::state::{Result, StoreError};

/// Frames on their way out. Beyond it those who ask wait.
const QUEUE: usize = 1024;
/// More is no message of ours.
const LONGEST: usize = 256 << 20;
/// Until an answer; the store may just be moving.
const PATIENCE: Duration = Duration::from_secs(15);

#[derive(Debug, Serialize, Deserialize)]
enum Frame {
    Call(u64, Call),
    Answer(u64, Answer),
}

type Answer = std::result::Result<Value, Failure>;
type Waiting = Arc<Mutex<HashMap<u64, oneshot::Sender<Answer>>>>;

/// The asking end. The answering end lives as long as the socket.
pub(super) struct Link {
    outgoing: mpsc::Sender<Vec<u8>>,
    waiting: Waiting,
    next: AtomicU64,
    cut: Arc<AtomicBool>,
}

impl Link {
    /// Answers from `store` while it is here, and asks.
    pub(super) fn start(stream: UnixStream, store: Weak<SharedStore>) -> Self {
        let (outgoing, queue) = mpsc::channel(QUEUE);
        let (read, write) = stream.into_split();
        let (waiting, cut) = (Waiting::default(), Arc::<AtomicBool>::default());
        let reader = Reader { store, waiting: waiting.clone(), outgoing: outgoing.clone() };
        let gone = cut.clone();
        tokio::spawn(async move {
            let end = reader.run(read).await;
            tracing::debug!(?end, "the other process left the store");
            gone.store(true, Ordering::Release);
            // Whoever waits learns that no answer comes.
            reader.waiting.lock().clear();
        });
        tokio::spawn(send(write, queue));
        Self { outgoing, waiting, next: AtomicU64::new(0), cut }
    }

    /// The other process is gone.
    pub(super) fn is_cut(&self) -> bool {
        self.cut.load(Ordering::Acquire)
    }

    /// `T` as the operation returns it.
    pub(super) async fn ask<T: DeserializeOwned>(&self, call: &Call) -> Result<T> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (reply, answer) = oneshot::channel();
        let frame = frame_of(&("Call", id, call))?;
        self.waiting.lock().insert(id, reply);
        let asked = async {
            self.outgoing.send(frame).await.map_err(|_| lost())?;
            // After the entry is made: either the reader's end clears it, or we see that.
            if self.is_cut() {
                return Err(lost());
            }
            answer.await.map_err(|_| lost())
        };
        let answer = timeout(PATIENCE, asked).await;
        self.waiting.lock().remove(&id);
        let value = answer.map_err(|_| StoreError::TimedOut)??.map_err(StoreError::from)?;
        serde_json::from_value(value).map_err(|error| StoreError::Corrupt(error.to_string()))
    }
}

/// Length, then JSON.
fn frame_of((kind, id, body): &(&str, u64, &impl Serialize)) -> Result<Vec<u8>> {
    let mut bytes = vec![0; 4];
    serde_json::to_writer(&mut bytes, &HashMap::from([(kind, (id, body))]))
        .map_err(|error| StoreError::Corrupt(error.to_string()))?;
    let length = u32::try_from(bytes.len() - 4).map_err(|_| StoreError::Invalid("a message too long"))?;
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    Ok(bytes)
}

async fn send(mut write: OwnedWriteHalf, mut queue: mpsc::Receiver<Vec<u8>>) -> io::Result<()> {
    while let Some(frame) = queue.recv().await {
        write.write_all(&frame).await?;
    }
    Ok(())
}

struct Reader {
    store: Weak<SharedStore>,
    waiting: Waiting,
    /// Answers go on when nobody asks any more.
    outgoing: mpsc::Sender<Vec<u8>>,
}

impl Reader {
    async fn run(&self, mut read: OwnedReadHalf) -> io::Result<()> {
        while self.store.strong_count() > 0 {
            let length = read.read_u32_le().await? as usize;
            if length > LONGEST {
                return Err(io::ErrorKind::InvalidData.into());
            }
            let mut bytes = vec![0; length];
            read.read_exact(&mut bytes).await?;
            match serde_json::from_slice(&bytes)? {
                Frame::Call(id, call) => self.called(id, call),
                Frame::Answer(id, answer) => {
                    if let Some(reply) = self.waiting.lock().remove(&id) {
                        // Who asked may have given up.
                        let _ = reply.send(answer);
                    }
                }
            }
        }
        Ok(())
    }

    fn called(&self, id: u64, call: Call) {
        let (store, outgoing) = (self.store.clone(), self.outgoing.clone());
        tokio::spawn(async move {
            let answer = answer(&store, call).await;
            if let Ok(frame) = frame_of(&("Answer", id, &answer)) {
                let _ = outgoing.send(frame).await;
            }
        });
    }
}

/// Only from a store that is here: two that ask each other would never end.
async fn answer(store: &Weak<SharedStore>, call: Call) -> Answer {
    let Some(store) = store.upgrade() else { return Err(lost().into()) };
    match &*store.place().await? {
        Place::Here(here) => call.answer(&here.store).await,
        Place::There(_) | Place::Moving | Place::Closed => Err(lost().into()),
    }
}
