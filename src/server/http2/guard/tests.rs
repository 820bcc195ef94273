//! Floods end within a thousand frames, work never does.

use super::*;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend_from_slice(&[kind, flags]);
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// A guard that has heard the preface and SETTINGS.
struct Watched {
    guard: Guard,
    now: Instant,
}

impl Watched {
    fn new() -> Self {
        let guard = Guard::new(Arc::default(), &Limits::default(), &Timeouts::default());
        let mut watched = Self { guard, now: Instant::now() };
        let mut hello = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        hello.extend(frame(SETTINGS, 0, 0, &[]));
        watched.receive(&hello).unwrap();
        watched
    }

    fn receive(&mut self, bytes: &[u8]) -> Result<(), Abuse> {
        self.guard.receive(bytes, self.now)
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), Abuse> {
        self.guard.send(bytes, self.now)
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
    }

    fn serve(&self) {
        drop(Arc::clone(&self.guard.meter).begin());
    }
}

/// How many of `unit` pass, and why the next does not.
fn flood(unit: &[u8]) -> (usize, Abuse) {
    let mut watched = Watched::new();
    for sent in 0..100_000 {
        if let Err(abuse) = watched.receive(unit) {
            return (sent, abuse);
        }
    }
    panic!("never cut");
}

#[test]
fn every_flood_of_frames_is_cut() {
    let long_block = [frame(HEADERS, 0x4, 1, &[0; 16_384]), frame(CONTINUATION, 0x4, 1, &[0; 16_384])];
    for (unit, expected) in [
        (frame(SETTINGS, 0, 0, &[]), Abuse::Settings),
        (frame(SETTINGS, 1, 0, &[]), Abuse::Settings),
        (frame(PING, 0, 0, &[0; 8]), Abuse::Ping),
        (frame(PING, 1, 0, &[0; 8]), Abuse::Ping),
        (frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]), Abuse::WindowUpdate),
        (frame(PRIORITY, 0, 3, &[0; 5]), Abuse::Priority),
        (frame(0x10, 0, 0, &[0; 16]), Abuse::Unknown),
        (frame(0xbe, 0, 0, &[0; 8192]), Abuse::Unknown),
        (frame(PUSH_PROMISE, 4, 1, &[0; 8]), Abuse::Unknown),
        (frame(DATA, 0, 1, &[]), Abuse::EmptyData),
        (frame(DATA, 8, 1, &[0]), Abuse::EmptyData),
        (frame(DATA, 8, 1, &[9; 10]), Abuse::EmptyData),
        (frame(CONTINUATION, 0x4, 1, &[]), Abuse::EmptyContinuation),
        (frame(CONTINUATION, 0, 1, &[0]), Abuse::HeaderBlock),
        (frame(CONTINUATION, 0, 1, &[0; 16_384]), Abuse::HeaderBlock),
        (long_block.concat(), Abuse::Unserved),
        (frame(HEADERS, 0x5, 1, &[0; 10]), Abuse::Unserved),
        (frame(RST_STREAM, 0, 1, &[0, 0, 0, 8]), Abuse::Reset),
        (frame(GOAWAY, 0, 0, &[0; 8]), Abuse::GoAway),
    ] {
        let (passed, abuse) = flood(&unit);
        assert_eq!(abuse, expected, "{unit:?}");
        assert!(passed < 500, "{passed} {abuse:?}");
    }
}

#[test]
fn large_heads_are_cut_even_when_they_are_served() {
    let mut watched = Watched::new();
    let mut unit = frame(HEADERS, 0x1, 1, &[0; 16_384]);
    for _ in 0..2 {
        unit.extend(frame(CONTINUATION, 0, 1, &[0; 16_384]));
    }
    unit.extend(frame(CONTINUATION, 0x4, 1, &[0; 16_000]));
    let cut = (0..1000).find_map(|sent| {
        watched.serve();
        watched.receive(&unit).err().map(|abuse| (sent, abuse))
    });
    let (sent, abuse) = cut.expect("a cut");
    assert_eq!(abuse, Abuse::HeaderBytes);
    assert!((200..1000).contains(&sent), "{sent}");
}

#[test]
fn our_own_resets_count_only_for_errors_of_the_client() {
    let mut watched = Watched::new();
    for code in [0, 2, 7, 8, 11].repeat(1000) {
        watched.send(&frame(RST_STREAM, 0, 1, &[0, 0, 0, code])).unwrap();
    }
    let mut sent = 0;
    while watched.send(&frame(RST_STREAM, 0, 1, &[0, 0, 0, [1, 3, 5, 6][sent % 4]])).is_ok() {
        sent += 1;
    }
    assert_eq!(sent, 100);
}

