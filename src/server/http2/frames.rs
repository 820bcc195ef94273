//! Where frames begin in a byte stream (RFC 9113 section 4.1), for bytes that
//! come in any split. Payloads are passed by, never kept.

/// Length, type, flags and stream.
const HEAD: usize = 9;

pub(super) const DATA: u8 = 0x0;
pub(super) const HEADERS: u8 = 0x1;
pub(super) const PRIORITY: u8 = 0x2;
pub(super) const RST_STREAM: u8 = 0x3;
pub(super) const SETTINGS: u8 = 0x4;
pub(super) const PUSH_PROMISE: u8 = 0x5;
pub(super) const PING: u8 = 0x6;
pub(super) const GOAWAY: u8 = 0x7;
pub(super) const WINDOW_UPDATE: u8 = 0x8;
pub(super) const CONTINUATION: u8 = 0x9;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct FrameHead {
    /// Of the payload.
    pub(super) length: u32,
    pub(super) kind: u8,
    flags: u8,
    pub(super) stream: u32,
}

impl FrameHead {
    fn parse(bytes: [u8; HEAD]) -> Self {
        let [a, b, c, kind, flags, stream @ ..] = bytes;
        Self {
            length: u32::from_be_bytes([0, a, b, c]),
            kind,
            flags,
            // The first bit is reserved.
            stream: u32::from_be_bytes(stream) & 0x7fff_ffff,
        }
    }

    /// Of DATA and HEADERS.
    pub(super) fn ends_stream(self) -> bool {
        self.flags & 0x1 != 0
    }

    /// Of HEADERS and CONTINUATION.
    pub(super) fn ends_block(self) -> bool {
        self.flags & 0x4 != 0
    }

    /// Of DATA: the payload begins with the length of its padding.
    pub(super) fn is_padded(self) -> bool {
        self.flags & 0x8 != 0
    }
}

/// What a stream of frames consists of.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    Head(FrameHead),
    /// Part of the payload, from this offset on; never empty.
    Payload(FrameHead, u32, &'a [u8]),
    /// The payload is complete.
    End(FrameHead),
}

/// The position in a stream of frames.
#[derive(Debug, Default)]
pub(super) struct Frames {
    /// Bytes before the first frame.
    preface: usize,
    partial: [u8; HEAD],
    /// How much of `partial` is filled.
    have: usize,
    current: FrameHead,
    /// How much of the current payload is still to come.
    left: u32,
}

impl Frames {
    /// Of a stream with `preface` bytes before its first frame.
    pub(super) fn after(preface: usize) -> Self {
        Self { preface, ..Self::default() }
    }

    /// The frame that has begun and not ended; `None` between frames. One
    /// whose head is incomplete counts as a frame of no known type.
    pub(super) fn unfinished(&self) -> Option<Option<u8>> {
        match (self.left, self.have) {
            (0, 0) => None,
            (0, _) => Some(None),
            _ => Some(Some(self.current.kind)),
        }
    }

    /// Tells `piece` of everything in `bytes`; ends with its first error.
    pub(super) fn advance<E>(
        &mut self,
        mut bytes: &[u8],
        mut piece: impl FnMut(Piece<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let skipped = self.preface.min(bytes.len());
        self.preface -= skipped;
        bytes = &bytes[skipped..];
        while !bytes.is_empty() {
            if self.left > 0 {
                let part = bytes.len().min(self.left as usize);
                let (payload, rest) = bytes.split_at(part);
                let offset = self.current.length - self.left;
                self.left -= u32::try_from(part).unwrap_or(self.left);
                bytes = rest;
                piece(Piece::Payload(self.current, offset, payload))?;
                if self.left == 0 {
                    piece(Piece::End(self.current))?;
                }
                continue;
            }
            let part = bytes.len().min(HEAD - self.have);
            let (head, rest) = bytes.split_at(part);
            self.partial[self.have..self.have + part].copy_from_slice(head);
            self.have += part;
            bytes = rest;
            if self.have == HEAD {
                self.have = 0;
                self.current = FrameHead::parse(self.partial);
                self.left = self.current.length;
                piece(Piece::Head(self.current))?;
                if self.left == 0 {
                    piece(Piece::End(self.current))?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &[u8] = b"PRI\0\0\x04\x08\0\x80\0\0\x05abcd\0\0\0\x04\x01\0\0\0\0";

    /// The pieces, with payloads joined.
    fn read(split: usize) -> (Vec<(FrameHead, bool)>, Vec<u8>, Frames) {
        let (mut seen, mut payload) = (Vec::new(), Vec::new());
        let mut frames = Frames::after(3);
        for bytes in STREAM.chunks(split) {
            let told = frames.advance(bytes, |piece| {
                match piece {
                    Piece::Head(head) => seen.push((head, false)),
                    Piece::Payload(_, offset, bytes) => {
                        assert_eq!(offset as usize, payload.len());
                        payload.extend_from_slice(bytes);
                    }
                    Piece::End(head) => seen.push((head, true)),
                }
                Ok::<(), ()>(())
            });
            told.unwrap();
        }
        (seen, payload, frames)
    }

    #[test]
    fn every_split_shows_the_same_frames() {
        let update = FrameHead { length: 4, kind: WINDOW_UPDATE, flags: 0, stream: 5 };
        let ack = FrameHead { length: 0, kind: SETTINGS, flags: 1, stream: 0 };
        for split in 1..=STREAM.len() {
            let (seen, payload, frames) = read(split);
            assert_eq!(seen, [(update, false), (update, true), (ack, false), (ack, true)], "{split}");
            assert_eq!(payload, b"abcd");
            assert_eq!(frames.unfinished(), None);
        }
    }

    #[test]
    fn what_is_cut_off_is_unfinished() {
        let mut frames = Frames::after(0);
        let ignore = |_: Piece<'_>| Ok::<(), ()>(());
        frames.advance(b"\0\0\x02\x01", ignore).unwrap();
        assert_eq!(frames.unfinished(), Some(None));
        frames.advance(b"\0\0\0\0\x01x", ignore).unwrap();
        assert_eq!(frames.unfinished(), Some(Some(HEADERS)));
        frames.advance(b"y", ignore).unwrap();
        assert_eq!(frames.unfinished(), None);
    }
}