#[test]
fn requests_that_are_served_may_come_forever() {
    let mut watched = Watched::new();
    for stream in (1..40_000).step_by(2) {
        // A browser: PRIORITY_UPDATE, a window for the stream, some cancelled late.
        watched.receive(&frame(0x10, 0, 0, &[0; 8])).unwrap();
        watched.receive(&frame(PRIORITY, 0, stream, &[0; 5])).unwrap();
        watched.receive(&frame(HEADERS, 0x5, stream, &[0; 300])).unwrap();
        watched.receive(&frame(WINDOW_UPDATE, 0, stream, &[0, 1, 0, 0])).unwrap();
        watched.serve();
        watched.send(&frame(HEADERS, 0x4, stream, &[0; 50])).unwrap();
        watched.receive(&frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])).unwrap();
    }
}

#[test]
fn a_long_stream_may_ping_and_update_for_every_message() {
    let mut watched = Watched::new();
    watched.receive(&frame(HEADERS, 0x4, 1, &[0; 100])).unwrap();
    for _ in 0..20_000 {
        watched.receive(&frame(DATA, 0, 1, &[0; 12])).unwrap();
        watched.send(&frame(DATA, 0, 1, &[0; 12])).unwrap();
        watched.receive(&frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 12])).unwrap();
        watched.receive(&frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 12])).unwrap();
        watched.receive(&frame(PING, 0, 0, &[0; 8])).unwrap();
    }
}

#[test]
fn slow_habits_are_forgiven() {
    let mut watched = Watched::new();
    for _ in 0..5000 {
        watched.pass(Duration::from_secs(1));
        watched.receive(&frame(PING, 0, 0, &[0; 8])).unwrap();
        watched.receive(&frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1])).unwrap();
        watched.receive(&frame(SETTINGS, 0, 0, &[])).unwrap();
    }
}

#[test]
fn what_is_begun_has_to_be_finished() {
    let mut watched = Watched::new();
    assert_eq!(watched.guard.deadline(), None);
    let began = watched.now;
    // Neither another frame of the block nor time puts the deadline off.
    watched.receive(&frame(HEADERS, 0, 1, &[0; 10])).unwrap();
    watched.pass(Duration::from_secs(5));
    watched.receive(&frame(CONTINUATION, 0, 1, &[0; 10])).unwrap();
    assert_eq!(watched.guard.deadline(), Some((began + Duration::from_secs(10), Abuse::Unfinished)));
    watched.receive(&frame(CONTINUATION, 0x4, 1, &[0; 10])).unwrap();
    assert_eq!(watched.guard.deadline(), None);
    // A frame that is cut off; the next one starts its own time.
    let headers = frame(HEADERS, 0x4, 3, &[0; 10]);
    watched.receive(&headers[..12]).unwrap();
    watched.pass(Duration::from_secs(5));
    watched.receive(&[&headers[12..], &headers[..12]].concat()).unwrap();
    assert_eq!(watched.guard.deadline(), Some((watched.now + Duration::from_secs(10), Abuse::Unfinished)));
}

#[test]
fn a_slow_upload_has_no_deadline_here() {
    let mut watched = Watched::new();
    watched.receive(&frame(DATA, 0, 1, &[0; 100])[..50]).unwrap();
    assert_eq!(watched.guard.deadline(), None);
}

#[test]
fn settings_have_to_follow_the_preface() {
    let guard = Guard::new(Arc::default(), &Limits::default(), &Timeouts::default());
    assert!(matches!(guard.deadline(), Some((_, Abuse::NoSettings))));
}

#[test]
fn responses_do_not_wait_for_a_client_without_window() {
    let mut watched = Watched::new();
    let _active = Arc::clone(&watched.guard.meter).begin();
    let no_window = frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100, 0, 4, 0, 0, 0, 0]);
    for byte in no_window {
        watched.receive(&[byte]).unwrap();
    }
    let due = Some((watched.now + Duration::from_secs(5), Abuse::NoWindow));
    // Nothing has to be sent yet.
    assert_eq!(watched.guard.deadline(), None);
    let head = frame(HEADERS, 0x4, 1, &[0; 10]);
    watched.send(&head).unwrap();
    assert_eq!(watched.guard.deadline(), due);
    watched.receive(&frame(WINDOW_UPDATE, 0, 0, &[0, 1, 0, 0])).unwrap();
    assert_eq!(watched.guard.deadline(), due, "the connection's window is of no use");
    watched.receive(&frame(WINDOW_UPDATE, 0, 1, &[0, 1, 0, 0])).unwrap();
    assert_eq!(watched.guard.deadline(), None);
    watched.send(&head).unwrap();
    assert_eq!(watched.guard.deadline(), due);
    watched.receive(&frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 1])).unwrap();
    assert_eq!(watched.guard.deadline(), None);
}
